//! An IPAM plugin: the trait of its driver, and the service in front of it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use drover_http::{Request, Response, Service};
use drover_plugin_protocol::Empty;
use drover_plugin_protocol::ipam::{
    AddressAnswer, AddressSpaces, Capabilities, INTERFACE, Method, PoolAnswer, ReleaseAddress,
    ReleasePool, RequestAddress, RequestPool,
};

use crate::DriverError;
use crate::call::{self, Call};
use crate::socket::{self, Destination};

/// What an IPAM plugin does. Calls come in parallel; a release is never repeated and its failure is
/// shown to nobody, so it succeeds for what is unknown, and an engine that crashed sends none.
pub trait IpamDriver: Send + Sync + 'static {
    /// A new engine process has begun to use the plugin. Must return at once.
    fn activated(&self) {}

    /// What the driver is. Asked once a process of the engine; must not wait for anything.
    fn get_capabilities(&self) -> impl Future<Output = Result<Capabilities, DriverError>> + Send;

    /// The names of its address spaces. Must not wait for anything.
    fn get_default_address_spaces(
        &self,
    ) -> impl Future<Output = Result<AddressSpaces, DriverError>> + Send;

    /// Gives out a pool.
    fn request_pool(
        &self,
        request: RequestPool,
    ) -> impl Future<Output = Result<PoolAnswer, DriverError>> + Send;

    /// Takes a pool back.
    fn release_pool(
        &self,
        request: ReleasePool,
    ) -> impl Future<Output = Result<Empty, DriverError>> + Send;

    /// Gives out an address.
    fn request_address(
        &self,
        request: RequestAddress,
    ) -> impl Future<Output = Result<AddressAnswer, DriverError>> + Send;

    /// Takes an address back.
    fn release_address(
        &self,
        request: ReleaseAddress,
    ) -> impl Future<Output = Result<Empty, DriverError>> + Send;
}

/// The service of an IPAM plugin. `X` answers the plugin's own methods.
#[derive(Debug)]
pub struct IpamService<D, X> {
    driver: Arc<D>,
    own_methods: X,
    limit: Duration,
}

impl<D: IpamDriver, X: Service> IpamService<D, X> {
    /// Puts a driver, and the plugin's own methods, behind a socket.
    #[must_use]
    pub fn new(driver: Arc<D>, own_methods: X) -> Self {
        Self {
            driver,
            own_methods,
            limit: call::LIMIT,
        }
    }

    /// Sets how long a call may take; ten seconds otherwise.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    async fn dispatch(&self, request: Request) -> Response {
        let Some(method) = Method::from_path(&request.path) else {
            return socket::unknown(INTERFACE, &request.path);
        };
        let (driver, body, limit) = (self.driver.clone(), request.body, self.limit);
        let call = Call {
            driver,
            method: method.name(),
            body,
            limit,
        };
        match method {
            Method::GetCapabilities => {
                call.without_request(|driver| async move { driver.get_capabilities().await })
                    .await
            }
            Method::GetDefaultAddressSpaces => {
                let run = |driver: Arc<D>| async move { driver.get_default_address_spaces().await };
                call.without_request(run).await
            }
            Method::RequestPool => {
                call.with_request(|driver, it| async move { driver.request_pool(it).await })
                    .await
            }
            Method::ReleasePool => {
                call.with_request(|driver, it| async move { driver.release_pool(it).await })
                    .await
            }
            Method::RequestAddress => {
                call.with_request(|driver, it| async move { driver.request_address(it).await })
                    .await
            }
            Method::ReleaseAddress => {
                call.with_request(|driver, it| async move { driver.release_address(it).await })
                    .await
            }
        }
    }
}

impl<D: IpamDriver, X: Service> Service for IpamService<D, X> {
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
