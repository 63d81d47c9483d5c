//! Which addresses are Drover's: asked of `drover-net`, which knows an endpoint before the engine puts its address
//! into a sandbox.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use drover_control_api::plugin::Endpoints as Question;
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
    questions: mpsc::Sender<(BTreeSet<IpAddr>, oneshot::Sender<bool>)>,
}

impl Endpoints {
    /// Whether one of these addresses is Drover's; `false` when nobody can tell.
    pub(crate) async fn have(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        let (reply, answer) = oneshot::channel();
        if self
            .questions
            .send((addresses.clone(), reply))
            .await
            .is_err()
        {
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
async fn run(
    network: Client,
    mut asked: mpsc::Receiver<(BTreeSet<IpAddr>, oneshot::Sender<bool>)>,
) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, QUEUE).await > 0 {
        let known: HashSet<IpAddr> = match control::call(&network, &Question {}, LIMIT).await {
            Ok(table) => {
                let endpoints = table.endpoints.into_iter();
                endpoints
                    .flat_map(|endpoint| endpoint.addresses)
                    .map(|address| address.addr())
                    .collect()
            }
            Err(error) => {
                debug!(%error, "drover-net does not answer");
                HashSet::new()
            }
        };
        for (addresses, reply) in waiting.drain(..) {
            let is_known = addresses.iter().any(|address| known.contains(address));
            if reply.send(is_known).is_err() {
                debug!("whoever asked for an endpoint is gone");
            }
        }
    }
}
