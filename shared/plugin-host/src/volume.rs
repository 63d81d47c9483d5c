//! A volume plugin: the trait of its driver, and the service in front of it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use drover_http::Response;
use drover_plugin_protocol::Empty;
use drover_plugin_protocol::volume::{
    Capabilities, CapabilitiesAnswer, Create, GetAnswer, INTERFACE, ListAnswer, Method, Mount,
    MountAnswer, Named,
};

use crate::DriverError;
use crate::call::{Call, answer};
use crate::service::{Interface, PluginService};

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

/// The interface of a volume plugin.
#[derive(Debug)]
pub struct Volume;

/// The service of a volume plugin. `X` answers the plugin's own methods.
pub type VolumeService<D, X> = PluginService<Volume, D, X>;

impl<D: VolumeDriver> Interface<D> for Volume {
    const NAME: &'static str = INTERFACE;
    type Method = Method;

    fn method(path: &str) -> Option<(Method, &'static str)> {
        Method::from_path(path).map(|method| (method, method.name()))
    }

    fn limit(method: Method) -> Duration {
        match method {
            Method::Create | Method::Mount => CHANGING,
            Method::Remove => REMOVING,
            _ => READING,
        }
    }

    fn activated(driver: &D) {
        driver.activated();
    }

    async fn run(method: Method, call: Call<D>) -> Response {
        match method {
            Method::Capabilities => call.without_request(capabilities).await,
            Method::Create => answer!(call => create),
            Method::Get => answer!(call => get),
            Method::List => answer!(call -> list),
            Method::Mount => {
                let limit = call.limit;
                call.with_request(move |driver, it| mount(driver, it, limit))
                    .await
            }
            Method::Unmount => answer!(call => unmount),
            Method::Path => answer!(call => path),
            Method::Remove => answer!(call => remove),
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
