//! The sandboxes of this host: which are Drover's, whose they are, and serving them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use drover_control_api::names::{AwaitSandbox, Awaited, HookKind, NameCounters, SandboxEntry};
use drover_control_api::record::UnixSeconds;
use drover_kernel::{Addresses, Error, Hold, Namespace};
use drover_model::Pool;
use drover_names::View;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use crate::counters::Counters;
use crate::endpoints::Endpoints;
use crate::known::{Known, now};
use crate::serving::Serving;

/// How long queries wait to be told whose they are, from the first on: less than a resolver waits before it asks again.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest that anybody waits for a sandbox to be served.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often rules are renewed that must be, and serving is tried again that has failed.
const AGAIN: Duration = Duration::from_millis(500);
/// How soon it is looked whether the engine has put the namespace where its file is, and how late at last: whoever
/// looks at the folder sees it later.
const SOON: Duration = Duration::from_millis(2);
const LATE: Duration = Duration::from_millis(500);

/// Who asks from a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asker {
    /// Whether the registry has told.
    pub(crate) is_known: bool,
    /// What it may see.
    pub(crate) view: View,
    /// The container's name.
    pub(crate) name: Option<String>,
    /// Its networks, by name.
    pub(crate) networks: Vec<String>,
}

/// A sandbox that is served, or should be.
#[derive(Debug)]
pub(crate) struct Sandbox {
    path: PathBuf,
    since: UnixSeconds,
    delay: Duration,
    hook: Mutex<(HookKind, Option<String>)>,
    asker: watch::Sender<Asker>,
    /// When somebody asked first.
    asked: OnceLock<Instant>,
    pub(crate) counters: Counters,
}

impl Sandbox {
    fn new(path: &Path, asker: Asker, delay: Duration) -> Self {
        Self {
            path: path.to_owned(),
            since: now(),
            delay,
            hook: Mutex::new((HookKind::Absent, None)),
            asker: watch::channel(asker).0,
            asked: OnceLock::new(),
            counters: Counters::default(),
        }
    }

    /// Who asks, as it changes.
    pub(crate) fn asker(&self) -> watch::Receiver<Asker> {
        self.asker.subscribe()
    }

    /// How much longer a query that is here waits to be told whose it is.
    ///
    /// The time runs from the first query, not from the sandbox's beginning: engines from 28 make it before they start the
    /// process, and the registry knows a container when its process runs.
    pub(crate) fn patience(&self) -> Duration {
        let asked = self.asked.get_or_init(Instant::now);
        PATIENCE.saturating_sub(asked.elapsed())
    }

    fn note(&self, hook: HookKind, complaint: Option<String>) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = (hook, complaint);
    }

    fn entry(&self) -> SandboxEntry {
        let asker = self.asker.borrow().clone();
        let (hook, complaint) = self
            .hook
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        SandboxEntry {
            sandbox: self.path.display().to_string(),
            container: asker.view.container,
            name: asker.name,
            networks: asker.networks,
            since: self.since,
            delay: u64::try_from(self.delay.as_millis()).unwrap_or(u64::MAX),
            hook,
            complaint,
            counters: self.counters.read(),
        }
    }
}

/// All sandboxes that are served, and what those have asked that are gone.
#[derive(Debug)]
pub(crate) struct Sandboxes {
    known: Arc<Known>,
    endpoints: Endpoints,
    served: Mutex<BTreeMap<PathBuf, Arc<Sandbox>>>,
    gone: Counters,
    /// Changes when one is served, or cannot be.
    changes: watch::Sender<u64>,
}

impl Sandboxes {
    /// None yet.
    pub(crate) fn new(known: Arc<Known>, endpoints: Endpoints) -> Self {
        Self {
            known,
            endpoints,
            served: Mutex::default(),
            gone: Counters::default(),
            changes: watch::channel(0).0,
        }
    }

    /// Each of them, and the sum of all that was asked.
    pub(crate) fn report(&self) -> (Vec<SandboxEntry>, NameCounters) {
        let (_, sum) = self.sums();
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = served.values().map(|sandbox| sandbox.entry());
        (entries.collect(), sum.read())
    }

    /// What those have asked that are gone, and the sum of all.
    pub(crate) fn sums(&self) -> (NameCounters, Counters) {
        let sum = Counters::default();
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        sum.add(&self.gone);
        served
            .values()
            .for_each(|sandbox| sum.add(&sandbox.counters));
        (self.gone.read(), sum)
    }

