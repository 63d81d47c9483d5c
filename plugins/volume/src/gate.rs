//! Keeps the engine waiting for what it must not be refused.
//!
//! An engine that is told of any failure of `Get` forgets the volume and starts its container on a new, empty one. One that gets
//! no answer says so, and starts nothing. So nothing is answered while it is not known which volumes there are; nor to a `Get` that
//! comes without its body, as an engine sends it when the connection was cut in the middle of the first one. A new volume is not
//! waited for in vain: where there is no place for one, that is said; and where there was never a volume, and there is nothing of a
//! pool, nothing waits for a place that cannot be opened.

use std::sync::Arc;
use std::time::Duration;

use drover_http::{Request, Response, Service};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use crate::catalogue::Catalogue;
use crate::pools::Pools;

/// What the paths of calls begin with that are about volumes.
const VOLUMES: &str = "/VolumeDriver.";
/// Asked before anything else, and the same for every driver.
const CAPABILITIES: &str = "/VolumeDriver.Capabilities";

const CREATE: &str = "/VolumeDriver.Create";
const GET: &str = "/VolumeDriver.Get";
/// Longer than engines wait for a `Get`, which is 60 s.
const LONGER: Duration = Duration::from_secs(70);

/// A service whose calls about volumes wait until `known` is true.
pub(crate) struct Gate<S> {
    service: S,
    known: watch::Receiver<bool>,
    /// There was never a volume.
    never_had_any: bool,
    pools: Arc<Pools>,
}

impl<S> Gate<S> {
    pub(crate) fn new(service: S, catalogue: &Catalogue, pools: Arc<Pools>) -> Self {
        Self {
            service,
            known: catalogue.known(),
            never_had_any: catalogue.never_had_any(),
            pools,
        }
    }
}

impl<S: Service> Service for Gate<S> {
    async fn call(&self, request: Request) -> Response {
        if request.path.starts_with(VOLUMES) && request.path != CAPABILITIES {
            let mut known = self.known.clone();
            // Each arm is cancel-safe. With the sender gone the process ends.
            tokio::select! {
                biased;
                _ = known.wait_for(|known| *known) => {}
                sentence = self.pools.failed(false), if request.path == CREATE => {
                    return self.service.refuse(500, &sentence);
                }
                _ = self.pools.failed(true), if self.never_had_any => {}
            }
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

#[cfg(test)]
mod tests {
    use drover_daemon::Settings;
    use drover_http::{Method, PeerIdentity};

    use super::*;
    use crate::pools::Making;

    struct Answering;

    impl Service for Answering {
        async fn call(&self, _: Request) -> Response {
            Response::not_found("asked")
        }

        fn refuse(&self, _: u16, reason: &str) -> Response {
            Response::not_found(reason)
        }
    }

    #[tokio::test]
    async fn a_new_volume_without_a_place_is_refused_at_once_and_a_question_waits() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            state_dir: folder.path().to_owned(),
            ..Settings::default()
        };
        settings.volumes.path = Some(folder.path().join("not-there"));
        let pools = Arc::new(Pools::new(&settings));
        pools.open(&[], Making::Later);
        let (sender, known) = watch::channel(false);
        let mut gate = Gate {
            service: Answering,
            known,
            never_had_any: false,
            pools,
        };
        let call = async |gate: &Gate<_>, path: &str| {
            let request = Request {
                method: Method::POST,
                path: path.to_owned(),
                query: None,
                body: "{}".into(),
                peer: PeerIdentity::default(),
            };
            gate.call(request).await
        };
        let refused = call(&gate, CREATE).await;
        let text = format!("{refused:?}");
        assert!(text.contains("not-there"), "{text}");
        let waiting = tokio::time::timeout(Duration::from_millis(50), call(&gate, GET)).await;
        assert!(waiting.is_err(), "a question was answered");
        // Where there was never a volume, there is none to be forgotten.
        gate.never_had_any = true;
        let text = format!("{:?}", call(&gate, GET).await);
        assert!(text.contains("asked"), "{text}");
        // But for those of a pool that cannot be opened.
        std::fs::create_dir_all(folder.path().join("volumes/btrfs/volumes")).unwrap();
        gate.pools.open(&[], Making::Later);
        let waiting = tokio::time::timeout(Duration::from_millis(50), call(&gate, GET)).await;
        assert!(waiting.is_err(), "a question was answered");
        let text = format!("{:?}", call(&gate, CREATE).await);
        assert!(text.contains("not-there"), "{text}");
        sender.send_replace(true);
        let text = format!("{:?}", call(&gate, CREATE).await);
        assert!(text.contains("asked"), "{text}");
    }
}
