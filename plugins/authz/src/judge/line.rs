//! A decision as it stands in the log.

use drover_authorization::{Call, Request};
use drover_policy::Principal;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Weighed;
use crate::log::{DeniedQuestion, Line};

/// All of a line but what was decided, why, and how long it took.
pub(super) fn line(
    principal: &Principal,
    call: &Call<'_>,
    request: Option<&Request>,
    weighed: Option<&Weighed>,
) -> Line {
    let target = request.and_then(Request::target);
    let decision = weighed.map(|weighed| &weighed.decision);
    let decided = decision.and_then(|decision| match decision.denial() {
        Some((_, verdict)) => Some(verdict),
        None => decision.verdicts.first(),
    });
    let denied = weighed.into_iter().flat_map(|weighed| {
        let rows = weighed
            .facets
            .iter()
            .zip(&weighed.objects)
            .zip(&weighed.decision.verdicts);
        rows.filter(|(_, verdict)| !verdict.allowed)
            .map(|((facet, object), _)| DeniedQuestion {
                action: facet.action,
                kind: facet.resource.kind.name(),
                id: facet.resource.id.clone(),
                own: object
                    .as_ref()
                    .is_some_and(|object| object.owner.as_deref() == Some(principal.name.as_str())),
            })
    });
    Line {
        time: OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default(),
        user: principal.name.clone(),
        method: call.method.chars().take(20).collect(),
        operation: request.map(|request| request.endpoint.operation),
        target: target
            .map(|target| format!("{}/{}", target.kind.name(), target.id))
            .unwrap_or_default(),
        decision: "",
        rules: decided
            .map(|verdict| verdict.rules.clone())
            .unwrap_or_default(),
        reason: String::new(),
        denied: denied.collect(),
        micros: 0,
    }
}
