//! What is done now and then: addresses that rested are free again, and what is not used goes back to
//! the cluster.

use std::sync::Arc;
use std::time::Duration;

use drover_control_api::Failure;
use drover_control_api::coordinator::{ReleaseAddress, ReleaseBlock};
use drover_model::Pool;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::driver::Ipam;
use crate::error::Error;

const PERIOD: Duration = Duration::from_secs(1);
/// How long nothing must have been in a block before it goes back, seconds.
const IDLE: u64 = 600;
/// How soon a coordinator that did not take something back is asked again.
const RETRY: Duration = Duration::from_secs(5);
/// How often everything is compared with the store, even if nothing is known to have changed.
const COMPARE: Duration = Duration::from_secs(300);

/// Keeps house until the shutdown.
pub(crate) async fn serve(ipam: Arc<Ipam>, mut shutdown: watch::Receiver<bool>) {
    let keep = async {
        let mut compared = Instant::now();
        let mut not_before = Instant::now();
        loop {
            tokio::time::sleep(PERIOD).await;
            for pool in ipam.ledger.pools() {
                let asked = Instant::now() >= not_before;
                if let Err(error) = ipam.tidy(pool, asked).await {
                    debug!(%pool, %error, "something is not given back yet");
                    not_before = Instant::now() + RETRY;
                }
            }
            if compared.elapsed() > COMPARE && ipam.may_ask() {
                compared = Instant::now();
                let agreed = ipam.agree(&ipam.ledger.pools()).await;
                if let Err(error) = agreed {
                    debug!(%error, "the leases were not compared with the store");
                }
            }
        }
    };
    tokio::select! {
        () = keep => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

impl Ipam {
    fn may_ask(&self) -> bool {
        let standing = self.standing.borrow();
        standing.reachable && !standing.fenced && !standing.unproven
    }

    async fn tidy(&self, pool: Pool, ask: bool) -> Result<(), Error> {
        let returns = self.ledger.tidy(pool, IDLE)?;
        let nothing = returns.blocks.is_empty() && returns.addresses.is_empty();
        if !nothing && ask && self.may_ask() {
            // Something is being asked for the pool: the next round will do.
            let Ok(asking) = self.gate(pool)?.try_lock_owned() else {
                return Ok(());
            };
            for address in returns.addresses {
                if self.ledger.is_leaving(pool, address) {
                    self.coordinator
                        .call(&ReleaseAddress { pool, address })
                        .await?;
                    self.ledger.finish_release(pool, address)?;
                }
            }
            for block in returns.blocks {
                let released: Result<_, Failure> =
                    self.coordinator.call(&ReleaseBlock { pool, block }).await;
                released?;
                self.ledger.finish_leave(pool, block)?;
                info!(%block, "gave back a block that nothing is in");
            }
            drop(asking);
        }
        if let Err(error) = self.ledger.forget_pool(pool) {
            warn!(%pool, %error, "a pool that is not used stays known");
        }
        Ok(())
    }
}
