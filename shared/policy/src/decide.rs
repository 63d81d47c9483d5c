//! Decisions: one question a facet, and the answer with its rule.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use cedar_policy::{
    Authorizer, Context, Decision as Answer, Entities, Entity, EntityUid, Request,
    RestrictedExpression,
};
use drover_authorization::{Facet, Fact};

use crate::load::Policy;
use crate::memo::Question;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    /// The name: of the TLS certificate, `local`, or `socket:ROLE`.
    pub name: String,
    /// A role that comes with the way it asks: that of its socket.
    pub role: Option<String>,
}

/// What is known of a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub known: bool,
    /// Whose it is.
    pub owner: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A facet, with what is known of its resource.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The facet.
    pub facet: &'a Facet,
    /// Its resource, when it is of a kind that has owners.
    pub object: Option<&'a Object>,
}

/// The answer to one facet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is permitted.
    pub allowed: bool,
    /// The rules that decided: those that permit, or those that forbid; none when nothing permits.
    pub rules: Vec<String>,
    /// Why it is denied, a sentence; empty when it is not.
    pub reason: String,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The verdicts, one a facet, up to the first that denies.
    pub verdicts: Vec<Verdict>,
}

impl Decision {
    /// Whether the call may be made.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        !self.verdicts.is_empty() && self.verdicts.iter().all(|verdict| verdict.allowed)
    }

    /// The first denial, and which facet it was.
    #[must_use]
    pub fn denial(&self) -> Option<(usize, &Verdict)> {
        let verdicts = self.verdicts.iter().enumerate();
        verdicts.into_iter().find(|(_, verdict)| !verdict.allowed)
    }
}

