//! This host's own key in the store.

use drover_control_api::coordinator::PublishKey;
use drover_control_api::fabric::PeerKey;
use drover_control_api::record::KeyRecord;
use drover_control_api::{Failure, FailureKind};
use drover_model::HostName;
use drover_pki::Distrust;
use drover_store::{Entry, Store, Transaction};

use super::Keys;
use super::record::{self, Fault};
use crate::membership::Signer;
use crate::mirror::chain;

/// How often a change begins anew when others were faster.
const ATTEMPTS: usize = 8;

/// Writes this host's key.
pub(super) struct Publisher<'a> {
    pub(super) keys: &'a Keys,
    /// Refuses everything once this member was removed from the cluster.
    pub(super) store: &'a Store,
    pub(super) cluster: &'a str,
    pub(super) host: &'a HostName,
    pub(super) member: &'a str,
    pub(super) signer: &'a Signer,
}

/// What the store has in the place of this host's key.
struct Stored {
    /// `None` when it has nothing.
    revision: Option<u64>,
    /// What this host has once signed, if it is that.
    record: Option<KeyRecord>,
    /// Whether others believe it.
    is_good: bool,
}

impl Publisher<'_> {
    /// Publishes a key of the next generation, or what has changed of the one that is published.
    pub(super) async fn publish(&self, request: PublishKey, now: u64) -> Result<(), Failure> {
        let _turn = self.keys.turn.lock().await;
        for _ in 0..ATTEMPTS {
            let stored = self.stored(now).await?;
            let known = self.known(&stored);
            let next = self.next(known.as_ref());
            let is_known = |known: &PeerKey| {
                known.generation == request.generation && known.public == request.public
            };
            let created_at = match &known {
                Some(known) if is_known(known) => known.created_at,
                _ if request.generation == next => now,
                _ => return Err(self.not_the_next(&request, next)),
            };
            let key = PeerKey {
                host: self.host.clone(),
                member: self.member.to_owned(),
                generation: request.generation,
                public: request.public,
                lanes: request.lanes,
                udp_port: request.udp_port,
                created_at,
            };
            if !record::is_in_range(&key) {
                return Err(Failure::new(
                    FailureKind::InvalidInput,
                    format!(
                        "{} lanes from UDP port {} on cannot be: there are 1 to 8 lanes, and ports end at 65535",
                        key.lanes,
                        key.udp_port
                            .map_or_else(|| "none".to_owned(), |port| port.to_string()),
                    ),
                ));
            }
            if self.is_as_it_should_be(&stored, &key) || self.write(&stored, &key, now).await? {
                tracing::info!(generation = key.generation, "this host's key is published");
                self.keys.remember(key);
                return Ok(());
            }
        }
        Err(self.contended())
    }

    /// Which generation the next key has.
    pub(super) async fn next_generation(&self, now: u64) -> Result<u64, Failure> {
        let stored = self.stored(now).await?;
        Ok(self.next(self.known(&stored).as_ref()))
    }

    /// Writes the key again that should be there, with the present certificate. Returns whether something
    /// had to be written.
    pub(super) async fn restore(&self, now: u64) -> Result<bool, Failure> {
        let _turn = self.keys.turn.lock().await;
        for attempt in 0..ATTEMPTS {
            let stored = self.stored(now).await?;
            let Some(key) = self.known(&stored) else {
                return Ok(false);
            };
            if self.is_as_it_should_be(&stored, &key) {
                self.keys.remember(key);
                return Ok(attempt > 0);
            }
            if self.write(&stored, &key, now).await? {
                tracing::info!(
                    generation = key.generation,
                    "this host's key is published again: its certificate or the record was another"
                );
                self.keys.remember(key);
                return Ok(true);
            }
        }
        Err(self.contended())
    }

    async fn stored(&self, now: u64) -> Result<Stored, Failure> {
        let entry = self.store.get(&record::key(self.host)).await;
        let entry = entry.map_err(|error| store_failure(&error))?;
        let judged = entry.as_ref().map(|entry| self.judge(entry, now));
        let (record, is_good) = judged.unwrap_or((None, false));
        Ok(Stored {
            revision: entry.map(|entry| entry.revision),
            record,
            is_good,
        })
    }

    fn judge(&self, entry: &Entry, now: u64) -> (Option<KeyRecord>, bool) {
        let Ok(record) = record::read(entry, self.host, self.member) else {
            return (None, false);
        };
        let verdict = record::check(&self.signer.trust, self.cluster, record.clone(), now);
        match verdict.key {
            Ok(_) => (Some(record), true),
            // It is this host's, of when its certificate was another.
            Err(Fault::Distrusted(Distrust::Expired { .. } | Distrust::NotYetValid { .. })) => {
                (Some(record), false)
            }
            Err(_) => (None, false),
        }
    }

    /// This host's newest key: what the store has, unless that is older than what was published from here.
    fn known(&self, stored: &Stored) -> Option<PeerKey> {
        let stored = stored.record.clone().map(PeerKey::from);
        let own = self.keys.own().filter(|own| own.member == self.member);
        match (stored, own) {
            (Some(stored), Some(own)) if stored.generation > own.generation => Some(stored),
            (stored, own) => own.or(stored),
        }
    }

    fn next(&self, known: Option<&PeerKey>) -> u64 {
        let known = known.map_or(0, |known| known.generation);
        known.max(self.keys.highest(self.member)).saturating_add(1)
    }

    fn is_as_it_should_be(&self, stored: &Stored, key: &PeerKey) -> bool {
        stored.is_good
            && stored.record.as_ref().is_some_and(|record| {
                record.certificate == self.signer.certificate
                    && PeerKey::from(record.clone()) == *key
            })
    }

    /// Signs the key and writes it, if the store has not changed. Nothing is written that others would
    /// refuse.
    async fn write(&self, stored: &Stored, key: &PeerKey, now: u64) -> Result<bool, Failure> {
        let internal =
            |error: &dyn std::error::Error| Failure::new(FailureKind::Internal, chain(error));
        let signed = record::sign(self.signer, self.cluster, key);
        let signed = signed.map_err(|error| internal(&error))?;
        let verdict = record::check(&self.signer.trust, self.cluster, signed.clone(), now);
        if let Err(fault) = verdict.key {
            return Err(Failure::new(
                FailureKind::Unavailable,
                format!(
                    "a key of this host would not be believed by others: {fault}; run `drover doctor` here, and \
                     check the clock"
                ),
            ));
        }
        let place = record::key(self.host);
        let write = match stored.revision {
            Some(revision) => Transaction::new().if_unchanged(&place, revision),
            None => Transaction::new().if_absent(&place),
        };
        let write = write.put_record(&place, &signed);
        let write = write.map_err(|error| internal(&error))?;
        let outcome = self.store.commit(write).await;
        Ok(outcome
            .map_err(|error| store_failure(&error))?
            .is_committed())
    }

    fn not_the_next(&self, request: &PublishKey, next: u64) -> Failure {
        Failure::new(
            FailureKind::Conflict,
            format!(
                "generation {} cannot be published: host `{}` has published {}, the next one is {next}",
                request.generation,
                self.host,
                next.saturating_sub(1)
            ),
        )
    }

    fn contended(&self) -> Failure {
        Failure::new(
            FailureKind::Unavailable,
            format!(
                "somebody else writes the key of host `{}` again and again; try again",
                self.host
            ),
        )
    }
}

/// The store refuses a member that was removed.
fn store_failure(error: &drover_store::Error) -> Failure {
    let kind = match error {
        drover_store::Error::Fenced => FailureKind::Denied,
        _ => FailureKind::Unavailable,
    };
    Failure::new(kind, chain(error))
}
