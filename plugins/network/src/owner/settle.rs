//! Making the kernel what the records ask for.
//!
//! What the kernel has is observed at the start, when somebody asks for it, every few minutes, and
//! after a failure. In between it is what it was, changed by the steps that were taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use drover_overlay::{Plan, State, lower, plan, simulate};
use drover_plugin_host::DriverError;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::sweep::take_ports;
use super::{EVERY, Owner, SOON};
use crate::desired::Sources;

/// What a round has done.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// The steps that were taken.
    pub(super) steps: Vec<String>,
    /// The steps that could not be taken, each with the reason.
    pub(super) failed: Vec<(String, DriverError)>,
}

/// When ports go that are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ports {
    /// With everything else.
    GoNow,
    /// Beside the owner's work: see [`super::sweep`].
    GoLater,
}

impl Settled {
    fn not_at_all(reason: DriverError) -> Self {
        Self {
            steps: Vec::new(),
            failed: vec![("everything".to_owned(), reason)],
        }
    }
}

impl Owner {
    /// Opens the namespaces, anew if the `drover` namespace has gone.
    pub(super) async fn open_kernel(&mut self) -> Result<(), DriverError> {
        if self
            .kernel
            .as_ref()
            .is_some_and(|kernel| kernel.is_current())
        {
            return Ok(());
        }
        self.known = None;
        let path = self.settings.overlay_namespace();
        let opened = drover_kernel::Kernel::open(&path).await;
        let (kernel, made) = opened.map_err(|error| DriverError::chain(&error))?;
        debug!(path = %path.display(), made, "the overlay namespace is open");
        self.kernel = Some(Arc::new(kernel));
        Ok(())
    }

    /// Looks at the kernel anew, forgets endpoints whose port has gone, and mends what differs.
    pub(super) async fn reconcile(&mut self) -> Vec<String> {
        self.finish_sweep().await;
        self.known = None;
        self.underlay = None;
        if !self.torn_down {
            if let Err(error) = self.look().await {
                warn!(%error, "the kernel cannot be observed");
            }
            self.forget_lost_endpoints();
            self.try_encryption().await;
            self.meet();
            self.observe_associations().await;
        }
        let settled = self.settle_now().await;
        self.reporter.attachments(self.records.attachments());
        settled.steps
    }

    pub(super) async fn look(&mut self) -> Result<(), DriverError> {
        self.open_kernel().await?;
        let Some(kernel) = &self.kernel else {
            return Ok(());
        };
        let observed = kernel.observe().await;
        self.known = Some(observed.map_err(|error| DriverError::chain(&error))?);
        Ok(())
    }

    /// An endpoint whose port is not there has no container any more: the pair ended with its
    /// sandbox, or with the whole namespace when the host was started.
    fn forget_lost_endpoints(&mut self) {
        let Some(known) = &self.known else { return };
        let lost = self.records.endpoints().iter().filter(|(id, endpoint)| {
            endpoint.joined.is_some() && !known.links.contains_key(&id.port_link())
        });
        let lost: BTreeSet<_> = lost.map(|(id, _)| id.clone()).collect();
        if !lost.is_empty() {
            debug!(count = lost.len(), "endpoints have no port any more");
        }
        if let Err(error) = self.records.remove_endpoints(&lost) {
            warn!(%error, "cannot forget endpoints that have no port");
        }
    }

    /// Makes the kernel what the records ask for, but for ports that are to go: these go soon.
    pub(super) async fn settle(&mut self) -> Settled {
        self.settle_ports(Ports::GoLater).await
    }

    /// Makes the kernel what the records ask for, altogether.
    pub(super) async fn settle_now(&mut self) -> Settled {
        self.settle_ports(Ports::GoNow).await
    }

    async fn settle_ports(&mut self, ports: Ports) -> Settled {
        if self.torn_down {
            return Settled::default();
        }
        let settled = match self.try_settle(ports).await {
            Ok(settled) => settled,
            Err(reason) => Settled::not_at_all(reason),
        };
        self.next = Instant::now()
            + if settled.failed.is_empty() {
                EVERY
            } else {
                SOON
            };
        for (step, reason) in &settled.failed {
            warn!(step, %reason, "cannot be done");
        }
        self.complain(&settled);
        settled
    }

    async fn try_settle(&mut self, ports: Ports) -> Result<Settled, DriverError> {
        self.open_kernel().await?;
        self.find_underlay().await;
        let desired = self.desired();
        let mut settled = Settled::default();
        // What is remembered may be wrong: then the second round has looked.
        for _round in 0..2 {
            if self.known.is_none() {
                self.look().await?;
            }
            let Some(known) = self.known.take() else {
                break;
            };
            let mut plan = plan(&desired, &known);
            let leaving = match ports {
                Ports::GoNow => Vec::new(),
                Ports::GoLater => take_ports(&mut plan),
            };
            self.making(&plan.steps);
            settled.failed = self.apply(&plan).await;
            // After everything else, since the kernel does one thing at a time with links.
            self.sweep(leaving);
            settled
                .steps
                .extend(plan.steps.iter().map(ToString::to_string));
            if settled.failed.is_empty() {
                self.known = Some(after(known, &plan));
                break;
            }
        }
        Ok(settled)
    }

    async fn apply(&self, plan: &Plan) -> Vec<(String, DriverError)> {
        let Some(kernel) = self.kernel.as_ref().filter(|_| !plan.is_empty()) else {
            return Vec::new();
        };
        let failed = kernel.apply(plan).await;
        let failed = failed
            .iter()
            .map(|it| (it.step.to_string(), DriverError::chain(&it.source)));
        failed.collect()
    }

    pub(super) fn sources(&self) -> Sources<'_> {
        Sources {
            records: &self.records,
            cluster: &self.cluster,
            settings: &self.settings.overlay,
            underlay: self.underlay.as_deref(),
            doubted: self.watch.doubted(),
            encryption: &self.encryption,
        }
    }

    fn desired(&self) -> State {
        lower(&self.sources().desired())
    }

    async fn find_underlay(&mut self) {
        let advertise = self.cluster.own().map(|own| own.advertise);
        if let (None, Some(advertise), Some(kernel)) = (&self.underlay, advertise, &self.kernel) {
            match kernel.device_with(advertise).await {
                Ok(device) => self.underlay = device,
                Err(error) => warn!(%error, "cannot look for the underlay device"),
            }
        }
    }
}

fn after(mut state: State, plan: &Plan) -> State {
    plan.steps
        .iter()
        .for_each(|step| simulate(&mut state, step));
    state
}
