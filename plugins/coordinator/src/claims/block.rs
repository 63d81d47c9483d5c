//! Claims of blocks.

use drover_allocation::block::{self, Change};
use drover_control_api::coordinator::ClaimedBlock;
use drover_control_api::record::BlockRecord;
use drover_control_api::{Empty, Failure};
use drover_model::{Block, Pool};
use drover_store::{Outcome, Transaction};

use super::failure::ClaimFailure;
use super::registrar::{ATTEMPTS, Registrar, Result, block_key, pool_key, unchanged};
use crate::context::now;

impl Registrar {
    /// Claims the lowest block of a pool that nobody owns.
    ///
    /// # Errors
    /// When there is none.
    pub async fn claim_block(&self, pool: Pool) -> std::result::Result<ClaimedBlock, Failure> {
        Ok(self.try_claim_block(pool).await?)
    }

    async fn try_claim_block(&self, pool: Pool) -> Result<ClaimedBlock> {
        for _ in 0..ATTEMPTS {
            let (record, revision) = self.pool(pool).await?;
            let read = self.blocks(pool).await?;
            let blocks = read
                .iter()
                .map(|(block, (record, _))| (*block, record.clone()))
                .collect();
            let claimed = block::claim(&record, &blocks, &self.member, now())?;
            let key = block_key(pool, claimed.block);
            // The pool unchanged: an address of the block that is reserved now would not be known.
            let transaction = Transaction::new().if_unchanged(pool_key(pool), revision);
            let transaction =
                unchanged(transaction, &key, read.get(&claimed.block)).put_record(key, &claimed)?;
            if self.store.commit(transaction).await?.is_committed() {
                return Ok(ClaimedBlock {
                    pool: record,
                    block: claimed,
                });
            }
        }
        Err(ClaimFailure::Contended(pool_key(pool)))
    }

    /// Gives a block back.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn release_block(
        &self,
        pool: Pool,
        block: Block,
    ) -> std::result::Result<Empty, Failure> {
        Ok(self.try_release_block(pool, block).await?)
    }

    async fn try_release_block(&self, pool: Pool, block: Block) -> Result<Empty> {
        for _ in 0..ATTEMPTS {
            let read = self.block(pool, block).await?;
            let Some((record, revision)) = read else {
                return Ok(Empty {});
            };
            match block::release(&record, &self.member) {
                Change::Delete => {
                    if self.delete_block(&record, revision).await? {
                        return Ok(Empty {});
                    }
                }
                change => {
                    if self.change(&record, revision, change).await? {
                        return Ok(Empty {});
                    }
                }
            }
        }
        Err(ClaimFailure::Contended(block_key(pool, block)))
    }

    /// Writes that a block is nobody's, and then deletes its record: that of a block with an owner is not believed to be deleted
    /// ([`crate::mirror::Takeovers`]). `false` when it changed meanwhile.
    async fn delete_block(&self, record: &BlockRecord, revision: u64) -> Result<bool> {
        let key = block_key(record.pool, record.block);
        let free = Transaction::new()
            .if_unchanged(&key, revision)
            .put_record(&key, &block::empty(record.pool, record.block))?;
        let Outcome::Committed { revision } = self.store.commit(free).await? else {
            return Ok(false);
        };
        let delete = Transaction::new().if_unchanged(&key, revision).delete(key);
        // A conflict says that somebody has claimed it already, which is as well.
        let _outcome = self.store.commit(delete).await?;
        Ok(true)
    }
}
