//! A coordinator whose store is a table: it decides as the real one does, by `drover-allocation`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use drover_allocation::PoolShape;
use drover_allocation::block::{self, Change, Member};
use drover_allocation::claim::{self, Asker, Step};
use drover_allocation::pool::{self, AutomaticPools, Taken};
use drover_control_api::coordinator::{
    ClaimAddress, ClaimBlock, ClaimPool, ClaimedBlock, EngineStarted, PoolTable, Pools,
    ReleaseAddress, ReleaseBlock, ReleasePool, ReserveAddress, ReservedAddress,
};
use drover_control_api::fabric::{self, FabricEvent};
use drover_control_api::record::{AddressClaim, BlockRecord, ClaimState, HostRecord, PoolRecord};
use drover_control_api::{Empty, Failure, FailureKind, Method};
use drover_http::control::{answer, decode};
use drover_http::{Limits, Request, Response, Service, serve};
use drover_model::{Block, HostIndex, Mtu, Pool};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

/// The coordinator of the host `me`, and the whole cluster behind it.
#[derive(Clone)]
pub(crate) struct Cluster {
    state: Arc<Mutex<State>>,
    folder: Arc<tempfile::TempDir>,
    stop: watch::Sender<bool>,
    task: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
}

#[derive(Default)]
struct State {
    pools: BTreeMap<Pool, PoolRecord>,
    blocks: BTreeMap<Block, BlockRecord>,
    member: String,
    fenced: bool,
    refuse_singles: bool,
    delay: Option<Duration>,
    delaying: bool,
    engine_starts: u32,
    streams: Vec<mpsc::Sender<Bytes>>,
}

type Answer<M> = Result<<M as Method>::Answer, Failure>;

impl Cluster {
    pub(crate) async fn start() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let state = State {
            member: "first".to_owned(),
            ..State::default()
        };
        let (stop, stopped) = watch::channel(false);
        let cluster = Self {
            state: Arc::new(Mutex::new(state)),
            folder,
            stop,
            task: Arc::default(),
        };
        let listener = UnixListener::bind(cluster.socket()).unwrap();
        let service = Arc::new(cluster.clone());
        let task = tokio::spawn(serve(listener, service, Limits::default(), stopped));
        *cluster.task.lock().unwrap() = Some(task);
        cluster
    }

    /// Where the plugin expects the coordinator: in this run folder.
    pub(crate) fn run_folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// Ends the coordinator; its socket file stays, as after a crash.
    pub(crate) async fn stop(&self) {
        self.with(|state| state.streams.clear());
        self.stop.send_replace(true);
        let task = self.task.lock().unwrap().take();
        task.unwrap().await.unwrap();
    }

    pub(crate) fn blocks(&self) -> Vec<BlockRecord> {
        self.with(|state| state.blocks.values().cloned().collect())
    }

    /// This host is removed, or is not any more; every stream begins anew.
    pub(crate) fn fence(&self, fenced: bool) {
        self.with(|state| {
            state.fenced = fenced;
            state.streams.clear();
        });
    }

    pub(crate) fn become_member(&self, member: &str) {
        self.with(|state| state.member = member.to_owned());
    }

    /// Makes a block another host's.
    pub(crate) fn give_away_block(&self, prefix: &str, host: &str) {
        let block = Block::new(prefix.parse().unwrap());
        self.with(|state| {
            let of = |pool: &&PoolRecord| pool.pool.contains(block.router());
            let pool = state.pools.values().find(of).unwrap().pool;
            let mut record = block::empty(pool, block);
            record.owner = Some(host.parse().unwrap());
            record.owner_member = Some("theirs".to_owned());
            state.blocks.insert(block, record);
        });
    }

    pub(crate) fn refuse_singles(&self) {
        self.with(|state| state.refuse_singles = true);
    }

    /// The next claim of a block takes that long.
    pub(crate) fn delay_blocks(&self, delay: Duration) {
        self.with(|state| state.delay = Some(delay));
    }

    pub(crate) fn is_delaying(&self) -> bool {
        self.with(|state| state.delaying)
    }

    pub(crate) fn engine_starts(&self) -> u32 {
        self.with(|state| state.engine_starts)
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut State) -> T) -> T {
        use_it(&mut self.state.lock().unwrap())
    }

    fn stream(&self) -> Response {
        let (sender, response) = Response::stream("application/x-ndjson", 64);
        self.with(|state| {
            let this_host: drover_model::HostName = "me".parse().unwrap();
            let host = HostRecord {
                version: 1,
                name: this_host.clone(),
                member: state.member.clone(),
                index: HostIndex::try_from(1).unwrap(),
                advertise: [192, 0, 2, 1].into(),
                link: None,
                underlay_mtu: Mtu::ETHERNET,
                prefixes: BTreeSet::new(),
                addresses: BTreeSet::new(),
                software: "0".to_owned(),
                joined_at: 0,
            };
            let reset = FabricEvent::Reset {
                this_host,
                fenced: state.fenced,
                cluster: String::new(),
            };
            for event in [reset, FabricEvent::Host(host), FabricEvent::Synced] {
                let mut line = serde_json::to_vec(&event).unwrap();
                line.push(b'\n');
                sender.try_send(line.into()).unwrap();
            }
            state.streams.push(sender);
        });
        response
    }

    async fn claim_block(&self, request: ClaimBlock) -> Answer<ClaimBlock> {
        let delay = self.with(|state| {
            state.delaying = state.delay.is_some();
            state.delay.take()
        });
        tokio::time::sleep(delay.unwrap_or_default()).await;
        self.with(|state| state.claim_block(&request))
    }
}

