//! What the command line asks of the name service, and what is scraped.

use std::sync::Arc;

use drover_control_api::Method as _;
use drover_control_api::names::{AwaitSandbox, Lookup, NameReport, NameStatus, Names};
use drover_control_api::plugin::{Identity, WhoAreYou};
use drover_daemon::VERSION;
use drover_http::{Method, Request, Response, Service, control};
use drover_names::Directory;

use crate::known::{Known, now};
use crate::sandbox::Sandboxes;
use crate::{NAME, metrics};

/// Where Prometheus looks.
const METRICS: &str = "/metrics";

/// A shorter silence than this, seconds, is nothing to complain of: a process is started again.
const GRACE: u64 = 10;

/// The service of `/Drover.*` and `/metrics`.
#[derive(Debug)]
pub(crate) struct Control {
    known: Arc<Known>,
    sandboxes: Arc<Sandboxes>,
}

impl Control {
    /// The service in front of what is known and of the sandboxes.
    pub(crate) const fn new(known: Arc<Known>, sandboxes: Arc<Sandboxes>) -> Self {
        Self { known, sandboxes }
    }

    fn identity(&self) -> Identity {
        let report = self.report();
        let mut complaints = Vec::new();
        // A coordinator that was never there is told by those who ask it.
        let stale = report
            .stale_since
            .filter(|_| self.known.read(Directory::is_complete));
        if let Some(age) = stale
            .map(|since| now().saturating_sub(since))
            .filter(|age| *age >= GRACE)
        {
            complaints.push(format!(
                "nothing was heard of other hosts' containers for {age} s: names are answered from what was known last"
            ));
        }
        for sandbox in &report.sandboxes {
            if let Some(complaint) = &sandbox.complaint {
                let name = sandbox.name.as_deref().unwrap_or(&sandbox.sandbox);
                complaints.push(format!("`{name}` is not served: {complaint}"));
            }
        }
        Identity {
            process: NAME.to_owned(),
            version: VERSION.to_owned(),
            pid: std::process::id(),
            complaints,
        }
    }

    fn metrics(&self) -> Response {
        let (gone, all) = self.sandboxes.sums();
        let text = metrics::page(&self.report(), gone, &all, now());
        Response::text(200, text).with_content_type(metrics::CONTENT_TYPE)
    }

    fn report(&self) -> NameReport {
        let (sandboxes, counters) = self.sandboxes.report();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.known.read(|directory| {
            let (networks, containers, names) = directory.size();
            NameReport {
                this_host: directory.this_host().cloned(),
                followed: self.known.is_followed(),
                stale_since: directory.stale_since(),
                networks: count(networks),
                containers: count(containers),
                names: count(names),
                refused: directory.refused(),
                sandboxes,
                counters,
            }
        })
    }
}

impl Service for Control {
    async fn call(&self, request: Request) -> Response {
        let body = &request.body;
        match request.path.as_str() {
            WhoAreYou::PATH => {
                let asked = control::decode::<WhoAreYou>(body);
                control::answer::<WhoAreYou>(asked.map(|_| self.identity()))
            }
            NameStatus::PATH => {
                let asked = control::decode::<NameStatus>(body);
                control::answer::<NameStatus>(asked.map(|_| self.report()))
            }
            Names::PATH => {
                let asked = control::decode::<Names>(body);
                let table = |asked: Names| {
                    let network = asked.network.as_deref();
                    self.known.read(|directory| directory.table(network))
                };
                control::answer::<Names>(asked.and_then(table))
            }
            Lookup::PATH => {
                let asked = control::decode::<Lookup>(body);
                let explain =
                    |asked: Lookup| self.known.read(|directory| directory.explain(&asked));
                control::answer::<Lookup>(asked.and_then(explain))
            }
            AwaitSandbox::PATH => {
                let answer = match control::decode::<AwaitSandbox>(body) {
                    Ok(asked) => Ok(self.sandboxes.wait_for(&asked).await),
                    Err(failure) => Err(failure),
                };
                control::answer::<AwaitSandbox>(answer)
            }
            METRICS if request.method == Method::GET => self.metrics(),
            other => Response::not_found(other),
        }
    }
}