    /// Waits until a sandbox is served or cannot be, if it has a namespace.
    pub(crate) async fn wait_for(&self, asked: &AwaitSandbox) -> Awaited {
        let limit = Duration::from_millis(asked.patience).min(LONGEST_WAIT);
        let mut changes = self.changes.subscribe();
        let path = Path::new(&asked.sandbox);
        let served = async {
            // Up to Engine 27 it comes after everything that the engine asks of plugins.
            if !matches!(Namespace::mounted_at(path), Ok(Some(_))) {
                return false;
            }
            loop {
                if let Some(outcome) = self.outcome(path) {
                    return outcome;
                }
                if changes.changed().await.is_err() {
                    return false;
                }
            }
        };
        let served = tokio::time::timeout(limit, served).await.unwrap_or(false);
        Awaited { served }
    }

    /// Whether a sandbox is served; `None` while that is not decided. The engine may name it by another path.
    fn outcome(&self, path: &Path) -> Option<bool> {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = served.iter();
        let (_, sandbox) = all.find(|(own, _)| own.file_name() == path.file_name())?;
        let hook = sandbox.hook.lock().unwrap_or_else(PoisonError::into_inner);
        match &*hook {
            (HookKind::Owned | HookKind::Renewed, _) => Some(true),
            (HookKind::Absent, complaint) => complaint.is_some().then_some(false),
        }
    }

    /// Sees to a namespace until it is aborted; ends when none comes.
    pub(crate) async fn tend(self: Arc<Self>, path: PathBuf) {
        let Some(namespace) = mounted(&path).await else {
            return;
        };
        let seen = Instant::now();
        let tended = Tended {
            sandboxes: self,
            path,
            namespace,
            seen,
            current: BTreeSet::new(),
            pools: None,
            sandbox: None,
            serving: None,
        };
        let path = tended.path.clone();
        if let Err(error) = tended.run().await {
            warn!(sandbox = %path.display(), "cannot be watched: {:#}", anyhow::Error::from(error));
        }
    }

    /// Whose addresses these are, if the registry has told.
    fn identify(&self, addresses: &BTreeSet<IpAddr>) -> Option<Asker> {
        self.known.read(|directory| {
            let mut records = addresses.iter().filter_map(|it| directory.local_at(*it));
            let record = records.next()?;
            let view = directory.view_of(record);
            let networks = view.networks.iter();
            let networks = networks.filter_map(|id| directory.network_name(id));
            Some(Asker {
                is_known: true,
                networks: networks.map(str::to_owned).collect(),
                name: Some(record.name.clone()),
                view,
            })
        })
    }

    /// Somebody of whom the registry has not told, by the pools that it has places in: while the registry cannot tell, it
    /// finds those of its networks who are known.
    fn unknown_in(&self, pools: impl Iterator<Item = Pool>) -> Asker {
        self.known.read(|directory| {
            let networks = pools.filter_map(|pool| directory.network_in(pool));
            let networks: BTreeSet<_> = networks.collect();
            let names = networks.iter().filter_map(|id| directory.network_name(id));
            Asker {
                is_known: false,
                name: None,
                networks: names.map(str::to_owned).collect(),
                view: View {
                    container: None,
                    networks: networks.into_iter().cloned().collect(),
                },
            }
        })
    }
}

/// What is known of a namespace that is seen to.
struct Tended {
    sandboxes: Arc<Sandboxes>,
    path: PathBuf,
    namespace: Namespace,
    seen: Instant,
    /// Its addresses, without those that every namespace has.
    current: BTreeSet<IpAddr>,
    /// Those of the endpoints of ours that are in it; `None` when none is.
    pools: Option<BTreeSet<Pool>>,
    sandbox: Option<Arc<Sandbox>>,
    serving: Option<Serving>,
}

