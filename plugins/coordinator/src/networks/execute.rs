//! Does the steps of a plan, one at a time. It chooses nothing.
//!
//! A step whose ground has changed does nothing: the next plan sees the change. A copy is noted as
//! intended before the engine is asked for it, so that one that was made in vain is known for ours.

use std::future::Future;

use drover_engine::{CreateNetwork, Engine};
use drover_model::{LogicalNetworkId, NetworkId};
use drover_store::local::Table;
use drover_store::{Store, Transaction};

use super::plan::Step;
use super::record::{Writer, creation};
use super::view::View;
use crate::mirror::chain;

/// Where copies are made and removed: the engine, or a model of it.
pub trait Copies: Sync {
    /// Creates a network.
    fn create(
        &self,
        creation: &CreateNetwork,
    ) -> impl Future<Output = Result<NetworkId, Refusal>> + Send;
    /// Removes a network; one that is not there is removed.
    fn remove(&self, id: &NetworkId) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Why the engine did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The network has endpoints.
    InUse,
    /// The engine does not answer.
    Away(String),
    /// The engine, or a plugin, says no.
    Refused(String),
}

impl Copies for Engine {
    async fn create(&self, creation: &CreateNetwork) -> Result<NetworkId, Refusal> {
        let id = self.create_network(creation).await.map_err(refusal)?;
        id.parse()
            .map_err(|error: drover_model::IdError| Refusal::Refused(error.to_string()))
    }

    async fn remove(&self, id: &NetworkId) -> Result<(), Refusal> {
        match self.remove_network(id.as_str()).await {
            Err(error) if !error.is_not_found() => Err(refusal(error)),
            _ => Ok(()),
        }
    }
}

fn refusal(error: drover_engine::Error) -> Refusal {
    if error.is_in_use() {
        Refusal::InUse
    } else if error.is_unavailable() {
        Refusal::Away(chain(&error))
    } else {
        Refusal::Refused(error.sentence())
    }
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It was done.
    Done,
    /// What it rested on has changed; nothing was done.
    Stale,
    /// The engine refused.
    Refused {
        /// The network it was about.
        network: LogicalNetworkId,
        /// What the engine said.
        reason: String,
    },
    /// The engine does not answer: the rest of the plan has to wait.
    Away(String),
}

/// Whatever the steps work on.
pub struct Executor<'a, C> {
    /// The store.
    pub store: &'a Store,
    /// The engine.
    pub copies: &'a C,
    /// The copies that are being made, by name.
    pub intents: &'a Table<LogicalNetworkId>,
    /// What the plan was made from.
    pub view: &'a View,
    /// The store as the plan saw it.
    pub writer: Writer<'a>,
}

