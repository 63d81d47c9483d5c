//! Verdicts that were given before. A policy's verdict depends on nothing but what is asked, so the same question has the same answer
//! for as long as the policy is in force; clients ask few different ones, and those again and again.
//!
//! Of a fixed size: a question has one slot, and takes it from whoever had it. Long questions are not remembered.

use std::fmt;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use drover_authorization::{Facet, Fact};

use crate::decide::{Asked, Object, Principal, Verdict};

/// How many verdicts are remembered.
const SLOTS: usize = 2048;
/// The longest question that is remembered, bytes of its texts.
const LONGEST: usize = 2048;

/// The verdicts.
pub(crate) struct Memo {
    hasher: RandomState,
    slots: Vec<Mutex<Option<Box<Remembered>>>>,
}

/// A question, and its verdict.
struct Remembered {
    hash: u64,
    principal: Principal,
    operation: String,
    facet: Facet,
    object: Option<Object>,
    verdict: Verdict,
}

/// A question.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) operation: &'a str,
    pub(crate) asked: Asked<'a>,
}

impl fmt::Debug for Memo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Memo").finish_non_exhaustive()
    }
}

impl Default for Memo {
    fn default() -> Self {
        let slots = std::iter::repeat_with(Mutex::default).take(SLOTS);
        Self {
            hasher: RandomState::new(),
            slots: slots.collect(),
        }
    }
}

impl Memo {
    /// The verdict on a question: remembered, else given now.
    pub(crate) fn verdict(
        &self,
        question: Question<'_>,
        give: impl FnOnce() -> Verdict,
    ) -> Verdict {
        let hash = self.hash(question);
        let slot = usize::try_from(hash % SLOTS as u64).ok();
        let Some(slot) = slot.and_then(|slot| self.slots.get(slot)) else {
            return give();
        };
        if let Some(known) = &*slot.lock().unwrap_or_else(PoisonError::into_inner)
            && known.hash == hash
            && known.is(question)
        {
            return known.verdict.clone();
        }
        let verdict = give();
        if length(question) <= LONGEST {
            let Question {
                principal,
                operation,
                asked,
            } = question;
            let remembered = Remembered {
                hash,
                principal: principal.clone(),
                operation: operation.to_owned(),
                facet: asked.facet.clone(),
                object: asked.object.cloned(),
                verdict: verdict.clone(),
            };
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(remembered));
        }
        verdict
    }

    fn hash(&self, question: Question<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        question.principal.hash(&mut hasher);
        question.operation.hash(&mut hasher);
        question.asked.facet.hash(&mut hasher);
        question.asked.object.hash(&mut hasher);
        hasher.finish()
    }
}

impl Remembered {
    fn is(&self, question: Question<'_>) -> bool {
        self.principal == *question.principal
            && self.operation == question.operation
            && self.facet == *question.asked.facet
            && self.object.as_ref() == question.asked.object
    }
}

fn length(question: Question<'_>) -> usize {
    let Asked { facet, object } = question.asked;
    let facts = facet.facts.values().map(|fact| match fact {
        Fact::Bool(_) | Fact::Long(_) => 0,
        Fact::Text(text) => text.len(),
        Fact::Texts(texts) => texts.iter().map(String::len).sum(),
    });
    let labels = object.iter().flat_map(|object| &object.labels);
    let labels = labels.map(|(key, value)| key.len() + value.len());
    let names = object.map_or(0, |object| object.name.len());
    question.principal.name.len()
        + facet.resource.id.len()
        + names
        + facts.chain(labels).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use drover_authorization::Kind;

    use super::*;

    fn verdict(rule: &str) -> Verdict {
        Verdict {
            allowed: true,
            rules: vec![rule.to_owned()],
            reason: String::new(),
        }
    }

    #[test]
    fn the_same_question_is_asked_once_and_another_one_again() {
        let memo = Memo::default();
        let asked = Cell::new(0);
        let ask = |user: &str, operation: &str, id: &str, owner: Option<&str>| {
            let principal = Principal {
                name: user.to_owned(),
                role: None,
            };
            let object = Object {
                owner: owner.map(str::to_owned),
                ..Object::default()
            };
            let facet = Facet::new("ContainerStart", Kind::Container, id);
            let question = Question {
                principal: &principal,
                operation,
                asked: Asked {
                    facet: &facet,
                    object: Some(&object),
                },
            };
            memo.verdict(question, || {
                asked.set(asked.get() + 1);
                verdict(&format!("{}", asked.get()))
            })
        };
        assert_eq!(ask("ann", "a", "web", None), verdict("1"));
        assert_eq!(ask("ann", "a", "web", None), verdict("1"));
        assert_eq!(ask("bob", "a", "web", None), verdict("2"));
        assert_eq!(ask("ann", "b", "web", None), verdict("3"));
        assert_eq!(ask("ann", "a", "db", None), verdict("4"));
        assert_eq!(ask("ann", "a", "web", Some("ann")), verdict("5"));
        let long = "x".repeat(LONGEST);
        assert_eq!(ask("ann", "a", &long, None), verdict("6"));
        assert_eq!(
            ask("ann", "a", &long, None),
            verdict("7"),
            "too long to be kept"
        );
    }
}
