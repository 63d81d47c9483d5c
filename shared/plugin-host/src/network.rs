//! A network plugin: the trait of its driver, and the service in front of it.

use std::future::Future;

use drover_http::Response;
use drover_plugin_protocol::Empty;
use drover_plugin_protocol::network::{
    Capabilities, CreateEndpoint, CreateEndpointAnswer, CreateNetwork, DeleteNetwork,
    EndpointInformation, EndpointReference, GwAllocCheck, INTERFACE, Join, JoinAnswer, Method,
    ProgramExternalConnectivity, SkipGateways,
};

use crate::DriverError;
use crate::call::{Call, answer};
use crate::service::{Interface, PluginService};

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

/// The interface of a network plugin.
#[derive(Debug)]
pub struct Network;

/// The service of a network plugin. `X` answers the plugin's own methods.
pub type NetworkService<D, X> = PluginService<Network, D, X>;

impl<D: NetworkDriver> Interface<D> for Network {
    const NAME: &'static str = INTERFACE;
    type Method = Method;

    fn method(path: &str) -> Option<(Method, &'static str)> {
        Method::from_path(path).map(|method| (method, method.name()))
    }

    fn activated(driver: &D) {
        driver.activated();
    }

    async fn run(method: Method, call: Call<D>) -> Response {
        match method {
            Method::GetCapabilities => answer!(call -> get_capabilities),
            Method::GwAllocCheck => answer!(call => gw_alloc_check),
            Method::CreateNetwork => answer!(call => create_network),
            Method::DeleteNetwork => answer!(call => delete_network),
            Method::CreateEndpoint => answer!(call => create_endpoint),
            Method::DeleteEndpoint => answer!(call => delete_endpoint),
            Method::Join => answer!(call => join),
            Method::Leave => answer!(call => leave),
            Method::ProgramExternalConnectivity => answer!(call => program_external_connectivity),
            Method::RevokeExternalConnectivity => answer!(call => revoke_external_connectivity),
            Method::EndpointOperInfo => answer!(call => endpoint_oper_info),
        }
    }
}
