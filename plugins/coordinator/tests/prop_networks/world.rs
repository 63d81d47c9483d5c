//! A model of a few hosts: engines are lists of networks; store, planner and steps are the real thing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Instant;

use drover_control_api::record::{NetworkRecord, NetworkState, PoolRecord};
use drover_coordinator::mirror::Snapshot;
use drover_coordinator::networks::execute::{Copies, Effect, Executor, Refusal};
use drover_coordinator::networks::observe::{Known, view};
use drover_coordinator::networks::plan::{Plan, Step, plan};
use drover_coordinator::networks::record::{NETWORK_DRIVER, Writer, creation, orphaned_pools};
use drover_coordinator::networks::refusals::Refusals;
use drover_coordinator::networks::view::View;
use drover_engine::{CreateNetwork, Ipam, IpamConfig, Network as EngineNetwork, NetworkEndpoint};
use drover_model::{HostName, LogicalNetworkId, NetworkId, Pool};
use drover_store::local::{Database, Table};
use drover_store::{Store, Transaction};

use crate::{Event, HOSTS};

#[derive(Default)]
pub(crate) struct Engine(Mutex<(u64, BTreeMap<NetworkId, EngineNetwork>)>);

impl Engine {
    fn list(&self) -> Vec<EngineNetwork> {
        self.0.lock().unwrap().1.values().cloned().collect()
    }

    pub(crate) fn named(&self, name: &str) -> Option<NetworkId> {
        let state = self.0.lock().unwrap();
        let found = state.1.iter().find(|(_, network)| network.name == name);
        found.map(|(id, _)| id.clone())
    }

    fn attach(&self, id: &NetworkId) {
        let mut state = self.0.lock().unwrap();
        let endpoints = &mut state.1.get_mut(id).unwrap().containers;
        endpoints.insert(
            format!("container {}", endpoints.len()),
            NetworkEndpoint::default(),
        );
    }

    fn detach(&self, id: &NetworkId) {
        self.0
            .lock()
            .unwrap()
            .1
            .get_mut(id)
            .unwrap()
            .containers
            .pop_last();
    }

