//! Which sandboxes and addresses are Drover's: asked of `drover-net`, which knows an endpoint before the engine puts its
//! address into a sandbox, and up to Engine 27 before there is a sandbox.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use drover_control_api::plugin::{EndpointEntry, Endpoints as Question};
use drover_daemon::task;
use drover_http::{Client, control};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

/// `drover-net` answers soon, or is not there.
const LIMIT: Duration = Duration::from_secs(2);
/// How many may wait for an answer.
const QUEUE: usize = 1024;

/// The one who asks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    questions: mpsc::Sender<(Wanted, oneshot::Sender<bool>)>,
}

/// What may be Drover's.
#[derive(Debug)]
struct Wanted {
    /// The name of the sandbox's file: the engine may name its folder otherwise.
    file: Option<OsString>,
    addresses: BTreeSet<IpAddr>,
}

impl Endpoints {
    /// Whether an endpoint of Drover's is joined to a sandbox, or has one of these addresses; `false` when nobody can tell.
    pub(crate) async fn have(&self, sandbox: &Path, addresses: &BTreeSet<IpAddr>) -> bool {
        let wanted = Wanted {
            file: sandbox.file_name().map(OsStr::to_owned),
            addresses: addresses.clone(),
        };
        let (reply, answer) = oneshot::channel();
        if self.questions.send((wanted, reply)).await.is_err() {
            return false;
        }
        answer.await.unwrap_or(false)
    }
}

/// Starts the task that asks.
pub(crate) fn spawn(network: Client) -> Endpoints {
    let (questions, asked) = mpsc::channel(QUEUE);
    task::spawn("endpoints", run(network, asked));
    Endpoints { questions }
}

/// Asks once for all who wait: with hundreds of containers that start, the answer is long.
async fn run(network: Client, mut asked: mpsc::Receiver<(Wanted, oneshot::Sender<bool>)>) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, QUEUE).await > 0 {
        let known = match control::call(&network, &Question {}, LIMIT).await {
            Ok(table) => Ours::of(table.endpoints),
            Err(error) => {
                debug!(%error, "drover-net does not answer");
                Ours::default()
            }
        };
        for (wanted, reply) in waiting.drain(..) {
            let is_known = known.have(&wanted);
            if reply.send(is_known).is_err() {
                debug!("whoever asked for an endpoint is gone");
            }
        }
    }
}

/// What is Drover's at one moment.
#[derive(Debug, Default)]
struct Ours {
    addresses: HashSet<IpAddr>,
    sandboxes: HashSet<OsString>,
}

impl Ours {
    fn of(endpoints: Vec<EndpointEntry>) -> Self {
        let mut ours = Self::default();
        for endpoint in endpoints {
            let addresses = endpoint.addresses.iter().map(|it| it.addr());
            ours.addresses.extend(addresses);
            let sandbox = endpoint.sandbox.as_ref().map(Path::new);
            let file = sandbox.and_then(Path::file_name).map(OsStr::to_owned);
            ours.sandboxes.extend(file);
        }
        ours
    }

    fn have(&self, wanted: &Wanted) -> bool {
        let mut addresses = wanted.addresses.iter();
        let file = wanted.file.as_ref();
        file.is_some_and(|file| self.sandboxes.contains(file))
            || addresses.any(|it| self.addresses.contains(it))
    }
}
