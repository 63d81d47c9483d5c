//! A network plugin: the trait of its driver, and the service in front of it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use drover_http::{Request, Response, Service};
use drover_plugin_protocol::Empty;
use drover_plugin_protocol::network::{
    Capabilities, CreateEndpoint, CreateEndpointAnswer, CreateNetwork, DeleteNetwork,
    EndpointInformation, EndpointReference, GwAllocCheck, INTERFACE, Join, JoinAnswer, Method,
    ProgramExternalConnectivity, SkipGateways,
};

use crate::DriverError;
use crate::call::{self, Call};
use crate::socket::{self, Destination};

/// What a network plugin does. Calls come in parallel, more than once, and for what is not there any more:
/// every teardown succeeds for something unknown, and is complete on its own.
pub trait NetworkDriver: Send + Sync + 'static {
    /// A new engine process has begun to use the plugin. Must return at once.
    fn activated(&self) {}

    /// What the driver is. Asked once a process of the engine; must not wait for anything.
    fn get_capabilities(&self) -> impl Future<Output = Result<Capabilities, DriverError>> + Send;

    /// Which families get no gateway. Only sent when the capabilities announce it.
    fn gw_alloc_check(
        &self,
        _request: GwAllocCheck,
    ) -> impl Future<Output = Result<SkipGateways, DriverError>> + Send {
        async { Ok(SkipGateways::default()) }
    }

    /// Makes a network on this host.
    fn create_network(
        &self,
        request: CreateNetwork,
    ) -> impl Future<Output = Result<Empty, DriverError>> + Send;

    /// Removes a network from this host.
    fn delete_network(
        &self,
        request: DeleteNetwork,
    ) -> impl Future<Output = Result<Empty, DriverError>> + Send;

    /// Makes an endpoint. After a failure nothing else comes for it.
    fn create_endpoint(
        &self,
        request: CreateEndpoint,
    ) -> impl Future<Output = Result<CreateEndpointAnswer, DriverError>> + Send;

    /// Removes an endpoint.
    fn delete_endpoint(
        &self,
        request: EndpointReference,
    ) -> impl Future<Output = Result<Empty, DriverError>> + Send;

    /// Hands the endpoint's link over. Must not assume that the sandbox exists.
    fn join(&self, request: Join) -> impl Future<Output = Result<JoinAnswer, DriverError>> + Send;

    /// Takes the endpoint's link back.
    fn leave(
        &self,
        request: EndpointReference,
    ) -> impl Future<Output = Result<Empty, DriverError>> + Send;

    /// Publishes the endpoint's ports.
    fn program_external_connectivity(
        &self,
        request: ProgramExternalConnectivity,
    ) -> impl Future<Output = Result<Empty, DriverError>> + Send;

    /// Publishes them no longer. Comes for endpoints that were never programmed, too.
    fn revoke_external_connectivity(
        &self,
        request: EndpointReference,
    ) -> impl Future<Output = Result<Empty, DriverError>> + Send;

    /// What there is to say of an endpoint. A failure prevents a start up to 27.x.
    fn endpoint_oper_info(
        &self,
        request: EndpointReference,
    ) -> impl Future<Output = Result<EndpointInformation, DriverError>> + Send;
}

/// The service of a network plugin. `X` answers the plugin's own methods.
#[derive(Debug)]
pub struct NetworkService<D, X> {
    driver: Arc<D>,
    own_methods: X,
    limit: Duration,
}

impl<D: NetworkDriver, X: Service> NetworkService<D, X> {
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
            Method::GwAllocCheck => {
                call.with_request(|driver, it| async move { driver.gw_alloc_check(it).await })
                    .await
            }
            Method::CreateNetwork => {
                call.with_request(|driver, it| async move { driver.create_network(it).await })
                    .await
            }
            Method::DeleteNetwork => {
                call.with_request(|driver, it| async move { driver.delete_network(it).await })
                    .await
            }
            endpoint => Self::dispatch_endpoint(endpoint, call).await,
        }
    }

    async fn dispatch_endpoint(method: Method, call: Call<D>) -> Response {
        match method {
            Method::CreateEndpoint => {
                call.with_request(|driver, it| async move { driver.create_endpoint(it).await })
                    .await
            }
            Method::DeleteEndpoint => {
                call.with_request(|driver, it| async move { driver.delete_endpoint(it).await })
                    .await
            }
            Method::Join => {
                call.with_request(|driver, it| async move { driver.join(it).await })
                    .await
            }
            Method::Leave => {
                call.with_request(|driver, it| async move { driver.leave(it).await })
                    .await
            }
            Method::ProgramExternalConnectivity => {
                let run = |driver: Arc<D>, it| async move {
                    driver.program_external_connectivity(it).await
                };
                call.with_request(run).await
            }
            Method::RevokeExternalConnectivity => {
                let run = |driver: Arc<D>, it| async move {
                    driver.revoke_external_connectivity(it).await
                };
                call.with_request(run).await
            }
            Method::EndpointOperInfo => {
                call.with_request(|driver, it| async move { driver.endpoint_oper_info(it).await })
                    .await
            }
            network => socket::unknown(INTERFACE, network.path()),
        }
    }
}

impl<D: NetworkDriver, X: Service> Service for NetworkService<D, X> {
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
