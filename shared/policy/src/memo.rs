//! Rulings that were given before. A ruling depends on nothing but what the rules look at ([`crate::reads`]), so the same question has
//! the same answer for as long as the policy is in force; clients ask few different ones, and those again and again.
//!
//! Of a fixed size: a question has one slot, and takes it from whoever had it. Long questions are not remembered.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use crate::decide::Ruling;

/// How many rulings are remembered.
const SLOTS: usize = 2048;
/// The longest question that is remembered, bytes.
const LONGEST: usize = 4096;

/// The rulings, by the questions' [keys](crate::reads::Reads::key).
pub(crate) struct Memo {
    hasher: RandomState,
    slots: Vec<Slot>,
}

type Slot = Mutex<Option<(Vec<u8>, Arc<Ruling>)>>;

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
    /// The ruling on a question: remembered, else given now.
    pub(crate) fn ruling(&self, key: Vec<u8>, give: impl FnOnce() -> Ruling) -> Arc<Ruling> {
        let place = self.hasher.hash_one(&key) % SLOTS as u64;
        let slot = usize::try_from(place).ok();
        let Some(slot) = slot.and_then(|slot| self.slots.get(slot)) else {
            return Arc::new(give());
        };
        if let Some((known, ruling)) = &*slot.lock().unwrap_or_else(PoisonError::into_inner)
            && *known == key
        {
            return ruling.clone();
        }
        let ruling = Arc::new(give());
        // An error names the resource that it was met with.
        if key.len() <= LONGEST && ruling.errors.is_empty() {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((key, ruling.clone()));
        }
        ruling
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_same_question_is_asked_once_and_another_one_again() {
        let memo = Memo::default();
        let asked = Cell::new(0);
        let ask = |key: &[u8], fails: bool| {
            let ruling = memo.ruling(key.to_vec(), || {
                asked.set(asked.get() + 1);
                Ruling {
                    allowed: true,
                    rules: vec![asked.get().to_string()],
                    errors: Vec::from_iter(fails.then(String::new)),
                }
            });
            ruling.rules.concat()
        };
        assert_eq!(ask(b"a", false), "1");
        assert_eq!(ask(b"a", false), "1");
        assert_eq!(ask(b"b", false), "2");
        let long = vec![b'x'; LONGEST + 1];
        assert_eq!(ask(&long, false), "3");
        assert_eq!(ask(&long, false), "4", "too long to be kept");
        assert_eq!(ask(b"c", true), "5");
        assert_eq!(ask(b"c", true), "6", "an error is not kept");
    }
}
