//! Owners in the cluster's registry: what this host has recorded goes there, and what it has lost, or other hosts know, comes from there.
//!
//! Nothing waits for it. Without a coordinator, or while its store does not answer, the record on the disk alone counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_control_api::owners::{Owned, OwnersEvent, Ownership, PATH, RecordOwners};
use drover_daemon::Backoff;
use drover_http::control::{self, StreamError};
use drover_http::{Client, Lines};
use tokio::sync::Notify;
use tracing::debug;

use crate::owners::Owners;

/// How long a call may take.
const CALL: Duration = Duration::from_secs(10);
/// Changes that come together are told together.
const TOGETHER: Duration = Duration::from_millis(100);
/// How many are told in one call.
const AT_ONCE: usize = 500;

/// What the registry has.
#[derive(Debug, Default)]
struct Heard {
    /// What this host has written down; `None` before it was heard.
    recorded: Mutex<Option<BTreeMap<Owned, String>>>,
    news: Notify,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<Owned, String>>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the registry and the record the same, as long as the process runs.
pub(crate) async fn follow(coordinator: Client, owners: Arc<Owners>) {
    let heard = Heard::default();
    tokio::join!(
        listen(&coordinator, &owners, &heard),
        tell(&coordinator, &owners, &heard)
    );
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5))
}

async fn listen(coordinator: &Client, owners: &Owners, heard: &Heard) {
    let mut backoff = backoff();
    loop {
        if let Ok(lines) = coordinator.lines(PATH).await
            && let Err(error) = hear(lines, owners, heard, &mut backoff).await
        {
            debug!(
                "the registry of owners was cut: {:#}",
                anyhow::Error::from(error)
            );
        }
        // What it has is not known until it is heard again.
        *heard.lock() = None;
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn hear(
    mut lines: Lines,
    owners: &Owners,
    heard: &Heard,
    backoff: &mut Backoff,
) -> Result<(), StreamError> {
    let (mut recorded, mut copies) = (Vec::new(), Vec::new());
    while let Some(event) = control::next_event(&mut lines).await? {
        match event {
            OwnersEvent::Reset => {
                recorded.clear();
                copies.clear();
            }
            OwnersEvent::Recorded(ownership) => recorded.push(ownership),
            OwnersEvent::Copy(ownership) => copies.push(ownership),
            OwnersEvent::Synced => {
                backoff.reset();
                owners.heard(&recorded, &copies);
                let recorded = std::mem::take(&mut recorded).into_iter();
                let recorded = recorded.map(|each| (each.owned, each.owner)).collect();
                *heard.lock() = Some(recorded);
                heard.news.notify_one();
            }
        }
    }
    Ok(())
}

async fn tell(coordinator: &Client, owners: &Owners, heard: &Heard) {
    let mut changes = owners.changes();
    let mut backoff = backoff();
    loop {
        changes.mark_unchanged();
        let differences = heard
            .lock()
            .as_ref()
            .and_then(|recorded| differences(owners.all(), recorded));
        let delay = match differences {
            // Once told, it comes back by the stream.
            Some(told) => match control::call(coordinator, &told, CALL).await {
                Ok(_) => {
                    backoff.reset();
                    TOGETHER
                }
                Err(error) => {
                    debug!(%error, "owners wait to be written into the registry");
                    backoff.next_delay()
                }
            },
            None => {
                // Each arm is cancel-safe.
                tokio::select! {
                    _ = changes.changed() => {}
                    () = heard.news.notified() => {}
                }
                TOGETHER
            }
        };
        tokio::time::sleep(delay).await;
    }
}

/// What the registry has to be told, at most so much at once.
fn differences(owners: Vec<Ownership>, recorded: &BTreeMap<Owned, String>) -> Option<RecordOwners> {
    let mut gone = recorded.clone();
    let mut owned = Vec::new();
    for ownership in owners {
        if gone.remove(&ownership.owned).as_ref() != Some(&ownership.owner) {
            owned.push(ownership);
        }
    }
    let mut gone: Vec<Owned> = gone.into_keys().collect();
    owned.truncate(AT_ONCE);
    gone.truncate(AT_ONCE);
    let is_news = !owned.is_empty() || !gone.is_empty();
    is_news.then_some(RecordOwners { owned, gone })
}

#[cfg(test)]
mod tests {
    use drover_control_api::owners::OwnedKind;

    use super::*;

    #[test]
    fn what_differs_is_told() {
        let owned = |id: &str| Owned {
            kind: OwnedKind::Volume,
            id: id.to_owned(),
        };
        let ownership = |id: &str, owner: &str| Ownership {
            owned: owned(id),
            owner: owner.to_owned(),
        };
        let recorded = ["same", "changed", "gone"].map(|id| (owned(id), "ann".to_owned()));
        let recorded = BTreeMap::from(recorded);
        let now = vec![
            ownership("same", "ann"),
            ownership("changed", "bob"),
            ownership("new", "ann"),
        ];
        let told = differences(now, &recorded).unwrap();
        assert_eq!(
            told.owned,
            [ownership("changed", "bob"), ownership("new", "ann")]
        );
        assert_eq!(told.gone, [owned("gone")]);
        let same = vec![ownership("same", "ann")];
        let recorded = BTreeMap::from([(owned("same"), "ann".to_owned())]);
        assert_eq!(differences(same, &recorded), None);
    }
}