    fn endpoints(&self) -> BTreeMap<NetworkId, u32> {
        let state = self.0.lock().unwrap();
        let all = state.1.iter();
        all.map(|(id, network)| (id.clone(), u32::try_from(network.containers.len()).unwrap()))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

impl Engine {
    /// Whether another network has the name or a subnet.
    fn refuses(&self, creation: &CreateNetwork) -> bool {
        let pools: BTreeSet<&str> = creation
            .ipam
            .config
            .iter()
            .map(|config| config.subnet.as_str())
            .collect();
        self.list().iter().any(|network| {
            let mut config = network.ipam.config.iter();
            network.name == creation.name || config.any(|c| pools.contains(c.subnet.as_str()))
        })
    }
}

impl Copies for Engine {
    async fn create(&self, creation: &CreateNetwork) -> Result<NetworkId, Refusal> {
        if self.refuses(creation) {
            return Err(Refusal::Refused("there is one already".to_owned()));
        }
        let mut state = self.0.lock().unwrap();
        state.0 += 1;
        let id: NetworkId = format!("{:064x}", state.0).parse().unwrap();
        let network = EngineNetwork {
            id: id.to_string(),
            name: creation.name.clone(),
            driver: NETWORK_DRIVER.to_owned(),
            ipam: creation.ipam.clone(),
            options: creation.options.clone(),
            ..EngineNetwork::default()
        };
        state.1.insert(id.clone(), network);
        Ok(id)
    }

    async fn remove(&self, id: &NetworkId) -> Result<(), Refusal> {
        let mut state = self.0.lock().unwrap();
        match state.1.get(id) {
            Some(network) if !network.containers.is_empty() => Err(Refusal::InUse),
            _ => {
                state.1.remove(id);
                Ok(())
            }
        }
    }
}

pub(crate) struct Host {
    name: HostName,
    pub(crate) engine: Engine,
    intents: Table<LogicalNetworkId>,
    refusals: Refusals,
    away: bool,
}

pub(crate) struct World {
    store: Store,
    pub(crate) hosts: Vec<Host>,
    past: Vec<Snapshot>,
    next_pool: u8,
    /// Time stands still: nothing may come right only because a wait is over.
    now: Instant,
    _folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let folder = tempfile::tempdir_in(folder).unwrap();
        let store = Store::open_embedded(folder.path().join("store.redb")).unwrap();
        let mut hosts = Vec::new();
        for number in 0..HOSTS {
            let name: HostName = format!("h{number}").parse().unwrap();
            let database = Database::open(folder.path().join(format!("{name}.redb"))).unwrap();
            let intents = Table::open(&database, "intents").unwrap();
            hosts.push(Host {
                name,
                engine: Engine::default(),
                intents,
                refusals: Refusals::default(),
                away: false,
            });
        }
        let mut world = Self {
            store,
            hosts,
            past: Vec::new(),
            next_pool: 64,
            now: Instant::now(),
            _folder: folder,
        };
        for number in 0..HOSTS {
            world.set_away(number, false).await;
        }
        world.remember().await;
        world
    }

    async fn set_away(&mut self, host: usize, away: bool) {
        self.hosts[host].away = away;
        let name = self.hosts[host].name.clone();
        let alive = format!("alive/{name}");
        let transaction = Transaction::new().put(format!("hosts/{name}"), "{}");
        let transaction = if away {
            transaction.delete(alive)
        } else {
            transaction.put(alive, "{}")
        };
        assert!(self.store.commit(transaction).await.unwrap().is_committed());
    }

    async fn remember(&mut self) {
        let listing = self.store.list("").await.unwrap();
        self.past.push(Snapshot::of(listing.entries));
    }

    fn view(&self, host: usize, snapshot: &Snapshot) -> View {
        let host = &self.hosts[host];
        let list = host.engine.list();
        let all = list
            .iter()
            .map(|network| network.id.parse::<NetworkId>().unwrap());
        let there: BTreeSet<NetworkId> = all.collect();
        let copies = snapshot.records::<drover_control_api::record::CopyRecord>("copies/");
        let copies: BTreeSet<NetworkId> = copies
            .filter(|(key, _)| key.ends_with(host.name.as_str()))
            .map(|(_, copy)| copy.network)
            .collect();
        let known = Known {
            endpoints: Some(host.engine.endpoints()),
            settled: copies.clone(),
            gone: copies.difference(&there).cloned().collect(),
            refused: host.refusals.standing(self.now),
            intended: host.intents.list().unwrap().into_iter().collect(),
            ..Known::default()
        };
        view(&host.name, snapshot, &list, &known)
    }

    /// A host looks, and does at most `steps` steps.
    pub(crate) async fn look(&mut self, host: usize, age: usize, steps: usize) -> Plan {
        self.look_while(host, age, steps, None).await
    }

    /// A host looks, and before it acts somebody creates a network there.
    async fn look_while(
        &mut self,
        host: usize,
        age: usize,
        steps: usize,
        meanwhile: Option<usize>,
    ) -> Plan {
        let at = self.past.len().saturating_sub(age + 1);
        let snapshot = self.past[at].clone();
        let engine = self.hosts[host].engine.list();
        self.hosts[host].refusals.see(&engine);
        let view = self.view(host, &snapshot);
        let plan = plan(&view);
        if let Some(name) = meanwhile {
            self.create(host, name, None).await;
        }
        for step in plan.steps.iter().take(steps) {
            let before = self.pools_in_engine(host);
            let executor = Executor {
                store: &self.store,
                copies: &self.hosts[host].engine,
                intents: &self.hosts[host].intents,
                view: &view,
                writer: Writer {
                    snapshot: &snapshot,
                    host: &self.hosts[host].name,
                    now: 1,
                },
            };
            if let Effect::Refused { network, reason } = executor.execute(step).await.unwrap() {
                let (now, engine) = (self.now, self.hosts[host].engine.list());
                let refusals = &mut self.hosts[host].refusals;
                refusals.see(&engine);
                refusals.note(&network, reason, now);
            }
            self.release(host, &before).await;
        }
        self.remember().await;
        plan
    }

    pub(crate) fn pools_in_engine(&self, host: usize) -> BTreeSet<Pool> {
        let list = self.hosts[host].engine.list();
        let configs = list.iter().flat_map(|network| &network.ipam.config);
        configs
            .map(|config| config.subnet.parse().unwrap())
            .collect()
    }

    /// `ReleasePool`: a pool that no network has is deleted.
    async fn release(&self, host: usize, before: &BTreeSet<Pool>) {
        for pool in before.difference(&self.pools_in_engine(host)) {
            let key = format!("pools/{}", pool.key());
            let Some((record, revision)) = self.store.get_record::<PoolRecord>(&key).await.unwrap()
            else {
                continue;
            };
            if record.network.is_none() {
                let delete = Transaction::new().if_unchanged(&key, revision).delete(&key);
                self.store
                    .commit(delete)
                    .await
                    .unwrap()
                    .is_committed()
                    .then_some(())
                    .unwrap();
            }
        }
    }

    async fn create(&mut self, host: usize, name: usize, subnet: Option<u8>) {
        let number = subnet.unwrap_or_else(|| {
            self.next_pool += 1;
            self.next_pool
        });
        let pool: Pool = format!("10.{number}.0.0/16").parse().unwrap();
        let key = format!("pools/{}", pool.key());
        if self.store.get(&key).await.unwrap().is_none() {
            let record = PoolRecord {
                version: 1,
                pool,
                sub_pool: None,
                block_prefix: 24,
                reserved: BTreeSet::new(),
                claimed_by: self.hosts[host].name.clone(),
                claimed_at: 1,
                network: None,
            };
            let claim = Transaction::new().put_record(&key, &record).unwrap();
            assert!(self.store.commit(claim).await.unwrap().is_committed());
        }
        let config = IpamConfig {
            subnet: pool.to_string(),
            ..IpamConfig::default()
        };
        let creation = CreateNetwork {
            name: format!("net{name}"),
            ipam: Ipam {
                config: vec![config],
                ..Ipam::default()
            },
            options: [("encryption".to_owned(), "off".to_owned())].into(),
            ..CreateNetwork::default()
        };
        if self.hosts[host].engine.create(&creation).await.is_err()
            && !self.pools_in_engine(host).contains(&pool)
        {
            self.release(host, &[pool].into()).await;
        }
    }

    async fn crash_in_create(&mut self, host: usize) {
        let snapshot = self.past.last().unwrap().clone();
        let view = self.view(host, &snapshot);
        let step = plan(&view).steps.into_iter().find_map(|step| match step {
            Step::Create { network } => Some(network),
            _ => None,
        });
        if let Some(id) = step {
            let record = &view.networks[&id].record;
            self.hosts[host].intents.put(&record.name, &id).unwrap();
            drop(self.hosts[host].engine.create(&creation(record)).await);
        }
    }

    pub(crate) async fn happen(&mut self, event: &Event) {
        match *event {
            Event::Create { host, name, subnet } => {
                self.create(host, name, subnet).await;
                self.remember().await;
            }
            Event::Remove { host, name } => {
                let before = self.pools_in_engine(host);
                let engine = &self.hosts[host].engine;
                if let Some(id) = engine.named(&format!("net{name}")) {
                    drop(engine.remove(&id).await);
                    self.release(host, &before).await;
                }
                self.remember().await;
            }
            Event::Attach { host, name } => {
                let engine = &self.hosts[host].engine;
                engine
                    .named(&format!("net{name}"))
                    .iter()
                    .for_each(|id| engine.attach(id));
            }
            Event::Detach { host, name } => {
                let engine = &self.hosts[host].engine;
                engine
                    .named(&format!("net{name}"))
                    .iter()
                    .for_each(|id| engine.detach(id));
            }
            Event::Look { host, age, steps } => {
                if !self.hosts[host].away {
                    self.look(host, age, steps).await;
                }
            }
            Event::LookTooEarly { host, name } => {
                if !self.hosts[host].away {
                    self.look_while(host, 0, usize::MAX, Some(name)).await;
                }
            }
            Event::CrashInCreate { host } => {
                if !self.hosts[host].away {
                    self.crash_in_create(host).await;
                }
            }
            Event::Away { host, away } => self.set_away(host, away).await,
        }
    }

    /// Every host comes back and looks until nothing is left to do. Returns the last plans.
    pub(crate) async fn settle(&mut self) -> Vec<Plan> {
        for host in 0..HOSTS {
            self.set_away(host, false).await;
        }
        self.remember().await;
        for _ in 0..60 {
            let mut plans = Vec::new();
            for host in 0..HOSTS {
                plans.push(self.look(host, 0, usize::MAX).await);
            }
            if plans.iter().all(|plan| plan.steps.is_empty()) {
                return plans;
            }
        }
        panic!(
            "the hosts do not come to rest: {:?}",
            self.look(0, 0, 0).await
        );
    }

    pub(crate) fn check(&self, plans: &[Plan]) {
        let snapshot = self.past.last().unwrap();
        let networks: BTreeMap<LogicalNetworkId, NetworkRecord> = snapshot
            .records::<NetworkRecord>("networks/")
            .map(|(_, record)| (record.id.clone(), record))
            .collect();
        let at_odds = plans.iter().any(|plan| !plan.conflicts.is_empty());
        for (id, record) in &networks {
            let name = snapshot.record::<LogicalNetworkId>(&format!("names/{}", record.name));
            assert!(
                at_odds || name.as_ref() == Some(id),
                "{record:?} has lost its name"
            );
            assert!(
                at_odds || record.state != NetworkState::Removing,
                "{record:?} does not go"
            );
        }
        let named = snapshot.under("names/").count();
        assert!(
            at_odds || named == networks.len(),
            "{named} names for {networks:?}"
        );
        for prefix in ["copies/", "attachments/"] {
            for (key, _) in snapshot.under(prefix) {
                let id: LogicalNetworkId = key.split('/').next().unwrap().parse().unwrap();
                assert!(networks.contains_key(&id), "{prefix}{key} is left over");
            }
        }
        for (number, plan) in plans.iter().enumerate() {
            let view = self.view(number, snapshot);
            assert!(
                orphaned_pools(&view).is_empty(),
                "{:?}",
                orphaned_pools(&view)
            );
            let left = view.pools.values().any(Option::is_none);
            assert!(at_odds || !left, "a pool is left: {:?}", view.pools);
            for (id, network) in &view.networks {
                let counted = network.attachments.get(&view.host).copied().unwrap_or(0);
                assert_eq!(Some(counted), network.endpoints, "endpoints of {id}");
                if network.is_unwanted() {
                    assert!(network.is_attached(), "{id} waits for nobody");
                }
                let copy = network
                    .copies
                    .get(&view.host)
                    .and_then(|copy| view.local.get(copy));
                let goes = at_odds && network.is_removing();
                let placed = goes || copy.is_some_and(|copy| copy.is_copy_of(&network.record));
                assert!(
                    placed || !plan.conflicts.is_empty(),
                    "{id} has no copy on {number}"
                );
            }
            let copies = view
                .networks
                .values()
                .filter_map(|n| n.copies.get(&view.host));
            let copies: BTreeSet<_> = copies.collect();
            for id in view.local.keys() {
                let placed = copies.contains(id);
                assert!(
                    placed || !plan.conflicts.is_empty(),
                    "{id} of {number} is nobody's"
                );
            }
            let engine = &self.hosts[number].engine;
            for id in self.hosts[number].refusals.standing(self.now).keys() {
                let mut network = view.networks.get(id).into_iter();
                assert!(
                    network.all(|network| engine.refuses(&creation(&network.record))),
                    "{number} remembers a refusal of {id} whose reason is gone"
                );
            }
            let intents = self.hosts[number].intents.list().unwrap();
            assert!(
                at_odds || intents.is_empty(),
                "{intents:?} are still being made"
            );
        }
    }
}
