//! A volume plugin: the trait of its driver, and the service in front of it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use drover_http::{Request, Response, Service};
use drover_plugin_protocol::Empty;
use drover_plugin_protocol::volume::{
    Capabilities, CapabilitiesAnswer, Create, GetAnswer, INTERFACE, ListAnswer, Method, Mount,
    MountAnswer, Named,
};

use crate::DriverError;
use crate::call::{self, Call};
use crate::socket::{self, Destination};

/// How long a call that reads may take.
const READING: Duration = Duration::from_secs(10);
/// How long a creation, a mount or a removal may take. Engines give up after 120 s, 60 s for a removal, and send
/// nothing afterwards: a driver hears of it by [`VolumeDriver::overdue`].
const CHANGING: Duration = Duration::from_secs(110);
const REMOVING: Duration = Duration::from_secs(50);

/// What a volume plugin does. Calls come in parallel.
///
/// An engine that is told of any failure by `get` forgets the volume and starts its container on a new, empty one of its
/// own. So `get` fails for what was never created and for nothing else, and waits for nothing.
pub trait VolumeDriver: Send + Sync + 'static {
    /// A new engine process has begun to use the plugin. Must return at once.
    fn activated(&self) {}

    /// Creates a volume; one that is there already is no fault.
    fn create(&self, request: Create) -> impl Future<Output = Result<Empty, DriverError>> + Send;

    /// Tells what a volume is. Must not wait for anything.
    fn get(&self, request: Named) -> impl Future<Output = Result<GetAnswer, DriverError>> + Send;

    /// Tells what every volume is. Must not wait for anything.
    fn list(&self) -> impl Future<Output = Result<ListAnswer, DriverError>> + Send;

    /// Attaches a volume for a container.
    fn mount(
        &self,
        request: Mount,
    ) -> impl Future<Output = Result<MountAnswer, DriverError>> + Send;

    /// A container does not use it any more. A failure is shown to nobody, and the call is never repeated.
    fn unmount(&self, request: Mount) -> impl Future<Output = Result<Empty, DriverError>> + Send;

    /// Tells where a volume is mounted.
    fn path(&self, request: Named)
    -> impl Future<Output = Result<MountAnswer, DriverError>> + Send;

    /// Removes a volume, whatever holds there may be on it.
    fn remove(&self, request: Named) -> impl Future<Output = Result<Empty, DriverError>> + Send;

    /// A mount took so long that the engine has given up, and will not undo it.
    fn overdue(&self, request: Mount) -> impl Future<Output = ()> + Send;
}

/// The service of a volume plugin. `X` answers the plugin's own methods.
#[derive(Debug)]
pub struct VolumeService<D, X> {
    driver: Arc<D>,
    own_methods: X,
    mounting: Duration,
}

impl<D: VolumeDriver, X: Service> VolumeService<D, X> {
    /// Puts a driver, and the plugin's own methods, behind a socket.
    #[must_use]
    pub fn new(driver: Arc<D>, own_methods: X) -> Self {
        Self {
            driver,
            own_methods,
            mounting: CHANGING,
        }
    }

    /// Sets how long a mount may take; 110 seconds otherwise.
    #[must_use]
    pub fn with_mount_limit(self, mounting: Duration) -> Self {
        Self { mounting, ..self }
    }

    const fn limit(&self, method: Method) -> Duration {
        match method {
            Method::Create => CHANGING,
            Method::Mount => self.mounting,
            Method::Remove => REMOVING,
            _ => READING,
        }
    }

    async fn dispatch(&self, request: Request) -> Response {
        let Some(method) = Method::from_path(&request.path) else {
            return socket::unknown(INTERFACE, &request.path);
        };
        let call = Call {
            driver: self.driver.clone(),
            method: method.name(),
            body: request.body,
            limit: self.limit(method),
        };
        match method {
            Method::Capabilities => call.without_request(capabilities).await,
            Method::Create => {
                call.with_request(|driver, it| async move { driver.create(it).await })
                    .await
            }
            Method::Get => {
                call.with_request(|driver, it| async move { driver.get(it).await })
                    .await
            }
            Method::List => {
                call.without_request(|driver| async move { driver.list().await })
                    .await
            }
            Method::Mount => {
                let limit = call.limit;
                call.with_request(move |driver, it| mount(driver, it, limit))
                    .await
            }
            Method::Unmount => {
                call.with_request(|driver, it| async move { driver.unmount(it).await })
                    .await
            }
            Method::Path => {
                call.with_request(|driver, it| async move { driver.path(it).await })
                    .await
            }
            Method::Remove => {
                call.with_request(|driver, it| async move { driver.remove(it).await })
                    .await
            }
        }
    }
}

/// The same for every driver, and asked before anything else.
async fn capabilities<D: VolumeDriver>(_driver: Arc<D>) -> Result<CapabilitiesAnswer, DriverError> {
    let scope = "local".to_owned();
    Ok(CapabilitiesAnswer {
        capabilities: Capabilities { scope },
    })
}

/// A mount that ends after nobody waits for it any more is undone.
async fn mount<D: VolumeDriver>(
    driver: Arc<D>,
    request: Mount,
    limit: Duration,
) -> Result<MountAnswer, DriverError> {
    let began = tokio::time::Instant::now();
    let outcome = driver.mount(request.clone()).await;
    if outcome.is_ok() && began.elapsed() >= limit {
        driver.overdue(request).await;
    }
    outcome
}

impl<D: VolumeDriver, X: Service> Service for VolumeService<D, X> {
    async fn call(&self, request: Request) -> Response {
        match Destination::of(&request.path) {
            Destination::Handshake => {
                self.driver.activated();
                call::activation(INTERFACE)
            }
            Destination::Own => self.own_methods.call(request).await,
            Destination::Driver => self.dispatch(request).await,
        }
    }

    fn refuse(&self, status: u16, reason: &str) -> Response {
        call::failure(status, reason)
    }
}