impl State {
    fn me(&self) -> Member {
        Member {
            host: "me".parse().unwrap(),
            id: self.member.clone(),
        }
    }

    fn pool(&self, pool: Pool) -> Result<PoolRecord, Failure> {
        let unknown = || Failure::new(FailureKind::NotFound, format!("no subnet `{pool}`"));
        self.pools.get(&pool).cloned().ok_or_else(unknown)
    }

    fn change(&mut self, block: Block, change: Change) {
        match change {
            Change::Unchanged => {}
            Change::Put(record) => drop(self.blocks.insert(block, record)),
            Change::Delete => drop(self.blocks.remove(&block)),
        }
    }

    fn claim_pool(&mut self, request: &ClaimPool) -> Answer<ClaimPool> {
        let pools: Vec<PoolRecord> = self.pools.values().cloned().collect();
        let taken = Taken {
            pools: &pools,
            hosts: &[],
        };
        let ranges = vec![
            "10.64.0.0/10".parse().unwrap(),
            "fd00::/48".parse().unwrap(),
        ];
        let automatic = AutomaticPools { ranges, prefix: 16 };
        let pool = match request.pool {
            Some(pool) => pool::check_explicit(pool, taken).map(|()| pool),
            None => pool::choose(request.family, &automatic, taken, &request.refused),
        };
        let pool = pool.map_err(|error| Failure::new(FailureKind::Conflict, error.to_string()))?;
        let record = PoolRecord {
            version: 1,
            pool,
            sub_pool: request.sub_pool,
            block_prefix: pool::block_prefix(pool.prefix(), None),
            reserved: BTreeSet::new(),
            claimed_by: self.me().host,
            claimed_at: 0,
            network: None,
        };
        self.pools.insert(pool, record.clone());
        Ok(record)
    }

    fn release_pool(&mut self, request: &ReleasePool) -> Answer<ReleasePool> {
        self.pools.remove(&request.pool);
        Ok(Empty {})
    }

    fn reserve(&mut self, request: &ReserveAddress) -> Answer<ReserveAddress> {
        let record = self.pool(request.pool)?;
        let address = request
            .address
            .unwrap_or_else(|| PoolShape::from(&record).default_gateway());
        let changed = claim::reserve(&record, None, address)
            .map_err(|error| Failure::new(FailureKind::InvalidInput, error.to_string()))?;
        self.pools
            .extend(changed.map(|record| (record.pool, record)));
        Ok(ReservedAddress { address })
    }

