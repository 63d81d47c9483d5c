//! Loading policies: every fault is found here, none when a call is judged.

use std::collections::{HashMap, HashSet};
use std::str::FromStr as _;

use cedar_policy::{
    ActionConstraint, Effect, Entity, EntityId, EntityTypeName, EntityUid, PolicyId, PolicySet,
    Schema, ValidationMode, Validator,
};

use crate::memo::Memo;
use crate::reads::Reads;
use crate::ready::ROLES;
use crate::schema;
use crate::setup::{Setup, SetupError};

/// A file of policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name, for the names of its rules: `site` of `site.cedar`.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Why policies are not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The setup is not.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A file is not written in Cedar.
    #[error("{name}.cedar: {fault}")]
    Syntax {
        /// The file.
        name: String,
        /// What is wrong.
        fault: String,
    },
    /// Policies name what is not there, or compare what cannot be.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// Two rules have one name.
    #[error("{name}.cedar: the rule `{rule}` is there twice: give each its own @id")]
    Twice {
        /// The file.
        name: String,
        /// The rule.
        rule: String,
    },
    /// The schema or an action of it. A bug.
    #[error("the schema is not usable: {0}")]
    Schema(String),
}

/// Policies that are in force.
#[derive(Debug)]
pub struct Policy {
    pub(crate) setup: Setup,
    pub(crate) by_action: HashMap<String, Rules>,
    pub(crate) types: HashMap<&'static str, EntityTypeName>,
    /// What a rule says of itself (`@reason`), by its name.
    pub(crate) reasons: HashMap<String, String>,
    pub(crate) memo: Memo,
    rules: usize,
    /// The roles and sets of paths that rules name.
    named: HashSet<EntityUid>,
}

/// What is asked for an action: the rules that can match, and the action itself.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) set: PolicySet,
    /// What they look at.
    pub(crate) reads: Reads,
    pub(crate) action: EntityUid,
    pub(crate) entity: Entity,
}

impl Policy {
    /// Loads a setup and the files beside it. The ready roles are always there.
    ///
    /// # Errors
    /// With everything that is wrong in the first of the texts that is.
    pub fn load(setup: &str, sources: &[Source]) -> Result<Self, LoadError> {
        let setup = Setup::parse(setup)?;
        let (schema, warnings) = Schema::from_cedarschema_str(&schema::text())
            .map_err(|error| LoadError::Schema(error.to_string()))?;
        drop(warnings);
        let mut all = PolicySet::new();
        let mut reasons = HashMap::new();
        let ready = ROLES.iter().map(|(name, text)| Source {
            name: (*name).to_owned(),
            text: (*text).to_owned(),
        });
        for source in ready.chain(sources.iter().cloned()) {
            add(&mut all, &source, &mut reasons)?;
        }
        validate(&schema, &all)?;
        let by_action = split(&schema, &all)?;
        Ok(Self {
            setup,
            by_action,
            types: types()?,
            reasons,
            memo: Memo::default(),
            rules: all.policies().count(),
            named: all
                .policies()
                .flat_map(cedar_policy::Policy::entity_literals)
                .collect(),
        })
    }

    /// The setup.
    #[must_use]
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// What can be put in force, and is hardly meant: roles and paths that no rule names. One sentence each.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let is_named = |kind: &str, id: &String| {
            self.uid(kind, id)
                .is_some_and(|uid| self.named.contains(&uid))
        };
        let roles = self.setup.roles.keys();
        let roles = roles.filter(|role| !is_named("Role", role)).map(|role| {
            format!("authorization.toml: no rule names the role `{role}`: its members may do nothing by it")
        });
        let paths = self.setup.paths.keys();
        let paths = paths.filter(|set| !is_named("PathSet", set)).map(|set| {
            format!("authorization.toml: no rule names the paths of `{set}`: nobody may bind them by that")
        });
        roles.chain(paths).collect()
    }

    /// The roles that rules name, in their order.
    #[must_use]
    pub fn roles(&self) -> Vec<String> {
        let roles = self.named.iter().filter(|uid| {
            let kind = self.types.get("Role");
            kind.is_some_and(|kind| uid.type_name() == kind)
        });
        let mut roles: Vec<String> = roles.map(|uid| uid.id().unescaped().to_owned()).collect();
        roles.sort();
        roles
    }

    /// How many rules there are.
    #[must_use]
    pub const fn rules(&self) -> usize {
        self.rules
    }
}

fn add(
    all: &mut PolicySet,
    source: &Source,
    reasons: &mut HashMap<String, String>,
) -> Result<(), LoadError> {
    let name = &source.name;
    let fault = |fault: String| LoadError::Syntax {
        name: name.clone(),
        fault,
    };
    let parsed = PolicySet::from_str(&source.text).map_err(|errors| {
        let each = errors.iter().map(|error| located(error, &source.text));
        fault(each.collect::<Vec<_>>().join("; "))
    })?;
    if parsed.templates().next().is_some() {
        return Err(fault("templates (`?principal`) are not used".to_owned()));
    }
    let mut policies: Vec<&cedar_policy::Policy> = parsed.policies().collect();
    policies.sort_by_key(|policy| place(policy));
    let mut read = 0;
    for policy in policies {
        let line = line(policy, &source.text, &mut read);
        let own = policy.annotation("id").map(str::to_owned);
        let rule = own.unwrap_or_else(|| match line {
            Some(line) => format!("line {line}"),
            None => policy.id().to_string(),
        });
        let id = format!("{name}:{rule}");
        if let Some(reason) = policy.annotation("reason") {
            reasons.insert(id.clone(), reason.to_owned());
        }
        all.add(policy.new_id(PolicyId::new(&id)))
            .map_err(|_twice| LoadError::Twice {
                name: name.clone(),
                rule,
            })?;
    }
    Ok(())
}

