//! Keeps the engine waiting for what it must not be refused.
//!
//! An engine that is told of any failure of `Get` forgets the volume and starts its container on a new, empty one. One that gets
//! no answer says so, and starts nothing. So nothing is answered while it is not known which volumes there are; nor to a `Get` that
//! comes without its body, as an engine sends it when the connection was cut in the middle of the first one.

use std::time::Duration;

use drover_http::{Request, Response, Service};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

/// What the paths of calls begin with that are about volumes.
const VOLUMES: &str = "/VolumeDriver.";
/// Asked before anything else, and the same for every driver.
const CAPABILITIES: &str = "/VolumeDriver.Capabilities";

const GET: &str = "/VolumeDriver.Get";
/// Longer than engines wait for a `Get`, which is 60 s.
const LONGER: Duration = Duration::from_secs(70);

/// A service whose calls about volumes wait until `known` is true.
pub(crate) struct Gate<S> {
    service: S,
    known: watch::Receiver<bool>,
}

impl<S> Gate<S> {
    pub(crate) const fn new(service: S, known: watch::Receiver<bool>) -> Self {
        Self { service, known }
    }
}

impl<S: Service> Service for Gate<S> {
    async fn call(&self, request: Request) -> Response {
        if request.path.starts_with(VOLUMES) && request.path != CAPABILITIES {
            let mut known = self.known.clone();
            // With the sender gone the process ends.
            drop(known.wait_for(|known| *known).await);
        }
        if request.path == GET && request.body.iter().all(u8::is_ascii_whitespace) {
            warn!("a question for a volume came without its name, and gets no answer");
            sleep(LONGER).await;
        }
        self.service.call(request).await
    }

    fn refuse(&self, status: u16, reason: &str) -> Response {
        self.service.refuse(status, reason)
    }
}