impl Policy {
    /// Decides a call. With `whole`, every facet is asked, also behind a denial.
    #[must_use]
    pub fn decide(
        &self,
        principal: &Principal,
        operation: &str,
        asked: &[Asked<'_>],
        whole: bool,
    ) -> Decision {
        let mut verdicts = Vec::with_capacity(asked.len());
        // Made for the first question that was not asked before.
        let user = OnceCell::new();
        for each in asked {
            let question = Question {
                principal,
                operation,
                asked: *each,
            };
            let verdict = self.memo.verdict(question, || {
                let user = user.get_or_init(|| self.user(principal));
                user.as_ref().map_or_else(
                    || failed("the name of the user"),
                    |user| self.ask(user, principal, operation, *each),
                )
            });
            let denied = !verdict.allowed;
            verdicts.push(verdict);
            if denied && !whole {
                break;
            }
        }
        Decision { verdicts }
    }

    fn user(&self, principal: &Principal) -> Option<Entity> {
        let uid = self.uid("User", &principal.name)?;
        let mut parents: Vec<EntityUid> = Vec::new();
        for group in self.setup.groups_of(&principal.name) {
            parents.push(self.uid("Group", group)?);
        }
        let roles = self.setup.roles_of(&principal.name);
        for role in roles.into_iter().chain(principal.role.as_deref()) {
            parents.push(self.uid("Role", role)?);
        }
        let name = RestrictedExpression::new_string(principal.name.clone());
        let attributes = [("name".to_owned(), name)].into();
        Entity::new(uid, attributes, parents.into_iter().collect()).ok()
    }

    fn ask(
        &self,
        user: &Entity,
        principal: &Principal,
        operation: &str,
        asked: Asked<'_>,
    ) -> Verdict {
        let facet = asked.facet;
        let Some(rules) = self.by_action.get(facet.action) else {
            return failed("the action");
        };
        let Some((resource, entity)) = self.resource(asked, principal) else {
            return failed("the resource");
        };
        let Some(context) = context(operation, facet) else {
            return failed("the facts");
        };
        let request = Request::new(user.uid(), rules.action.clone(), resource, context, None);
        let mut entities = vec![user.clone(), rules.entity.clone()];
        // The owner's label can be claimed for oneself: the user is there already.
        if entity.uid() != user.uid() {
            entities.push(entity);
        }
        let (Ok(request), Ok(entities)) = (request, Entities::from_entities(entities, None)) else {
            return failed("the question");
        };
        let response = Authorizer::new().is_authorized(&request, &rules.set, &entities);
        let ids = response.diagnostics().reason();
        if response.diagnostics().errors().next().is_some() {
            // A rule that fails is left out by Cedar, be it a `forbid`; here nothing is permitted beside one.
            let errors = response.diagnostics().errors().map(ToString::to_string);
            return Verdict {
                allowed: false,
                rules: Vec::new(),
                reason: format!(
                    "a rule cannot be applied: {}",
                    errors.collect::<Vec<_>>().join("; ")
                ),
            };
        }
        let allowed = response.decision() == Answer::Allow;
        let mut names: Vec<String> = ids
            .filter(|id| allowed || self.forbids(facet.action, id))
            .map(ToString::to_string)
            .collect();
        names.sort();
        let reason = if allowed {
            String::new()
        } else {
            self.reason(principal, facet, &names)
        };
        Verdict {
            allowed,
            rules: names,
            reason,
        }
    }

    /// A sentence for the user.
    fn reason(&self, principal: &Principal, facet: &Facet, forbidding: &[String]) -> String {
        let (kind, id) = (facet.resource.kind.name(), &facet.resource.id);
        let what = if id.is_empty() {
            format!("`{}`", facet.action)
        } else {
            format!("`{}` on {kind} `{id}`", facet.action)
        };
        match forbidding.first() {
            None => format!("no rule permits {what} to `{}`", principal.name),
            Some(rule) => match self.reasons.get(rule) {
                Some(reason) => format!("rule `{rule}` forbids {what}: {reason}"),
                None => format!("rule `{rule}` forbids {what}"),
            },
        }
    }

    fn resource(&self, asked: Asked<'_>, principal: &Principal) -> Option<(EntityUid, Entity)> {
        let resource = &asked.facet.resource;
        let kind = resource.kind;
        let uid = self.uid(kind.name(), &resource.id)?;
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let mut attributes = vec![("name".to_owned(), text(&resource.id))];
        let mut tags = Vec::new();
        let mut parents = Vec::new();
        if kind.is_owned() {
            let unknown = Object::default();
            let object = asked.object.unwrap_or(&unknown);
            if !object.name.is_empty() {
                attributes = vec![("name".to_owned(), text(&object.name))];
            }
            attributes.push((
                "known".to_owned(),
                RestrictedExpression::new_bool(object.known),
            ));
            if let Some(owner) = &object.owner {
                let owner = self.uid("User", owner)?;
                attributes.push((
                    "owner".to_owned(),
                    RestrictedExpression::new_entity_uid(owner),
                ));
            }
            let labels = object.labels.iter();
            tags.extend(labels.map(|(key, value)| (key.clone(), text(value))));
        }
        if kind == drover_authorization::Kind::HostPath {
            for set in self.setup.sets_of(&resource.id) {
                parents.push(self.uid("PathSet", set)?);
            }
        }
        if kind == drover_authorization::Kind::User && resource.id == principal.name {
            return Some((uid, self.user(principal)?));
        }
        let entity = Entity::new_with_tags(uid.clone(), attributes, parents, tags).ok()?;
        Some((uid, entity))
    }
}

fn context(operation: &str, facet: &Facet) -> Option<Context> {
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let facts = facet.facts.iter().map(|(name, fact)| {
        let value = match fact {
            Fact::Bool(value) => RestrictedExpression::new_bool(*value),
            Fact::Long(value) => RestrictedExpression::new_long(*value),
            Fact::Text(value) => text(value),
            Fact::Texts(values) => {
                RestrictedExpression::new_set(values.iter().map(|value| text(value)))
            }
        };
        ((*name).to_owned(), value)
    });
    Context::from_pairs(facts.chain([("operation".to_owned(), text(operation))])).ok()
}

/// What cannot be asked is denied.
fn failed(what: &str) -> Verdict {
    Verdict {
        allowed: false,
        rules: Vec::new(),
        reason: format!("{what} cannot be put into a question: this is a bug"),
    }
}
