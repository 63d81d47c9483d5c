//! What the engine asks: pools and addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use drover_allocation::claim;
use drover_allocation::lease::LeaseError;
use drover_control_api::coordinator::{
    ClaimAddress, ClaimBlock, ClaimPool, EngineStarted, Pools, ReserveAddress,
};
use drover_control_api::{Failure, FailureKind, coordinator as api};
use drover_model::{Family, MacAddress, Pool};
use drover_plugin_host::{DriverError, IpamDriver};
use drover_plugin_protocol::Empty;
use drover_plugin_protocol::ipam::{
    AddressAnswer, AddressSpaces, Capabilities, PoolAnswer, ReleaseAddress, ReleasePool,
    RequestAddress, RequestPool,
};
use ipnet::IpNet;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::coordinator::Coordinator;
use crate::error::Error;
use crate::ledger::{ExplicitGiven, Gate, Ledger, with_pool_prefix};
use crate::offer::Offers;
use crate::pool_id::PoolId;
use crate::standing::Standing;

/// The address space of every pool.
const SPACE: &str = "drover";
/// How long the engine waits for the coordinator to hear that a network is gone.
const RELEASE: Duration = Duration::from_millis(900);
/// How soon another block is claimed in advance after none was to be had.
const NO_PREFETCH: Duration = Duration::from_secs(30);
/// How long owners of other blocks are asked for single addresses.
const BORROW: Duration = Duration::from_secs(3);
/// How often a coordinator is told that the engine has started.
const TELL: u32 = 30;

type Result<T> = std::result::Result<T, Error>;

/// The driver. A clone is the same driver.
#[derive(Clone)]
pub(crate) struct Ipam {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) coordinator: Coordinator,
    pub(crate) standing: watch::Sender<Standing>,
    offers: Arc<Offers>,
}

impl Ipam {
    pub(crate) fn new(ledger: Ledger, coordinator: Coordinator) -> Self {
        Self {
            ledger: Arc::new(ledger),
            coordinator,
            standing: watch::Sender::new(Standing::default()),
            offers: Arc::default(),
        }
    }

    async fn give_pool(&self, request: RequestPool) -> Result<PoolAnswer> {
        self.may_give().await?;
        if let Some(option) = request.options.keys().next() {
            return Err(Error::Option(option.chars().take(80).collect()));
        }
        let named = request.pool.map(Pool::new).transpose()?;
        let claim = ClaimPool {
            family: if request.v6 { Family::V6 } else { Family::V4 },
            pool: named,
            sub_pool: request.sub_pool,
            refused: if named.is_none() {
                self.offers.avoid(Instant::now())
            } else {
                [].into()
            },
        };
        let record = self.coordinator.call(&claim).await?;
        if named.is_none() {
            self.offers.offered(record.pool);
        }
        if let Err(error) = self.open(&record).await {
            self.tell_pool_released(record.pool).await;
            return Err(error);
        }
        info!(pool = %record.pool, automatic = named.is_none(), "gave a pool");
        let id = PoolId {
            pool: record.pool,
            sub_pool: record.sub_pool,
        };
        Ok(PoolAnswer {
            pool_id: id.to_string(),
            pool: record.pool.prefix(),
            data: BTreeMap::new(),
        })
    }

    async fn open(&self, record: &drover_control_api::record::PoolRecord) -> Result<()> {
        // What is left here of a pool that went and came again is not this pool's.
        if self.ledger.open_pool(record)? {
            self.agree(&[record.pool]).await?;
        }
        Ok(())
    }

    /// Makes sure that the pool is known here: the state of this process may have been lost, the engine's not.
    async fn find_pool(&self, id: PoolId) -> Result<()> {
        if self.ledger.has_pool(id.pool) {
            return Ok(());
        }
        let table = self.coordinator.call(&Pools {}).await?;
        let record = table.pools.iter().find(|record| record.pool == id.pool);
        let record = record.ok_or_else(|| Error::UnknownPool(id.to_string()))?;
        self.ledger.open_pool(record)?;
        self.agree(&[id.pool]).await
    }

    async fn give_address(&self, request: RequestAddress) -> Result<AddressAnswer> {
        self.may_give().await?;
        let id = PoolId::parse(&request.pool_id)?;
        self.offers.taken(id.pool);
        self.find_pool(id).await?;
        let mac = request.options.mac_address;
        let address = match request.address {
            _ if request.is_gateway() => self.reserve(id.pool, request.address).await?,
            // An endpoint always comes with its link address; without one it is an auxiliary address.
            Some(address) if mac.is_none() => self.reserve(id.pool, Some(address)).await?,
            Some(address) => self.give_named(id.pool, address, mac).await?,
            None => self.give_any(id.pool, mac).await?,
        };
        Ok(AddressAnswer {
            address,
            data: BTreeMap::new(),
        })
    }