/// Which of its file a policy is: Cedar calls them `policy0`, `policy1`, and so on.
fn place(policy: &cedar_policy::Policy) -> usize {
    let id = policy.id().to_string();
    let number = id.strip_prefix("policy").map(str::parse);
    number.and_then(Result::ok).unwrap_or(usize::MAX)
}

/// The line that a policy begins in, behind what was `read` of the text before.
fn line(policy: &cedar_policy::Policy, text: &str, read: &mut usize) -> Option<usize> {
    let own = policy.to_string();
    let begin = *read + text.get(*read..)?.find(&own)?;
    *read = begin + own.len();
    Some(line_at(text, begin))
}

/// The line of a place in a text.
fn line_at(text: &str, offset: usize) -> usize {
    text.get(..offset).unwrap_or(text).matches('\n').count() + 1
}

/// An error with the line that it is in.
fn located(error: &(impl miette_like::Labelled + std::fmt::Display), text: &str) -> String {
    match error.offset() {
        Some(offset) => format!("line {}: {error}", line_at(text, offset)),
        None => error.to_string(),
    }
}

/// Where an error is. Cedar's errors tell it as `miette` diagnostics, which is not named anywhere else.
mod miette_like {
    /// Something with a place in a text.
    pub(super) trait Labelled {
        /// The place, bytes from the beginning.
        fn offset(&self) -> Option<usize>;
    }

    impl Labelled for cedar_policy::ParseError {
        fn offset(&self) -> Option<usize> {
            use miette::Diagnostic as _;
            self.labels()?.next().map(|label| label.offset())
        }
    }
}

fn validate(schema: &Schema, all: &PolicySet) -> Result<(), LoadError> {
    let result = Validator::new(schema.clone()).validate(all, ValidationMode::Strict);
    let errors: Vec<String> = result
        .validation_errors()
        .map(ToString::to_string)
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(LoadError::Invalid(errors))
    }
}

/// The rules that can match each action, so that a call is asked no others.
fn split(schema: &Schema, all: &PolicySet) -> Result<HashMap<String, Rules>, LoadError> {
    let broken = |error: String| LoadError::Schema(error);
    let entities = schema
        .action_entities()
        .map_err(|error| broken(error.to_string()))?;
    let mut by_action = HashMap::new();
    for entity in entities.iter() {
        let action = entity.uid();
        let ancestors: HashSet<EntityUid> = entities
            .ancestors(&action)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let covers = |constraint: &ActionConstraint| match constraint {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(one) => *one == action,
            ActionConstraint::In(some) => some
                .iter()
                .any(|one| *one == action || ancestors.contains(one)),
        };
        let rules = all
            .policies()
            .filter(|policy| covers(&policy.action_constraint()))
            .cloned();
        let set = PolicySet::from_policies(rules).map_err(|error| broken(error.to_string()))?;
        let name = action.id().unescaped().to_owned();
        let rules = Rules {
            reads: Reads::of(&set),
            set,
            action,
            entity: entity.clone(),
        };
        by_action.insert(name, rules);
    }
    Ok(by_action)
}

fn types() -> Result<HashMap<&'static str, EntityTypeName>, LoadError> {
    let kinds = drover_authorization::Kind::ALL
        .iter()
        .map(|kind| kind.name());
    kinds
        .chain(["Group", "Role", "PathSet"])
        .map(|name| {
            let parsed = EntityTypeName::from_str(name);
            parsed
                .map(|parsed| (name, parsed))
                .map_err(|error| LoadError::Schema(error.to_string()))
        })
        .collect()
}

impl Policy {
    /// An entity of a type that is in the schema.
    pub(crate) fn uid(&self, kind: &str, id: &str) -> Option<EntityUid> {
        let name = self.types.get(kind)?.clone();
        Some(EntityUid::from_type_name_and_id(name, EntityId::new(id)))
    }

    /// Whether a rule is a `forbid`.
    pub(crate) fn forbids(&self, action: &str, rule: &PolicyId) -> bool {
        let rules = self.by_action.get(action);
        rules
            .and_then(|rules| rules.set.policy(rule))
            .is_some_and(|policy| policy.effect() == Effect::Forbid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_without_an_id_is_called_by_its_line() {
        let text = "// ours\npermit (principal, action == Action::\"SystemPing\", resource);\n\n@id(\"named\")\n\
                    permit (principal, action == Action::\"SystemInfo\", resource);\n\
                    permit (principal, action == Action::\"SystemPing\", resource);\n";
        let source = Source {
            name: "site".to_owned(),
            text: text.to_owned(),
        };
        let policy = Policy::load("", &[source]).unwrap();
        let names = |action: &str| {
            let rules = &policy.by_action[action].set;
            let mut names: Vec<String> = rules
                .policies()
                .map(|policy| policy.id().to_string())
                .filter(|name| name.starts_with("site:"))
                .collect();
            names.sort();
            names
        };
        assert_eq!(names("SystemPing"), ["site:line 2", "site:line 6"]);
        assert_eq!(names("SystemInfo"), ["site:named"]);
    }
}