    fn claim_block(&mut self, request: &ClaimBlock) -> Answer<ClaimBlock> {
        let pool = self.pool(request.pool)?;
        let blocks: BTreeMap<_, _> = self
            .blocks
            .iter()
            .filter(|(_, record)| record.pool == pool.pool)
            .map(|(block, record)| (*block, record.clone()))
            .collect();
        let block = block::claim(&pool, &blocks, &self.me(), 1)
            .map_err(|error| Failure::new(FailureKind::Conflict, error.to_string()))?;
        self.blocks.insert(block.block, block.clone());
        Ok(ClaimedBlock { pool, block })
    }

    fn release_block(&mut self, request: &ReleaseBlock) -> Answer<ReleaseBlock> {
        if let Some(record) = self.blocks.get(&request.block) {
            self.change(request.block, block::release(record, &self.me()));
        }
        Ok(Empty {})
    }

    /// The owner of another block grants at once, or never.
    fn claim_address(&mut self, request: &ClaimAddress) -> Answer<ClaimAddress> {
        let conflict = |text: String| Failure::new(FailureKind::Conflict, text);
        if self.refuse_singles {
            return Err(conflict(format!(
                "address `{}` is in use elsewhere",
                request.address
            )));
        }
        let pool = self.pool(request.pool)?;
        let block = PoolShape::from(&pool).block_of(request.address).unwrap();
        let me = self.me();
        let asker = Asker {
            member: &me,
            owner_alive: true,
            now: 1,
        };
        let step = claim::claim(&pool, self.blocks.get(&block), request.address, &asker)
            .map_err(|error| conflict(error.to_string()))?;
        if let Step::Grant(mut record) | Step::Ask(mut record) = step {
            let claim = AddressClaim {
                host: me.host,
                state: ClaimState::Granted,
            };
            record.claims.insert(request.address, claim);
            self.blocks.insert(block, record);
        }
        Ok(Empty {})
    }

    fn release_address(&mut self, request: &ReleaseAddress) -> Answer<ReleaseAddress> {
        let pool = self.pool(request.pool)?;
        let block = PoolShape::from(&pool).block_of(request.address).unwrap();
        if let Some(record) = self.blocks.get(&block) {
            self.change(
                block,
                claim::release(record, request.address, &self.me().host),
            );
        }
        Ok(Empty {})
    }

    fn pools(&self) -> PoolTable {
        PoolTable {
            pools: self.pools.values().cloned().collect(),
            blocks: self.blocks.values().cloned().collect(),
        }
    }
}

fn run<M: Method>(body: &[u8], method: impl FnOnce(M) -> Answer<M>) -> Response {
    answer::<M>(decode::<M>(body).and_then(method))
}

impl Service for Cluster {
    async fn call(&self, request: Request) -> Response {
        let body = &request.body;
        match request.path.as_str() {
            fabric::PATH => self.stream(),
            ClaimBlock::PATH => {
                let claimed = self.claim_block(decode(body).unwrap()).await;
                answer::<ClaimBlock>(claimed)
            }
            ClaimPool::PATH => run(body, |it| self.with(|state| state.claim_pool(&it))),
            ReleasePool::PATH => run(body, |it| self.with(|state| state.release_pool(&it))),
            ReserveAddress::PATH => run(body, |it| self.with(|state| state.reserve(&it))),
            ReleaseBlock::PATH => run(body, |it| self.with(|state| state.release_block(&it))),
            ClaimAddress::PATH => run(body, |it| self.with(|state| state.claim_address(&it))),
            ReleaseAddress::PATH => run(body, |it| self.with(|state| state.release_address(&it))),
            Pools::PATH => run::<Pools>(body, |_| Ok(self.with(|state| state.pools()))),
            EngineStarted::PATH => run::<EngineStarted>(body, |_| {
                self.with(|state| state.engine_starts += 1);
                Ok(Empty {})
            }),
            other => Response::not_found(other),
        }
    }
}
