//! What the coordinator and the command line ask this process.

use std::sync::Arc;

use drover_control_api::plugin::{
    ConfirmLeases, Identity, LeaseTable, Leases, SetAside, SetAsideAnswer, TakeBack, WhoAreYou,
};
use drover_control_api::{Empty, Failure, FailureKind, Method};
use drover_http::control::{answer, decode};
use drover_http::{Request, Response, Service};
use drover_plugin_host::DriverError;

use crate::NAME;
use crate::driver::Ipam;
use crate::error::Error;

/// The methods under `/Drover.`.
pub(crate) struct Methods {
    ipam: Arc<Ipam>,
}

impl Methods {
    pub(crate) const fn new(ipam: Arc<Ipam>) -> Self {
        Self { ipam }
    }

    fn who_are_you(&self) -> Identity {
        let standing = self.ipam.standing.borrow().clone();
        let mut complaints = self.ipam.ledger.complaints();
        if standing.fenced {
            complaints.push(Error::Fenced.to_string());
        }
        if standing.settled && !standing.reachable {
            complaints.push(
                "the coordinator of this host does not answer: only addresses of blocks that are here are given".to_owned(),
            );
        }
        Identity {
            process: NAME.to_owned(),
            version: drover_daemon::VERSION.to_owned(),
            pid: std::process::id(),
            complaints,
        }
    }

    fn leases(&self) -> LeaseTable {
        self.ipam.ledger.report()
    }

    fn set_aside(&self, request: SetAside) -> Result<SetAsideAnswer, Failure> {
        let kept = self
            .ipam
            .ledger
            .set_aside(request.pool, request.address, &request.holder)
            .map_err(failure)?;
        // Not an answer: the block may have been claimed a moment ago.
        let granted = kept.ok_or_else(|| {
            let message = format!(
                "address `{}` lies in no block of this host",
                request.address
            );
            Failure::new(FailureKind::NotFound, message)
        })?;
        Ok(SetAsideAnswer { granted })
    }

    fn take_back(&self, request: TakeBack) -> Result<Empty, Failure> {
        self.ipam
            .ledger
            .take_back(request.pool, request.address, &request.holder)
            .map_err(failure)?;
        Ok(Empty {})
    }
}

impl Service for Methods {
    async fn call(&self, request: Request) -> Response {
        let body = &request.body;
        match request.path.as_str() {
            WhoAreYou::PATH => run::<WhoAreYou>(body, |_| Ok(self.who_are_you())),
            Leases::PATH => run::<Leases>(body, |_| Ok(self.leases())),
            SetAside::PATH => run::<SetAside>(body, |request| self.set_aside(request)),
            TakeBack::PATH => run::<TakeBack>(body, |request| self.take_back(request)),
            ConfirmLeases::PATH => run::<ConfirmLeases>(body, |request| {
                let ledger = &self.ipam.ledger;
                ledger
                    .confirm(&request.in_use, request.before)
                    .map_err(failure)
            }),
            other => Response::not_found(other),
        }
    }
}

fn run<M: Method>(body: &[u8], method: impl FnOnce(M) -> Result<M::Answer, Failure>) -> Response {
    answer::<M>(decode::<M>(body).and_then(method))
}

fn failure(error: Error) -> Failure {
    Failure::new(FailureKind::Internal, DriverError::from(error).to_string())
}