    async fn reserve(&self, pool: Pool, address: Option<IpAddr>) -> Result<IpNet> {
        if let Some(address) = address.filter(|address| self.ledger.is_reserved(pool, *address)) {
            return Ok(with_pool_prefix(pool, address));
        }
        let reserved = self
            .coordinator
            .call(&ReserveAddress { pool, address })
            .await?;
        self.ledger.reserve(pool, reserved.address)
    }

    async fn give_any(&self, pool: Pool, mac: Option<MacAddress>) -> Result<IpNet> {
        match self.allocate(pool, mac) {
            Err(Error::Lease(LeaseError::Exhausted { .. })) => {}
            other => return other,
        }
        let gate = self.gate(pool)?;
        let _asking = gate.lock().await;
        // Somebody else may have claimed a block while the gate was shut.
        let mut lease = match self.allocate(pool, mac) {
            Err(Error::Lease(lease @ LeaseError::Exhausted { .. })) => lease,
            other => return other,
        };
        let mut claimed_before = BTreeSet::new();
        // Every address of a block that was this host's a moment ago may rest still: then the next one is claimed,
        // until the pool has no more.
        loop {
            match self.coordinator.call(&ClaimBlock { pool }).await {
                Ok(claimed) => {
                    info!(block = %claimed.block.block, "claimed a block");
                    self.ledger.add_block(&claimed)?;
                    match self.allocate(pool, mac) {
                        Err(Error::Lease(still @ LeaseError::Exhausted { .. }))
                            if claimed_before.insert(claimed.block.block) =>
                        {
                            lease = still;
                        }
                        other => return other,
                    }
                }
                Err(gone) if gone.kind == FailureKind::NotFound => return Err(gone.into()),
                Err(block) if block.kind == FailureKind::Conflict => {
                    let borrowed = self.borrow(pool, mac).await;
                    return borrowed.ok_or(Error::NoBlock { lease, block });
                }
                Err(block) => return Err(Error::NoBlock { lease, block }),
            }
        }
    }

    fn allocate(&self, pool: Pool, mac: Option<MacAddress>) -> Result<IpNet> {
        let given = self.ledger.allocate(pool, mac)?;
        if given.low {
            self.prefetch(pool);
        }
        Ok(given.address)
    }

    /// Claims another block in the background, so that no container waits for it.
    fn prefetch(&self, pool: Pool) {
        let Ok(gate) = self.gate(pool) else { return };
        let Ok(asking) = gate.try_lock_owned() else {
            return;
        };
        let ipam = self.clone();
        tokio::spawn(async move {
            let claimed = if ipam.ledger.wants_block(pool) {
                ipam.coordinator.call(&ClaimBlock { pool }).await.map(Some)
            } else {
                Ok(None)
            };
            match claimed {
                Ok(None) => {}
                Ok(Some(claimed)) => {
                    info!(block = %claimed.block.block, "claimed a block in advance");
                    if let Err(error) = ipam.ledger.add_block(&claimed) {
                        warn!(%error, "a block was claimed and not kept");
                    }
                }
                Err(error) => {
                    debug!(%pool, %error, "no block is to be had in advance");
                    ipam.ledger
                        .postpone_prefetch(pool, Instant::now() + NO_PREFETCH);
                }
            }
            drop(asking);
        });
    }

    async fn give_named(
        &self,
        pool: Pool,
        address: IpAddr,
        mac: Option<MacAddress>,
    ) -> Result<IpNet> {
        if let ExplicitGiven::Given(given) = self.ledger.allocate_explicit(pool, address, mac)? {
            return Ok(given);
        }
        let gate = self.gate(pool)?;
        let _asking = gate.lock().await;
        if let ExplicitGiven::Given(given) = self.ledger.allocate_explicit(pool, address, mac)? {
            return Ok(given);
        }
        let failure = match self.claim_single(pool, address, mac).await {
            Ok(given) => return Ok(given),
            Err(failure) => failure,
        };
        // The cluster may know of a block of this host that this host does not know of.
        let conflict = matches!(&failure, Error::Coordinator(f) if f.kind == FailureKind::Conflict);
        if conflict && self.agree_asking(&[pool]).await.is_ok() {
            let again = self.ledger.allocate_explicit(pool, address, mac)?;
            if let ExplicitGiven::Given(given) = again {
                return Ok(given);
            }
        }
        Err(failure)
    }