impl Tended {
    async fn run(mut self) -> Result<(), Error> {
        let mut addresses = Addresses::watch(&self.namespace)?;
        let mut local = self.sandboxes.known.local_changes();
        // One that goes on while things happen, or they would hold renewing up.
        let mut ticks = tokio::time::interval(AGAIN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Up to Engine 27 endpoints are joined before there is a namespace: that it is ours is known before it has addresses.
        let endpoints = &self.sandboxes.endpoints;
        self.pools = endpoints.pools_of(&self.path, &self.current).await;
        self.look(&mut addresses).await?;
        loop {
            self.settle().await;
            // Cancel-safe: each arm only says that it is time to look.
            tokio::select! {
                () = addresses.changed() => self.look(&mut addresses).await?,
                _ = local.changed() => {}
                _ = ticks.tick(), if self.is_restless() => self.renew(),
            }
        }
    }

    /// Whether there is something to do although nothing happens.
    fn is_restless(&self) -> bool {
        match &self.serving {
            Some(serving) => serving.hold() == Hold::Renewed,
            None => self.sandbox.is_some(),
        }
    }

    async fn look(&mut self, addresses: &mut Addresses) -> Result<(), Error> {
        let found = addresses.current().await?;
        let current: BTreeSet<IpAddr> = found.into_iter().filter(is_particular).collect();
        if current != self.current {
            let endpoints = &self.sandboxes.endpoints;
            self.pools = endpoints.pools_of(&self.path, &current).await;
            self.current = current;
        }
        Ok(())
    }

    /// Serves it if it is ours, and not if it is not.
    async fn settle(&mut self) {
        let asker = self.sandboxes.identify(&self.current);
        if asker.is_none() && self.pools.is_none() {
            self.leave();
            return;
        }
        let pools = self.pools.iter().flatten().copied();
        let asker = asker.unwrap_or_else(|| self.sandboxes.unknown_in(pools));
        let (path, seen) = (&self.path, self.seen);
        let sandbox = self.sandbox.get_or_insert_with(|| {
            let sandbox = Arc::new(Sandbox::new(path, asker.clone(), seen.elapsed()));
            let mut served = self
                .sandboxes
                .served
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            served.insert(path.clone(), sandbox.clone());
            sandbox
        });
        sandbox.asker.send_if_modified(|known| {
            // What was known stays while the registry does not know better.
            let is_news = (asker.is_known || !known.is_known) && *known != asker;
            if is_news {
                *known = asker;
            }
            is_news
        });
        if self.serving.is_none() {
            let sandbox = sandbox.clone();
            self.begin(sandbox).await;
        }
    }

    async fn begin(&mut self, sandbox: Arc<Sandbox>) {
        let known = self.sandboxes.known.clone();
        match Serving::start(self.namespace.clone(), known, sandbox.clone()).await {
            Ok(serving) => {
                let hook = match serving.hold() {
                    Hold::Owned => HookKind::Owned,
                    Hold::Renewed => HookKind::Renewed,
                };
                sandbox.note(hook, None);
                debug!(sandbox = %self.path.display(), delay = ?self.seen.elapsed(), "is served");
                self.serving = Some(serving);
            }
            Err(error) => {
                let text = format!("{:#}", anyhow::Error::from(error));
                // It is tried again and again, and said once.
                if sandbox.entry().complaint.as_ref() != Some(&text) {
                    warn!(sandbox = %self.path.display(), "cannot be served: {text}");
                }
                sandbox.note(HookKind::Absent, Some(text));
            }
        }
        let changes = &self.sandboxes.changes;
        changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn renew(&mut self) {
        let renewed = self.serving.as_ref().map(Serving::renew);
        if let (Some(Err(error)), Some(sandbox)) = (renewed, &self.sandbox) {
            let text = format!("{:#}", anyhow::Error::from(error));
            sandbox.note(HookKind::Absent, Some(text));
            self.serving = None;
        }
    }

    fn leave(&mut self) {
        self.serving = None;
        let Some(sandbox) = self.sandbox.take() else {
            return;
        };
        let mut served = self
            .sandboxes
            .served
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Another one may be seen to at the same place already.
        if served
            .get(&self.path)
            .is_some_and(|other| Arc::ptr_eq(other, &sandbox))
        {
            served.remove(&self.path);
        }
        drop(served);
        self.sandboxes.gone.add(&sandbox.counters);
        info!(sandbox = %self.path.display(), "is served no more");
    }
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Whether an address says whose a namespace is.
fn is_particular(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

/// Waits until the engine has put the namespace where its file is; `None` when none comes.
async fn mounted(path: &Path) -> Option<Namespace> {
    let mut delay = SOON;
    loop {
        match Namespace::mounted_at(path) {
            Ok(Some(namespace)) => return Some(namespace),
            Ok(None) if path.exists() && delay < LATE => {}
            Ok(None) | Err(_) => return None,
        }
        tokio::time::sleep(delay).await;
        delay *= 2;
    }
}
