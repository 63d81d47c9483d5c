//! Docker's calls, checked and handed to the owner.

use std::collections::BTreeSet;
use std::time::Duration;

use drover_control_api::names::{AwaitSandbox, Awaited};
use drover_http::{Client, control};
use drover_model::{EndpointId, MacAddress, NetworkOptions, Pool};
use drover_plugin_host::{DriverError, NetworkDriver};
use drover_plugin_protocol::Empty;
use drover_plugin_protocol::network::{
    Capabilities, CreateEndpoint, CreateEndpointAnswer, CreateNetwork, DeleteNetwork,
    EndpointInformation, EndpointInterface, EndpointReference, IpamData, Join, JoinAnswer,
    ProgramExternalConnectivity, Scope,
};
use ipnet::IpNet;
use tracing::debug;

use crate::owner::{Command, Handle};
use crate::record::{Endpoint, Network, Subnet};

/// How long a container's start waits for the name service at most.
const NAMES_PATIENCE: Duration = Duration::from_millis(500);
/// What `drover-ipam` calls its address space.
const ADDRESS_SPACE: &str = "drover";

/// The driver.
#[derive(Debug)]
pub(crate) struct Driver {
    owner: Handle,
    names: Client,
}

impl Driver {
    /// A driver in front of an owner, which asks the name service whether a sandbox is served.
    pub(crate) const fn new(owner: Handle, names: Client) -> Self {
        Self { owner, names }
    }

    /// Waits for the name service to stand in a sandbox, so that it answers what the container's first process asks.
    async fn await_names(&self, sandbox: String) {
        let patience = u64::try_from(NAMES_PATIENCE.as_millis()).unwrap_or(u64::MAX);
        let request = AwaitSandbox { sandbox, patience };
        // Without a name service nobody waits.
        match control::call(&self.names, &request, 2 * NAMES_PATIENCE).await {
            Ok(Awaited { served }) => debug!(served, sandbox = request.sandbox, "names"),
            Err(error) => debug!(%error, "the name service does not tell"),
        }
    }
}

impl NetworkDriver for Driver {
    fn activated(&self) {
        self.owner.engine_started();
    }

    async fn get_capabilities(&self) -> Result<Capabilities, DriverError> {
        // Local, so that Swarm is not asked; the cluster is the coordinator's business.
        Ok(Capabilities {
            scope: Scope::Local,
            connectivity_scope: Scope::Global,
            gw_alloc_checker: false,
        })
    }

    async fn create_network(&self, request: CreateNetwork) -> Result<Empty, DriverError> {
        let network = read_network(&request)?;
        let id = request.network_id;
        self.owner
            .ask(|reply| Command::CreateNetwork(id, network, reply))
            .await?;
        Ok(Empty {})
    }

    async fn delete_network(&self, request: DeleteNetwork) -> Result<Empty, DriverError> {
        self.owner
            .ask(|reply| Command::DeleteNetwork(request.network_id, reply))
            .await?;
        Ok(Empty {})
    }

    async fn create_endpoint(
        &self,
        request: CreateEndpoint,
    ) -> Result<CreateEndpointAnswer, DriverError> {
        let given = &request.interface;
        let mac = given
            .mac_address
            .unwrap_or_else(|| own_mac(&request.endpoint_id));
        let endpoint = Endpoint {
            version: 1,
            network: request.network_id,
            mac,
            addresses: [given.address, given.address_ipv6]
                .into_iter()
                .flatten()
                .collect(),
            joined: None,
        };
        // Only what was not given may be in the answer.
        let chosen = given.mac_address.is_none().then_some(mac);
        let interface = EndpointInterface {
            mac_address: chosen,
            ..EndpointInterface::default()
        };
        let id = request.endpoint_id;
        self.owner
            .ask(|reply| Command::CreateEndpoint(id, endpoint, reply))
            .await?;
        Ok(CreateEndpointAnswer { interface })
    }

    async fn delete_endpoint(&self, request: EndpointReference) -> Result<Empty, DriverError> {
        self.owner
            .ask(|reply| Command::DeleteEndpoint(request.endpoint_id, reply))
            .await?;
        Ok(Empty {})
    }

    async fn join(&self, request: Join) -> Result<JoinAnswer, DriverError> {
        let (id, sandbox) = (request.endpoint_id, request.sandbox_key);
        self.owner
            .ask(|reply| Command::Join(id, sandbox, reply))
            .await
    }

    async fn leave(&self, request: EndpointReference) -> Result<Empty, DriverError> {
        self.owner
            .ask(|reply| Command::Leave(request.endpoint_id, reply))
            .await?;
        Ok(Empty {})
    }

    /// Ports are published by Docker itself, on `docker_gwbridge`.
    async fn program_external_connectivity(
        &self,
        _request: ProgramExternalConnectivity,
    ) -> Result<Empty, DriverError> {
        Ok(Empty {})
    }

    async fn revoke_external_connectivity(
        &self,
        _request: EndpointReference,
    ) -> Result<Empty, DriverError> {
        Ok(Empty {})
    }

