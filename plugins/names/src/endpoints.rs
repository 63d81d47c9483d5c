//! Which sandboxes and addresses are Drover's, and in which pools: asked of `drover-net`, which knows an endpoint before the engine puts its
//! address into a sandbox, and up to Engine 27 before there is a sandbox.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use drover_control_api::plugin::{EndpointTable, Endpoints as Question};
use drover_daemon::task;
use drover_http::{Client, control};
use drover_model::{NetworkId, Pool};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

/// `drover-net` answers soon, or is not there.
const LIMIT: Duration = Duration::from_secs(2);
/// How many may wait for an answer.
const QUEUE: usize = 1024;

/// The one who asks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    questions: mpsc::Sender<Asked>,
}

/// What may be Drover's, and where to say so.
type Asked = (Wanted, oneshot::Sender<Option<BTreeSet<Pool>>>);

/// What may be Drover's.
#[derive(Debug)]
struct Wanted {
    /// The name of the sandbox's file: the engine may name its folder otherwise.
    file: Option<OsString>,
    addresses: BTreeSet<IpAddr>,
}

impl Endpoints {
    /// The pools of the endpoints that are joined to a sandbox, or have one of these addresses; `None` when none of
    /// Drover's is, and when nobody can tell.
    pub(crate) async fn pools_of(
        &self,
        sandbox: &Path,
        addresses: &BTreeSet<IpAddr>,
    ) -> Option<BTreeSet<Pool>> {
        let wanted = Wanted {
            file: sandbox.file_name().map(OsStr::to_owned),
            addresses: addresses.clone(),
        };
        let (reply, answer) = oneshot::channel();
        self.questions.send((wanted, reply)).await.ok()?;
        answer.await.ok()?
    }
}

/// Starts the task that asks.
pub(crate) fn spawn(network: Client) -> Endpoints {
    let (questions, asked) = mpsc::channel(QUEUE);
    task::spawn("endpoints", run(network, asked));
    Endpoints { questions }
}

/// Asks once for all who wait: with hundreds of containers that start, the answer is long.
async fn run(network: Client, mut asked: mpsc::Receiver<Asked>) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, QUEUE).await > 0 {
        let known = match control::call(&network, &Question {}, LIMIT).await {
            Ok(table) => Ours::of(&table),
            Err(error) => {
                debug!(%error, "drover-net does not answer");
                Ours::default()
            }
        };
        for (wanted, reply) in waiting.drain(..) {
            if reply.send(known.pools_of(&wanted)).is_err() {
                debug!("whoever asked for an endpoint is gone");
            }
        }
    }
}

/// What is Drover's at one moment, each with the pools of its network.
#[derive(Debug, Default)]
struct Ours {
    addresses: HashMap<IpAddr, BTreeSet<Pool>>,
    sandboxes: HashMap<OsString, BTreeSet<Pool>>,
}

impl Ours {
    fn of(table: &EndpointTable) -> Self {
        let networks = table.networks.iter();
        let pools: HashMap<&NetworkId, &[Pool]> = networks
            .map(|network| (&network.network, &*network.pools))
            .collect();
        let mut ours = Self::default();
        for endpoint in &table.endpoints {
            let pools = pools.get(&endpoint.network).copied().unwrap_or_default();
            for address in &endpoint.addresses {
                let known = ours.addresses.entry(address.addr()).or_default();
                known.extend(pools);
            }
            let sandbox = endpoint.sandbox.as_ref().map(Path::new);
            if let Some(file) = sandbox.and_then(Path::file_name) {
                let known = ours.sandboxes.entry(file.to_owned()).or_default();
                known.extend(pools);
            }
        }
        ours
    }

    fn pools_of(&self, wanted: &Wanted) -> Option<BTreeSet<Pool>> {
        let file = wanted.file.as_ref();
        let joined = file.and_then(|file| self.sandboxes.get(file));
        let addresses = wanted.addresses.iter();
        let held = addresses.filter_map(|address| self.addresses.get(address));
        let found: Vec<_> = joined.into_iter().chain(held).collect();
        (!found.is_empty()).then(|| found.into_iter().flatten().copied().collect())
    }
}
