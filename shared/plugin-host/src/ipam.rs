//! An IPAM plugin: the trait of its driver, and the service in front of it.

use std::future::Future;

use drover_http::Response;
use drover_plugin_protocol::Empty;
use drover_plugin_protocol::ipam::{
    AddressAnswer, AddressSpaces, Capabilities, INTERFACE, Method, PoolAnswer, ReleaseAddress,
    ReleasePool, RequestAddress, RequestPool,
};

use crate::DriverError;
use crate::call::{Call, answer};
use crate::service::{Interface, PluginService};

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

/// The interface of an IPAM plugin.
#[derive(Debug)]
pub struct Ipam;

/// The service of an IPAM plugin. `X` answers the plugin's own methods.
pub type IpamService<D, X> = PluginService<Ipam, D, X>;

impl<D: IpamDriver> Interface<D> for Ipam {
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
            Method::GetDefaultAddressSpaces => answer!(call -> get_default_address_spaces),
            Method::RequestPool => answer!(call => request_pool),
            Method::ReleasePool => answer!(call => release_pool),
            Method::RequestAddress => answer!(call => request_address),
            Method::ReleaseAddress => answer!(call => release_address),
        }
    }
}
