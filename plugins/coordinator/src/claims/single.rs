//! Claims of single addresses in blocks of other hosts.

use std::net::IpAddr;
use std::time::Duration;

use drover_allocation::PoolShape;
use drover_allocation::block::Change;
use drover_allocation::claim::{self, Asker, ClaimError, Step};
use drover_control_api::record::{AliveRecord, BlockRecord, ClaimState};
use drover_control_api::{Empty, Failure};
use drover_model::{Block, HostName, Pool};
use drover_store::Transaction;

use super::failure::ClaimFailure;
use super::registrar::{ATTEMPTS, Read, Registrar, Result, block_key, pool_key, unchanged};
use crate::context::now;

/// How long the owner of a block has to answer.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

impl Registrar {
    /// Claims a single address.
    ///
    /// # Errors
    /// When it is not to be had.
    pub async fn claim_address(
        &self,
        pool: Pool,
        address: IpAddr,
    ) -> std::result::Result<Empty, Failure> {
        Ok(self.try_claim_address(pool, address).await?)
    }

    async fn try_claim_address(&self, pool: Pool, address: IpAddr) -> Result<Empty> {
        for _ in 0..ATTEMPTS {
            let (record, revision) = self.pool(pool).await?;
            let block = PoolShape::from(&record)
                .block_of(address)
                .map_err(ClaimError::from)?;
            let read = self.block(pool, block).await?;
            let asker = Asker {
                member: &self.member,
                owner_alive: self.owner_is_alive(&read).await?,
                now: now(),
            };
            let there = read.as_ref().map(|(record, _)| record);
            let (change, wait) = match claim::claim(&record, there, address, &asker)? {
                Step::Held => return Ok(Empty {}),
                Step::Wait => return self.wait(pool, block, address).await,
                Step::Grant(record) => (record, false),
                Step::Ask(record) => (record, true),
            };
            let key = block_key(pool, block);
            // The pool unchanged: the address must not become reserved meanwhile.
            let transaction = Transaction::new().if_unchanged(pool_key(pool), revision);
            let transaction =
                unchanged(transaction, &key, read.as_ref()).put_record(key, &change)?;
            if self.store.commit(transaction).await?.is_committed() {
                return if wait {
                    self.wait(pool, block, address).await
                } else {
                    Ok(Empty {})
                };
            }
        }
        Err(ClaimFailure::Contended(address.to_string()))
    }

    async fn owner_is_alive(&self, read: &Read<BlockRecord>) -> Result<bool> {
        let Some((record, _)) = read else {
            return Ok(false);
        };
        let Some(owner) = &record.owner else {
            return Ok(false);
        };
        let alive = self
            .store
            .get_record::<AliveRecord>(&format!("alive/{owner}"))
            .await?;
        Ok(alive.is_some_and(|(alive, _)| Some(alive.member) == record.owner_member))
    }

    /// Waits for the owner's answer, and withdraws the claim when it is no, or does not come.
    async fn wait(&self, pool: Pool, block: Block, address: IpAddr) -> Result<Empty> {
        let began = tokio::time::Instant::now();
        loop {
            let read = self.block(pool, block).await?;
            let Some((record, revision)) = read else {
                return Err(ClaimFailure::UnknownPool(pool));
            };
            let owner = record.owner.clone();
            let owner = owner.as_ref().map_or("of nobody", |owner| owner.as_str());
            let claim = record
                .claims
                .get(&address)
                .filter(|claim| claim.host == self.member.host);
            let failure = match claim.map(|claim| claim.state) {
                Some(ClaimState::Granted) => return Ok(Empty {}),
                Some(ClaimState::Requested) if began.elapsed() < PATIENCE => {
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                Some(ClaimState::Requested) => ClaimFailure::OwnerSilent(format!(
                    "host `{owner}`, whose block `{block}` has address `{address}`, did not answer in {PATIENCE:?}; try again, or choose another address"
                )),
                Some(ClaimState::Refused) => ClaimFailure::from(ClaimError::Held {
                    address,
                    holder: record
                        .owner
                        .clone()
                        .unwrap_or_else(|| self.member.host.clone()),
                }),
                None => ClaimFailure::OwnerSilent(format!(
                    "the claim of address `{address}` was dropped, since its block `{block}` changed hands; try again"
                )),
            };
            let change = claim::release(&record, address, &self.member.host);
            // Changed meanwhile: perhaps it was granted in the last moment.
            if change == Change::Unchanged || self.change(&record, revision, change).await? {
                return Err(failure);
            }
        }
    }

    /// Gives a single address back.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn release_address(
        &self,
        pool: Pool,
        address: IpAddr,
    ) -> std::result::Result<Empty, Failure> {
        Ok(self.try_release_address(pool, address).await?)
    }

    async fn try_release_address(&self, pool: Pool, address: IpAddr) -> Result<Empty> {
        for _ in 0..ATTEMPTS {
            let (record, _) = match self.pool(pool).await {
                Err(ClaimFailure::UnknownPool(_)) => return Ok(Empty {}),
                other => other?,
            };
            let block = PoolShape::from(&record)
                .block_of(address)
                .map_err(ClaimError::from)?;
            let read = self.block(pool, block).await?;
            let Some((record, revision)) = read else {
                return Ok(Empty {});
            };
            let change = claim::release(&record, address, &self.member.host);
            if self.change(&record, revision, change).await? {
                return Ok(Empty {});
            }
        }
        Err(ClaimFailure::Contended(address.to_string()))
    }

    /// Writes the owner's answer to a claim.
    pub(super) async fn settle(
        &self,
        of: &BlockRecord,
        address: IpAddr,
        asker: &HostName,
        granted: bool,
    ) -> Result<()> {
        let (pool, block) = (of.pool, of.block);
        for _ in 0..ATTEMPTS {
            let Some((record, revision)) = self.block(pool, block).await? else {
                return Ok(());
            };
            let change = claim::settle(&record, address, asker, &self.member, granted);
            if self.change(&record, revision, change).await? {
                return Ok(());
            }
        }
        Err(ClaimFailure::Contended(block_key(pool, block)))
    }
}
