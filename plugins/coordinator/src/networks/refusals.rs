//! What the engine refused, so that it is not asked for the same again at once. Takes the time from its caller.
//!
//! Nearly every refusal is about the other networks of the engine: one has the name, or the subnet. So a refusal is
//! forgotten once the engine has other networks than when it was asked, and the wait grows only while nothing changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use drover_daemon::Backoff;
use drover_engine::Network as EngineNetwork;
use drover_model::LogicalNetworkId;

/// How long to wait after the first refusal.
const FIRST: Duration = Duration::from_secs(1);
/// How long to wait at most.
const LONGEST: Duration = Duration::from_secs(60);

/// A refusal, and when to try again.
#[derive(Debug)]
struct Refused {
    reason: String,
    until: Instant,
    backoff: Backoff,
}

/// What the engine refused.
#[derive(Debug, Default)]
pub struct Refusals {
    of: BTreeMap<LogicalNetworkId, Refused>,
    /// The engine's networks, by id, when it was looked at last.
    beside: BTreeSet<String>,
}

impl Refusals {
    /// The engine has these networks now.
    pub fn see(&mut self, engine: &[EngineNetwork]) {
        let beside: BTreeSet<String> = engine.iter().map(|network| network.id.clone()).collect();
        if beside != self.beside {
            self.of.clear();
            self.beside = beside;
        }
    }

    /// The engine refused something for this network. What networks it has was seen after that.
    pub fn note(&mut self, network: &LogicalNetworkId, reason: String, now: Instant) {
        let refused = self.of.entry(network.clone());
        let refused = refused.or_insert_with(|| Refused {
            reason: String::new(),
            until: now,
            backoff: Backoff::new(FIRST, LONGEST),
        });
        refused.reason = reason;
        refused.until = now + refused.backoff.next_delay();
    }

    /// What was refused has been done.
    pub fn forget(&mut self, network: &LogicalNetworkId) {
        self.of.remove(network);
    }

    /// What it is too early to try again, and why.
    #[must_use]
    pub fn standing(&self, now: Instant) -> BTreeMap<LogicalNetworkId, String> {
        let standing = self.of.iter().filter(|(_, refused)| refused.until > now);
        standing
            .map(|(id, refused)| (id.clone(), refused.reason.clone()))
            .collect()
    }
}