    /// The last call before the container's process runs; from Engine 28 on, addresses are in the sandbox by then.
    async fn endpoint_oper_info(
        &self,
        request: EndpointReference,
    ) -> Result<EndpointInformation, DriverError> {
        let id = request.endpoint_id;
        let sandbox = self.owner.ask(|reply| Command::SandboxOf(id, reply));
        if let Ok(Some(sandbox)) = sandbox.await {
            self.await_names(sandbox).await;
        }
        Ok(EndpointInformation::default())
    }
}

/// Checks what Docker says of a network.
fn read_network(request: &CreateNetwork) -> Result<Network, DriverError> {
    let options = NetworkOptions::parse(&request.options.generic);
    let options = options.map_err(|error| DriverError::chain(&error))?;
    let subnets = request
        .pools()
        .map(read_subnet)
        .collect::<Result<Vec<_>, _>>()?;
    if subnets.is_empty() {
        return Err(DriverError::new(
            "the network has no subnet; give it one with `--subnet`",
        ));
    }
    let distinct: BTreeSet<_> = subnets.iter().map(|subnet| subnet.pool).collect();
    if distinct.len() != subnets.len() {
        return Err(DriverError::new(
            "the network has the same subnet twice; leave one of them out",
        ));
    }
    Ok(Network {
        version: 1,
        subnets,
        options,
        internal: request.options.internal,
    })
}

fn read_subnet(data: &IpamData) -> Result<Subnet, DriverError> {
    if data.address_space != ADDRESS_SPACE {
        return Err(DriverError::new(
            "a drover-net network gets its addresses from drover-ipam, so that no two hosts give the same: add `--ipam-driver drover-ipam` (Compose: `ipam: {driver: drover-ipam}`)",
        ));
    }
    let pool = Pool::new(data.pool).map_err(|error| DriverError::chain(&error))?;
    let gateway = data.gateway.map(|gateway: IpNet| gateway.addr());
    if let Some(outside) = gateway.filter(|gateway| !pool.contains(*gateway)) {
        return Err(DriverError::new(format!(
            "gateway `{outside}` is not in subnet `{pool}`; choose one that is"
        )));
    }
    Ok(Subnet { pool, gateway })
}

/// The link address of an endpoint for which Docker names none: locally administered, of its id.
fn own_mac(id: &EndpointId) -> MacAddress {
    let digits = id.as_str().get(..10).unwrap_or_default();
    let number = u64::from_str_radix(digits, 16).unwrap_or_default();
    let [_, _, _, a, b, c, d, e] = number.to_be_bytes();
    MacAddress::new([0x02, a, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(generic: serde_json::Value, data: serde_json::Value) -> Result<Network, String> {
        let request = serde_json::from_value(json!({
            "NetworkID": "a".repeat(64),
            "Options": {"com.docker.network.generic": generic},
            "IPv4Data": data,
            "IPv6Data": [],
        }));
        read_network(&request.unwrap()).map_err(|error| error.to_string())
    }

    fn pool(space: &str, pool: &str, gateway: &str) -> serde_json::Value {
        json!([{"AddressSpace": space, "Pool": pool, "Gateway": gateway}])
    }

    #[test]
    fn dockers_own_addresses_are_refused_with_the_flag() {
        let off = json!({"encryption": "off"});
        let refusal = read(
            off.clone(),
            pool("LocalDefault", "10.42.0.0/16", "10.42.0.1/16"),
        );
        assert!(refusal.unwrap_err().contains("--ipam-driver drover-ipam"));
        let refusal = read(
            off.clone(),
            json!([{"AddressSpace": "null", "Pool": "0.0.0.0/0"}]),
        );
        assert!(refusal.unwrap_err().contains("--ipam-driver drover-ipam"));
        let network = read(off, pool("drover", "10.42.0.0/16", "10.42.0.1/16")).unwrap();
        assert_eq!(network.subnets[0].gateway, "10.42.0.1".parse().ok());
    }

    #[test]
    fn what_is_wrong_with_a_network_is_named() {
        let wrong = |generic, data| read(generic, data).unwrap_err();
        let fine = || pool("drover", "10.42.0.0/16", "10.42.0.1/16");
        assert!(wrong(json!({"encryption": "sometimes"}), fine()).contains("`on` or `off`"));
        let misspelt = wrong(json!({"encryptoin": "off"}), fine());
        assert!(misspelt.contains("did you mean `encryption`"), "{misspelt}");
        let off = || json!({"encryption": "off"});
        assert!(wrong(off(), json!([])).contains("--subnet"));
        assert!(wrong(off(), pool("drover", "10.42.0.0/16", "10.43.0.1/16")).contains("10.43.0.1"));
        assert!(wrong(off(), pool("drover", "10.42.0.0/30", "10.42.0.1/30")).contains("too small"));
    }

    #[test]
    fn a_link_address_of_our_own_is_a_station_and_local() {
        let mac = own_mac(&"f".repeat(64).parse().unwrap());
        assert_eq!(mac.to_string(), "02:ff:ff:ff:ff:ff");
    }
}
