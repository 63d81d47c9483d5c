//! What could not be done with single files while the work goes on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::report::Reporter;

/// So many are told one by one; the rest is counted.
const NAMED: usize = 20;

/// Faults, the first of them as sentences.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    inner: Arc<Mutex<Noted>>,
}

#[derive(Debug, Default)]
struct Noted {
    named: Vec<String>,
    more: u64,
}

impl Faults {
    /// Another one.
    pub(crate) fn note(&self, fault: String) {
        let mut noted = self.lock();
        if noted.named.len() < NAMED {
            noted.named.push(fault);
        } else {
            noted.more += 1;
        }
    }

    /// The first.
    pub(crate) fn first(&self) -> Option<String> {
        self.lock().named.first().cloned()
    }

    /// Tells them; `what` says what befell those which are only counted.
    pub(crate) fn tell(&self, reporter: &Reporter, what: &str) {
        let noted = self.lock();
        for fault in &noted.named {
            reporter.warn(fault.clone());
        }
        if noted.more > 0 {
            reporter.warn(format!("{} more {what}", noted.more));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
