//! What the rules of an action look at. A verdict depends on nothing else, so that two questions that differ elsewhere have one answer:
//! creating a container has the same for every name when no rule about `ContainerCreate` reads `resource.name`.
//!
//! Read off Cedar's JSON form of the rules. `resource` or `context` in any place but before `.`, `has`, `is` or a tag of a given name
//! counts as a look at all of it.

use std::collections::BTreeSet;

use cedar_policy::PolicySet;
use drover_authorization::{Fact, Facts};
use serde_json::Value;

use crate::decide::Question;

/// The name of the fact that every question has.
pub(crate) const OPERATION: &str = "operation";

/// What some rules look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    /// The resource as such: which one it is, and what it is in.
    pub(crate) identity: bool,
    attributes: Names,
    tags: Names,
    facts: Names,
}

/// Names that are looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    listed: BTreeSet<String>,
}

impl Names {
    fn has(&self, name: &str) -> bool {
        self.all || self.listed.contains(name)
    }

    /// One name; everything when it is only known later.
    fn add(&mut self, name: Option<&str>) {
        match name {
            Some(name) => {
                self.listed.insert(name.to_owned());
            }
            None => self.all = true,
        }
    }
}

impl Reads {
    /// What the rules of a set look at. A rule that has no such form looks at everything.
    pub(crate) fn of(rules: &PolicySet) -> Self {
        let mut reads = Self::default();
        for rule in rules.policies() {
            match rule.to_json() {
                Ok(form) => reads.rule(&form),
                Err(_) => reads.everything(),
            }
        }
        reads
    }

    /// Whether an attribute of the resource is looked at.
    pub(crate) fn attribute(&self, name: &str) -> bool {
        self.attributes.has(name)
    }

    /// Whether a tag of the resource is.
    pub(crate) fn tag(&self, name: &str) -> bool {
        self.tags.has(name)
    }

    /// Whether a fact is.
    pub(crate) fn fact(&self, name: &str) -> bool {
        self.facts.has(name)
    }