    /// Claims a single address; the gate is held.
    async fn claim_single(
        &self,
        pool: Pool,
        address: IpAddr,
        mac: Option<MacAddress>,
    ) -> Result<IpNet> {
        self.ledger.begin_claim(pool, address)?;
        match self.coordinator.call(&ClaimAddress { pool, address }).await {
            Ok(_) => self.ledger.finish_claim(pool, address, mac),
            Err(failure) => {
                self.ledger.abandon_claim(pool, address);
                Err(failure.into())
            }
        }
    }

    /// Finds a single address in blocks of other hosts, when no block is left; the gate is held.
    async fn borrow(&self, pool: Pool, mac: Option<MacAddress>) -> Option<IpNet> {
        let began = Instant::now();
        let host = self.standing.borrow().member.clone()?.host;
        let table = self.coordinator.call(&Pools {}).await.ok()?;
        let record = table.pools.iter().find(|record| record.pool == pool)?;
        for address in claim::lendable(record, &table.blocks, &host) {
            if began.elapsed() > BORROW {
                break;
            }
            let state = self.ledger.allocate_explicit(pool, address, mac);
            if !matches!(state, Ok(ExplicitGiven::Claim)) {
                if let Ok(ExplicitGiven::Given(given)) = state {
                    return Some(given);
                }
                continue;
            }
            match self.claim_single(pool, address, mac).await {
                Ok(given) => return Some(given),
                Err(error) => debug!(%address, %error, "an address was not lent"),
            }
        }
        None
    }

    pub(crate) fn gate(&self, pool: Pool) -> Result<Gate> {
        self.ledger
            .gate(pool)
            .ok_or_else(|| Error::UnknownPool(pool.to_string()))
    }

    /// Tells the coordinator, and waits for a moment only: nothing can be done about a failure, and the
    /// engine must not hang on it.
    async fn tell_pool_released(&self, pool: Pool) {
        let coordinator = self.coordinator.clone();
        let told = tokio::spawn(async move {
            if let Err(error) = coordinator.call(&api::ReleasePool { pool }).await {
                warn!(%pool, %error, "the cluster does not know yet that a pool was given back");
            }
        });
        if tokio::time::timeout(RELEASE, told).await.is_err() {
            debug!(%pool, "the release of a pool goes on unawaited");
        }
    }
}

impl IpamDriver for Ipam {
    fn activated(&self) {
        let coordinator = self.coordinator.clone();
        tokio::spawn(async move {
            for _ in 0..TELL {
                match coordinator.call(&EngineStarted {}).await {
                    Ok(_) => return,
                    Err(Failure {
                        kind: FailureKind::Unavailable,
                        ..
                    }) => {}
                    Err(error) => {
                        warn!(%error, "the coordinator was not told that the engine has started");
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    async fn get_capabilities(&self) -> std::result::Result<Capabilities, DriverError> {
        Ok(Capabilities {
            requires_mac_address: true,
            requires_request_replay: false,
        })
    }

    async fn get_default_address_spaces(&self) -> std::result::Result<AddressSpaces, DriverError> {
        let space = || SPACE.to_owned();
        Ok(AddressSpaces {
            local_default: space(),
            global_default: space(),
        })
    }

    async fn request_pool(
        &self,
        request: RequestPool,
    ) -> std::result::Result<PoolAnswer, DriverError> {
        Ok(self.give_pool(request).await?)
    }

    async fn release_pool(&self, request: ReleasePool) -> std::result::Result<Empty, DriverError> {
        let Ok(id) = PoolId::parse(&request.pool_id) else {
            return Ok(Empty {});
        };
        self.offers.returned(id.pool);
        self.ledger.close_pool(id.pool);
        self.tell_pool_released(id.pool).await;
        Ok(Empty {})
    }

    async fn request_address(
        &self,
        request: RequestAddress,
    ) -> std::result::Result<AddressAnswer, DriverError> {
        Ok(self.give_address(request).await?)
    }

    async fn release_address(
        &self,
        request: ReleaseAddress,
    ) -> std::result::Result<Empty, DriverError> {
        let Ok(id) = PoolId::parse(&request.pool_id) else {
            return Ok(Empty {});
        };
        if !self.ledger.release(id.pool, request.address)? {
            // A gateway, or an address that was given back before.
            debug!(address = %request.address, "an address came back that no container had");
        }
        Ok(Empty {})
    }
}
