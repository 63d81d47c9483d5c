//! Decisions: one question a facet, and the answer with its rule.

use std::collections::BTreeMap;
use std::sync::Arc;

use cedar_policy::{
    Authorizer, Context, Decision as Answer, Entities, Entity, EntityUid, Request,
    RestrictedExpression,
};
use drover_authorization::{Facet, Fact, Kind};

use crate::load::{Policy, Rules};
use crate::reads::{OPERATION, Reads};

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

impl<'a> Asked<'a> {
    /// What policies read as `resource.name`.
    pub(crate) fn name(&self) -> &'a str {
        let named = self.object.filter(|object| !object.name.is_empty());
        named.map_or(&self.facet.resource.id, |object| &object.name)
    }
}

/// One facet of a call, asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) operation: &'a str,
    pub(crate) asked: Asked<'a>,
}

/// What the rules say to a question, whatever else there is to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub(crate) allowed: bool,
    /// The rules that permit, or those that forbid.
    pub(crate) rules: Vec<String>,
    /// Why it cannot be answered: it is denied then.
    pub(crate) errors: Vec<String>,
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
        for each in asked {
            let verdict = self.verdict(&Question {
                principal,
                operation,
                asked: *each,
            });
            let denied = !verdict.allowed;
            verdicts.push(verdict);
            if denied && !whole {
                break;
            }
        }
        Decision { verdicts }
    }

    fn verdict(&self, question: &Question<'_>) -> Verdict {
        let facet = question.asked.facet;
        let ruling = match self.by_action.get(facet.action) {
            None => Arc::new(failed("the action")),
            Some(rules) => self.memo.ruling(rules.reads.key(question), || {
                self.ask(rules, question).unwrap_or_else(failed)
            }),
        };
        let reason = match (ruling.allowed, ruling.errors.as_slice()) {
            (true, _) => String::new(),
            (false, []) => self.reason(question.principal, facet, &ruling.rules),
            (false, errors) => errors.join("; "),
        };
        Verdict {
            allowed: ruling.allowed,
            rules: ruling.rules.clone(),
            reason,
        }
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

    /// Has Cedar answer a question; what could not be put into one when it cannot.
    fn ask(&self, rules: &Rules, question: &Question<'_>) -> Result<Ruling, &'static str> {
        let facet = question.asked.facet;
        let user = self
            .user(question.principal)
            .ok_or("the name of the user")?;
        let (resource, entity) = self.resource(rules, question).ok_or("the resource")?;
        let context = context(&rules.reads, question).ok_or("the facts")?;
        let request = Request::new(user.uid(), rules.action.clone(), resource, context, None)
            .map_err(|_never| "the question")?;
        let mut entities = vec![rules.entity.clone()];
        // The owner's label can be claimed for oneself: the user is there already.
        if entity.uid() != user.uid() {
            entities.push(entity);
        }
        entities.push(user);
        let entities =
            Entities::from_entities(entities, None).map_err(|_never| "what it is about")?;
        let response = Authorizer::new().is_authorized(&request, &rules.set, &entities);
        let errors = response.diagnostics().errors();
        // A rule that fails is left out by Cedar, be it a `forbid`; here nothing is permitted beside one.
        let errors: Vec<String> = errors
            .map(|error| format!("a rule cannot be applied: {error}"))
            .collect();
        let allowed = errors.is_empty() && response.decision() == Answer::Allow;
        let ids = response.diagnostics().reason();
        let mut names: Vec<String> = ids
            .filter(|id| errors.is_empty() && (allowed || self.forbids(facet.action, id)))
            .map(ToString::to_string)
            .collect();
        names.sort();
        Ok(Ruling {
            allowed,
            rules: names,
            errors,
        })
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

    /// The resource, with what the rules look at.
    fn resource(&self, rules: &Rules, question: &Question<'_>) -> Option<(EntityUid, Entity)> {
        let resource = &question.asked.facet.resource;
        let (kind, reads) = (resource.kind, &rules.reads);
        let uid = self.uid(kind.name(), &resource.id)?;
        if kind == Kind::User && resource.id == question.principal.name {
            return Some((uid, self.user(question.principal)?));
        }
        let mut attributes = Vec::new();
        if reads.attribute("name") {
            attributes.push(("name".to_owned(), text(question.asked.name())));
        }
        let mut tags = Vec::new();
        if kind.is_owned() {
            let unknown = Object::default();
            let object = question.asked.object.unwrap_or(&unknown);
            let known = RestrictedExpression::new_bool(object.known);
            attributes.push(("known".to_owned(), known));
            if let Some(owner) = object.owner.as_ref().filter(|_| reads.attribute("owner")) {
                let owner = RestrictedExpression::new_entity_uid(self.uid("User", owner)?);
                attributes.push(("owner".to_owned(), owner));
            }
            let labels = object.labels.iter().filter(|(name, _)| reads.tag(name));
            tags.extend(labels.map(|(name, value)| (name.clone(), text(value))));
        }
        let mut parents = Vec::new();
        if kind == Kind::HostPath && reads.identity {
            for set in self.setup.sets_of(&resource.id) {
                parents.push(self.uid("PathSet", set)?);
            }
        }
        let entity = Entity::new_with_tags(uid.clone(), attributes, parents, tags).ok()?;
        Some((uid, entity))
    }
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

/// The facts that the rules look at.
fn context(reads: &Reads, question: &Question<'_>) -> Option<Context> {
    let facts = reads.facts(&question.asked.facet.facts);
    let facts = facts.map(|(name, fact)| {
        let value = match fact {
            Fact::Bool(value) => RestrictedExpression::new_bool(*value),
            Fact::Long(value) => RestrictedExpression::new_long(*value),
            Fact::Text(value) => text(value),
            Fact::Texts(values) => {
                RestrictedExpression::new_set(values.iter().map(|value| text(value)))
            }
        };
        (name.to_owned(), value)
    });
    let operation = reads.fact(OPERATION).then(|| text(question.operation));
    Context::from_pairs(facts.chain(operation.map(|name| (OPERATION.to_owned(), name)))).ok()
}

/// What cannot be asked is denied.
fn failed(what: &str) -> Ruling {
    Ruling {
        errors: vec![format!(
            "{what} cannot be put into a question: this is a bug"
        )],
        ..Ruling::default()
    }
}
