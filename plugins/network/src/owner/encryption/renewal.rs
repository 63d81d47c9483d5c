//! A new key of this host: its number, its making, and that the cluster knows it. The coordinator is asked beside
//! the owner, whose commands go on.

use std::time::Duration;

use drover_control_api::FailureKind;
use drover_control_api::coordinator::{NextGeneration, PublishKey};
use drover_daemon::task;
use drover_http::control::{self, CallError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use super::super::{Command, Owner};
use super::UNSURE;

/// How long the coordinator may take.
const LIMIT: Duration = Duration::from_secs(10);
/// A host alone asks again so long after: it may be a cluster by then.
const ALONE: Duration = Duration::from_secs(3);

impl Owner {
    /// Asks for the number of a generation, or publishes one, if it is time.
    pub(super) fn ask_coordinator(&mut self) {
        let now = self.encryption.now();
        let encryption = &mut self.encryption;
        let Some(exchange) = &encryption.exchange else {
            return;
        };
        if encryption.asking || Instant::now() < encryption.patience {
            return;
        }
        let publishable = exchange.publishable();
        let public = encryption
            .public
            .filter(|(number, _)| Some(*number) == publishable);
        let (coordinator, myself) = (self.coordinator.clone(), self.myself.clone());
        if let Some((generation, public)) = public {
            let request = PublishKey {
                generation,
                public: public.to_bytes(),
                lanes: encryption.lanes,
                udp_port: encryption.receives,
            };
            encryption.asking = true;
            task::spawn("publish", async move {
                let answer = control::call(&coordinator, &request, LIMIT).await;
                tell(&myself, Command::Published(generation, answer.map(drop)));
            });
        } else if publishable.is_some() || exchange.due(now).is_some() {
            debug!(due = ?exchange.due(now), "a new key is due");
            encryption.asking = true;
            task::spawn("generation", async move {
                let answer = control::call(&coordinator, &NextGeneration {}, LIMIT).await;
                tell(&myself, Command::Generation(answer.map(|it| it.generation)));
            });
        }
    }

    /// The coordinator has told the number of the next generation: it is made.
    pub(in crate::owner) async fn generation(&mut self, answer: Result<u64, CallError>) {
        self.encryption.asking = false;
        let number = match answer {
            Ok(number) => number,
            Err(error) => return self.be_patient(&error, "a new key has no number"),
        };
        let now = self.encryption.now();
        let mut seed = Zeroizing::new([0; 32]);
        if let Err(error) = getrandom::fill(seed.as_mut_slice()) {
            warn!(%error, "the system gives no random numbers: no new key");
            return;
        }
        let Some(exchange) = &mut self.encryption.exchange else {
            return;
        };
        match exchange.generate(number, &seed, now) {
            Ok(public) => self.encryption.public = Some((number, public)),
            Err(error) => {
                warn!(%error, "no new key");
                return;
            }
        }
        self.tend().await;
    }

    /// The store has the generation, or not.
    pub(in crate::owner) async fn published(&mut self, number: u64, answer: Result<(), CallError>) {
        self.encryption.asking = false;
        if let Err(error) = answer {
            return self.be_patient(&error, "a new key is not published");
        }
        let now = self.encryption.now();
        if let Some(exchange) = &mut self.encryption.exchange {
            exchange.published(number, now);
        }
        info!(generation = number, "this host has a new key");
        self.settle().await;
        self.watch.soon();
        self.encryption.soon();
    }

    fn be_patient(&mut self, error: &CallError, what: &str) {
        let is = |kind| matches!(error, CallError::Failure(it) if it.kind == kind);
        let alone = is(FailureKind::NotFound);
        if alone {
            debug!("a host alone needs no key");
        } else {
            warn!(%error, "{what}");
        }
        self.encryption.patience = Instant::now() + if alone { ALONE } else { UNSURE };
        // Its number is another key's: it is replaced by one with the next number.
        if is(FailureKind::Conflict) {
            self.encryption.public = None;
        }
    }
}

/// Nobody waits for it when the owner has ended.
fn tell(owner: &mpsc::WeakUnboundedSender<Command>, command: Command) {
    let told = owner
        .upgrade()
        .is_some_and(|owner| owner.send(command).is_ok());
    debug!(told, "the coordinator has answered");
}
