//! Ports of containers that have left, which are removed beside the owner's work.
//!
//! The kernel lets go of a link only when every processor has done with it, which takes longer than all
//! else of a Leave. So the port loses its addresses in the rules at once, whereupon nothing passes from
//! it, and goes in the background. The records say that it is to be gone: whatever
//! happens before it is, the next comparison with the kernel removes it.

use std::future::pending;
use std::sync::Arc;

use drover_kernel::Kernel;
use drover_model::EndpointId;
use drover_overlay::{Plan, Step, simulate};
use drover_plugin_host::DriverError;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::warn;

use super::{Owner, SOON};

/// The removal of ports that is under way.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    under_way: Option<JoinHandle<Swept>>,
    /// Ports have come to be removed since it began.
    more: bool,
}

/// What a removal has come to.
#[derive(Debug)]
pub(super) struct Swept {
    ports: Vec<String>,
    failed: Vec<(String, drover_kernel::Error)>,
}

impl Sweep {
    /// Waits for the end of what is under way, if anything is. Loses nothing when it is given up.
    pub(super) async fn ended(&mut self) -> Option<Swept> {
        let Some(task) = &mut self.under_way else {
            return pending().await;
        };
        let ended = task.await;
        self.under_way = None;
        ended
            .inspect_err(|error| warn!(%error, "the removal of ports has ended early"))
            .ok()
    }

    /// Begins to remove ports, or remembers that there are some.
    fn begin(&mut self, kernel: &Arc<Kernel>, ports: Vec<String>) {
        if ports.is_empty() {
            return;
        }
        if self.under_way.is_some() {
            self.more = true;
            return;
        }
        let kernel = kernel.clone();
        self.under_way = Some(tokio::spawn(async move {
            let failed = kernel.remove_links(&ports).await;
            Swept { ports, failed }
        }));
    }
}

impl Owner {
    /// Begins to remove ports.
    pub(super) fn sweep(&mut self, ports: Vec<String>) {
        if let Some(kernel) = &self.kernel {
            self.sweep.begin(kernel, ports);
        }
    }

    /// Ports have been removed.
    pub(super) async fn swept(&mut self, swept: Option<Swept>) {
        self.note_swept(swept);
        if std::mem::take(&mut self.sweep.more) {
            self.settle().await;
        }
    }

    /// Waits until no removal of ports is under way.
    pub(super) async fn finish_sweep(&mut self) {
        if self.sweep.under_way.is_some() {
            let swept = self.sweep.ended().await;
            self.note_swept(swept);
        }
    }

    fn note_swept(&mut self, swept: Option<Swept>) {
        let failed = swept.as_ref().map(|swept| swept.failed.as_slice());
        for (port, reason) in failed.unwrap_or_default() {
            let reason = DriverError::chain(reason);
            warn!(port, %reason, "cannot be removed");
        }
        match (swept, &mut self.known) {
            (Some(swept), Some(known)) if swept.failed.is_empty() => {
                let gone = swept.ports.into_iter().map(removal);
                gone.for_each(|step| simulate(known, &step));
            }
            (Some(swept), None) if swept.failed.is_empty() => {}
            _ => {
                // What there is now has to be looked at.
                self.known = None;
                self.next = self.next.min(Instant::now() + SOON);
            }
        }
    }

    /// Before an endpoint is joined: a port that is left of an earlier join must not be taken for the
    /// new one, whose other end it lacks.
    pub(super) async fn clear_port(&mut self, id: &EndpointId) -> Result<(), DriverError> {
        let port = id.port_link();
        let is_known = |owner: &Self| owner.known.as_ref().map(|it| it.links.contains_key(&port));
        if is_known(self) == Some(false) {
            return Ok(());
        }
        self.finish_sweep().await;
        if self.known.is_none() {
            self.look().await?;
        }
        if is_known(self) == Some(true) {
            self.settle_now().await;
        }
        Ok(())
    }
}

fn removal(port: String) -> Step {
    let replaced = false;
    Step::DeleteLink {
        name: port,
        replaced,
    }
}

/// Takes the removal of ports out of a plan.
pub(super) fn take_ports(plan: &mut Plan) -> Vec<String> {
    let mut ports = Vec::new();
    plan.steps.retain(|step| match step {
        Step::DeleteLink {
            name,
            replaced: false,
        } if name.starts_with("ep") => {
            ports.push(name.clone());
            false
        }
        _ => true,
    });
    ports
}