impl<C: Copies> Executor<'_, C> {
    /// Does a step.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn execute(&self, step: &Step) -> drover_store::Result<Effect> {
        match step {
            Step::Record { local } => self.record(local).await,
            Step::Adopt { network, local } => {
                let effect = self.commit(self.writer.adopt(network, local)?).await?;
                self.forget_intent(network)?;
                Ok(effect)
            }
            Step::Forget { network } => self.commit(self.writer.forget(network)).await,
            Step::Attach { network, endpoints } => {
                self.commit(self.writer.attach(network, *endpoints)?).await
            }
            Step::RequestRemoval { network } => {
                self.commit(self.writer.request_removal(network)?).await
            }
            Step::BeginRemoval { network } => {
                self.commit(self.writer.begin_removal(network)?).await
            }
            Step::Keep { network } => self.commit(self.writer.keep(network)?).await,
            Step::ReleaseName { network } => self.commit(self.writer.release_name(network)).await,
            Step::Delete { network } => self.delete(network).await,
            Step::Create { network } => self.create(network).await,
            Step::Remove { network, local } => self.remove(network, local).await,
            Step::ForgetIntent { name } => {
                self.intents.delete(name)?;
                Ok(Effect::Done)
            }
            Step::Discard { local, .. } => self.discard(local).await,
        }
    }

    async fn commit(&self, transaction: Transaction) -> drover_store::Result<Effect> {
        let outcome = self.store.commit(transaction).await?;
        Ok(if outcome.is_committed() {
            Effect::Done
        } else {
            Effect::Stale
        })
    }

    async fn record(&self, docker: &NetworkId) -> drover_store::Result<Effect> {
        let Some(local) = self.view.local.get(docker) else {
            return Ok(Effect::Stale);
        };
        let Some(id) = random_id() else {
            return Ok(Effect::Away(
                "the kernel gives no random numbers".to_owned(),
            ));
        };
        self.commit(self.writer.record(&id, docker, local)?).await
    }

    async fn delete(&self, network: &LogicalNetworkId) -> drover_store::Result<Effect> {
        for transaction in self.writer.delete(network) {
            if self.commit(transaction).await? == Effect::Stale {
                return Ok(Effect::Stale);
            }
        }
        Ok(Effect::Done)
    }

    async fn create(&self, id: &LogicalNetworkId) -> drover_store::Result<Effect> {
        let Some(network) = self.view.networks.get(id) else {
            return Ok(Effect::Stale);
        };
        self.intents.put(&network.record.name, id)?;
        let docker = match self.copies.create(&creation(&network.record)).await {
            Ok(docker) => docker,
            Err(refusal) => {
                self.intents.delete(&network.record.name)?;
                return Ok(effect(id, refusal));
            }
        };
        let mut adopted = self.commit(self.writer.adopt(id, &docker)?).await?;
        if adopted == Effect::Stale {
            adopted = self.adopt_changed(id, &docker).await?;
        }
        self.intents.delete(&network.record.name)?;
        Ok(adopted)
    }

    /// The network has changed while the engine made the copy, or is gone.
    async fn adopt_changed(
        &self,
        id: &LogicalNetworkId,
        docker: &NetworkId,
    ) -> drover_store::Result<Effect> {
        let listing = self.store.list(&format!("networks/{id}")).await?;
        if listing.entries.is_empty() {
            return Ok(match self.copies.remove(docker).await {
                Ok(()) => Effect::Stale,
                Err(refusal) => effect(id, refusal),
            });
        }
        let snapshot = crate::mirror::Snapshot::of(listing.entries);
        let writer = Writer {
            snapshot: &snapshot,
            ..self.writer.clone()
        };
        self.commit(writer.adopt(id, docker)?).await
    }

    async fn remove(
        &self,
        id: &LogicalNetworkId,
        docker: &NetworkId,
    ) -> drover_store::Result<Effect> {
        match self.copies.remove(docker).await {
            Ok(()) => self.commit(self.writer.forget(id)).await,
            // Somebody attached meanwhile.
            Err(Refusal::InUse) => self.commit(self.writer.keep(id)?).await,
            Err(refusal) => Ok(effect(id, refusal)),
        }
    }

    async fn discard(&self, docker: &NetworkId) -> drover_store::Result<Effect> {
        let made_for = self
            .view
            .local
            .get(docker)
            .and_then(|local| local.made_for.as_ref());
        match self.copies.remove(docker).await {
            Ok(()) => {
                made_for.map_or(Ok(()), |network| self.forget_intent(network))?;
                Ok(Effect::Done)
            }
            // The next look sees that it is in use.
            Err(Refusal::InUse | Refusal::Refused(_)) => Ok(Effect::Stale),
            Err(Refusal::Away(reason)) => Ok(Effect::Away(reason)),
        }
    }

    fn forget_intent(&self, network: &LogicalNetworkId) -> drover_store::Result<()> {
        for (name, intended) in self.intents.list()? {
            if &intended == network {
                self.intents.delete(&name)?;
            }
        }
        Ok(())
    }
}

fn effect(network: &LogicalNetworkId, refusal: Refusal) -> Effect {
    match refusal {
        Refusal::Away(reason) => Effect::Away(reason),
        Refusal::Refused(reason) => Effect::Refused {
            network: network.clone(),
            reason,
        },
        Refusal::InUse => Effect::Refused {
            network: network.clone(),
            reason: "it has endpoints".to_owned(),
        },
    }
}

fn random_id() -> Option<LogicalNetworkId> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).ok()?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.parse().ok()
}