    /// The facts that are looked at.
    pub(crate) fn facts<'a>(
        &self,
        facts: &'a Facts,
    ) -> impl Iterator<Item = (&'static str, &'a Fact)> {
        let facts = facts.iter().map(|(name, fact)| (*name, fact));
        facts.filter(|(name, _)| self.fact(name))
    }

    fn everything(&mut self) {
        self.resource();
        self.facts.all = true;
    }

    fn resource(&mut self) {
        self.identity = true;
        self.attributes.all = true;
        self.tags.all = true;
    }

    fn rule(&mut self, form: &Value) {
        // `resource`, `resource is TYPE`, or one that it has to be or to be in.
        let scope = form.get("resource").unwrap_or(&Value::Null);
        let whole = match scope.get("op").and_then(Value::as_str) {
            Some("All") => false,
            Some("is") => scope.get("in").is_some(),
            _ => true,
        };
        if whole {
            self.resource();
        }
        match form.get("conditions").and_then(Value::as_array) {
            Some(conditions) => conditions.iter().for_each(|each| self.expression(each)),
            None => self.everything(),
        }
    }

    fn expression(&mut self, expression: &Value) {
        match expression {
            Value::Array(parts) => parts.iter().for_each(|part| self.expression(part)),
            Value::Object(parts) => {
                for (operator, operands) in parts {
                    if !self.look(operator, operands) {
                        self.expression(operands);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Takes an operation that looks at `resource` or `context`; `false` when it is none.
    fn look(&mut self, operator: &str, operands: &Value) -> bool {
        if operator == "Var" {
            match operands.as_str() {
                Some("principal" | "action") => {}
                Some("resource") => self.resource(),
                Some("context") => self.facts.all = true,
                _ => self.everything(),
            }
            return true;
        }
        let left = operands.get("left").unwrap_or(&Value::Null);
        let Some(of) = left.get("Var").and_then(Value::as_str) else {
            let is_look = matches!(operator, "." | "has" | "hasTag" | "getTag" | "in");
            if is_look && left.get(".").is_none() {
                // Into an entity that is written out or computed: it may be the resource.
                self.everything();
            }
            return false;
        };
        let name = operands.get("attr").and_then(Value::as_str);
        match (of, operator) {
            ("resource", "." | "has") if name.is_some() => self.attributes.add(name),
            ("resource", "hasTag" | "getTag") => {
                let tag = operands.get("right").unwrap_or(&Value::Null);
                self.tags.add(tag.get("Value").and_then(Value::as_str));
                self.expression(tag);
            }
            // Of which type it is follows from the action.
            ("resource", "is") if operands.get("in").is_none() => {}
            ("context", "." | "has") if name.is_some() => self.facts.add(name),
            _ => return false,
        }
        true
    }

    /// A question as far as the rules can tell it from another, in one text. Two questions that have the same are one.
    pub(crate) fn key(&self, question: &Question<'_>) -> Vec<u8> {
        let (facet, object) = (question.asked.facet, question.asked.object);
        let mut key = Key(Vec::with_capacity(160));
        key.text(facet.action);
        key.text(facet.resource.kind.name());
        key.text(&question.principal.name);
        key.option(question.principal.role.as_deref());
        // Cedar and its entities know a user as a resource by its name.
        if self.identity || facet.resource.kind == drover_authorization::Kind::User {
            key.text(&facet.resource.id);
        }
        if self.attribute("name") {
            key.text(question.asked.name());
        }
        if self.attribute("known") {
            key.flag(object.is_some_and(|object| object.known));
        }
        if self.attribute("owner") {
            key.option(object.and_then(|object| object.owner.as_deref()));
        }
        let tags = object.iter().flat_map(|object| &object.labels);
        for (name, value) in tags.filter(|(name, _)| self.tag(name)) {
            key.flag(true);
            key.text(name);
            key.text(value);
        }
        key.flag(false);
        if self.fact(OPERATION) {
            key.text(question.operation);
        }
        for (name, fact) in self.facts(&facet.facts) {
            key.text(name);
            key.fact(fact);
        }
        key.0
    }
}

/// What was put into it cannot be read in two ways: each text has its length before it.
struct Key(Vec<u8>);

impl Key {
    fn text(&mut self, text: &str) {
        self.0.extend_from_slice(&text.len().to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.0.push(u8::from(flag));
    }

    fn option(&mut self, text: Option<&str>) {
        self.flag(text.is_some());
        self.text(text.unwrap_or_default());
    }

    fn fact(&mut self, fact: &Fact) {
        match fact {
            Fact::Bool(value) => self.0.extend([0, u8::from(*value)]),
            Fact::Long(value) => {
                self.0.push(1);
                self.0.extend(value.to_le_bytes());
            }
            Fact::Text(text) => {
                self.0.push(2);
                self.text(text);
            }
            Fact::Texts(texts) => {
                self.0.push(3);
                self.0.extend(texts.len().to_le_bytes());
                texts.iter().for_each(|text| self.text(text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;

    fn reads(condition: &str) -> Reads {
        let text = format!("permit (principal, action, resource) when {{ {condition} }};");
        Reads::of(&PolicySet::from_str(&text).unwrap())
    }

    #[test]
    fn what_a_rule_looks_at_is_found() {
        assert_eq!(reads("principal in Role::\"a\""), Reads::default());
        let owner = reads("resource has owner && resource.owner == principal");
        assert!(owner.attribute("owner") && !owner.attribute("name") && !owner.identity);
        let tag = reads("resource.hasTag(\"a\") && resource.getTag(\"b\") == \"c\"");
        assert!(tag.tag("a") && tag.tag("b") && !tag.tag("c"));
        let fact = reads("context has port && context.port > 5");
        assert!(fact.fact("port") && !fact.fact("image") && !fact.attribute("name"));
        assert_eq!(reads("resource is Container"), Reads::default());
    }

    #[test]
    fn what_is_not_certain_is_looked_at_as_a_whole() {
        for condition in [
            "resource == principal",
            "principal == resource",
            "resource in PathSet::\"a\"",
            "resource is HostPath in PathSet::\"a\"",
            "[resource].contains(principal)",
            "Container::\"a\".known",
            "(if principal.name == \"a\" then Container::\"a\" else Container::\"b\") has owner",
            "(if principal.name == \"a\" then resource else principal) == principal",
        ] {
            let reads = reads(condition);
            assert!(reads.identity && reads.attribute("name"), "{condition}");
        }
        assert!(reads("resource.getTag(context.value) == \"a\"").tag("any"));
        assert!(reads("resource.getTag(context.value) == \"a\"").fact("value"));
        assert!(reads("context == {a: 1}").fact("any"));
        assert!(reads("{a: context}.a.port == 1").fact("any"));
        let scope = PolicySet::from_str(
            "forbid (principal, action, resource in PathSet::\"a\"); permit (principal, action, resource is Image);",
        );
        assert!(Reads::of(&scope.unwrap()).identity);
        let scope = PolicySet::from_str("forbid (principal, action, resource == Image::\"a\");");
        assert!(Reads::of(&scope.unwrap()).identity);
    }
}
