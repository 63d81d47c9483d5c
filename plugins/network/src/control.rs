//! What the coordinator and the command line ask of this plugin.

use drover_control_api::plugin::{Endpoints, Identity, Paths, Reconcile, TearDown, WhoAreYou};
use drover_control_api::{Failure, FailureKind, Method};
use drover_daemon::VERSION;
use drover_http::{Request, Response, Service, control};
use drover_plugin_host::DriverError;

use crate::NAME;
use crate::owner::{Command, Handle};

/// The service of `/Drover.*`.
#[derive(Debug)]
pub(crate) struct Control {
    owner: Handle,
}

impl Control {
    /// The service in front of an owner.
    pub(crate) const fn new(owner: Handle) -> Self {
        Self { owner }
    }

    fn identity(&self) -> Identity {
        Identity {
            process: NAME.to_owned(),
            version: VERSION.to_owned(),
            pid: std::process::id(),
            complaints: self.owner.complaints(),
        }
    }
}

impl Service for Control {
    async fn call(&self, request: Request) -> Response {
        let body = &request.body;
        match request.path.as_str() {
            // Answered without the owner, who may be busy.
            WhoAreYou::PATH => {
                let asked = control::decode::<WhoAreYou>(body);
                control::answer::<WhoAreYou>(asked.map(|_| self.identity()))
            }
            Paths::PATH => {
                self.ask::<Paths>(body, |_, reply| Command::Paths(reply))
                    .await
            }
            Endpoints::PATH => {
                self.ask::<Endpoints>(body, |_, reply| Command::Endpoints(reply))
                    .await
            }
            Reconcile::PATH => {
                self.ask::<Reconcile>(body, |_, reply| Command::Reconcile(reply))
                    .await
            }
            TearDown::PATH => {
                self.ask::<TearDown>(body, |_, reply| Command::TearDown(reply))
                    .await
            }
            other => Response::not_found(other),
        }
    }
}

/// Where the answer to a method goes.
type Reply<M> = tokio::sync::oneshot::Sender<Result<<M as Method>::Answer, DriverError>>;

impl Control {
    async fn ask<M: Method>(
        &self,
        body: &[u8],
        command: impl FnOnce(M, Reply<M>) -> Command,
    ) -> Response {
        let request = match control::decode::<M>(body) {
            Ok(request) => request,
            Err(failure) => return control::answer::<M>(Err(failure)),
        };
        let answer = self.owner.ask(|reply| command(request, reply)).await;
        let failed = |error: DriverError| Failure::new(FailureKind::Internal, error.to_string());
        control::answer::<M>(answer.map_err(failed))
    }
}
