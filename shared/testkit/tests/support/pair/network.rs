//! The network plugin of a pair.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

use drover_plugin_host::NetworkDriver;
use drover_plugin_protocol::Empty;
use drover_plugin_protocol::network::{
    Capabilities, CreateEndpoint, CreateEndpointAnswer, CreateNetwork, DeleteNetwork,
    EndpointInformation, EndpointInterface, EndpointReference, InterfaceName, Join, JoinAnswer,
    ProgramExternalConnectivity, Scope, StaticRoute,
};
use ipnet::IpNet;

use super::{Answer, Flaw, refused};

#[derive(Default)]
struct State {
    /// Whether a network is internal.
    networks: BTreeMap<String, bool>,
    endpoints: BTreeMap<String, Option<IpNet>>,
    programmed: BTreeSet<String>,
    ports: BTreeSet<u16>,
}

pub(super) struct MemoryNetwork {
    flaw: Option<Flaw>,
    state: Mutex<State>,
}

impl MemoryNetwork {
    pub(super) fn new(flaw: Option<Flaw>) -> Self {
        Self {
            flaw,
            state: Mutex::default(),
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
}

impl NetworkDriver for MemoryNetwork {
    async fn get_capabilities(&self) -> Answer<Capabilities> {
        let (scope, connectivity_scope) = (Scope::Local, Scope::Global);
        Ok(Capabilities {
            scope,
            connectivity_scope,
            gw_alloc_checker: true,
        })
    }

    async fn create_network(&self, request: CreateNetwork) -> Answer<Empty> {
        for (name, value) in &request.options.generic {
            let mtu = name == "com.docker.network.driver.mtu"
                && value.parse::<u16>().is_ok_and(|mtu| mtu >= 68);
            if !mtu && !self.has(Flaw::AnyOption) {
                return refused(format!("option `{name}={value}` is not known"));
            }
        }
        let id = request.network_id.as_str().to_owned();
        self.state
            .lock()
            .unwrap()
            .networks
            .insert(id, request.options.internal);
        Ok(Empty {})
    }

    async fn delete_network(&self, request: DeleteNetwork) -> Answer<Empty> {
        self.state
            .lock()
            .unwrap()
            .networks
            .remove(request.network_id.as_str());
        Ok(Empty {})
    }

    async fn create_endpoint(&self, request: CreateEndpoint) -> Answer<CreateEndpointAnswer> {
        let mut state = self.state.lock().unwrap();
        if !state.networks.contains_key(request.network_id.as_str()) {
            return refused(format!("network `{}` is not known", request.network_id));
        }
        let address = request.interface.address;
        if self.has(Flaw::OldEndpointWins) && state.endpoints.values().any(|it| *it == address) {
            return refused("the address is in use");
        }
        for binding in &request.options.port_map {
            if !state.ports.insert(binding.host_port) && self.has(Flaw::TakesPorts) {
                return refused("the port is in use");
            }
        }
        state
            .endpoints
            .insert(request.endpoint_id.as_str().to_owned(), address);
        let settled = request.interface.mac_address.is_some() || self.has(Flaw::NoMac);
        let mac_address = if settled {
            None
        } else {
            "02:42:00:00:00:01".parse().ok()
        };
        let interface = EndpointInterface {
            mac_address,
            ..EndpointInterface::default()
        };
        Ok(CreateEndpointAnswer { interface })
    }

    async fn delete_endpoint(&self, request: EndpointReference) -> Answer<Empty> {
        let mut state = self.state.lock().unwrap();
        let id = request.endpoint_id.as_str();
        let known = state.endpoints.contains_key(id);
        if !self.has(Flaw::RemembersEndpoints) {
            state.endpoints.remove(id);
        }
        if !known && self.has(Flaw::RefusesTheUnknown) {
            return refused("there is no such endpoint");
        }
        Ok(Empty {})
    }

    async fn join(&self, request: Join) -> Answer<JoinAnswer> {
        let state = self.state.lock().unwrap();
        if !state.endpoints.contains_key(request.endpoint_id.as_str()) {
            return refused(format!("endpoint `{}` is not known", request.endpoint_id));
        }
        if self.has(Flaw::NeedsSandbox) && !Path::new(&request.sandbox_key).exists() {
            return refused(format!("there is no `{}`", request.sandbox_key));
        }
        let internal = state.networks.get(request.network_id.as_str()).copied();
        let src_name = request.endpoint_id.sandbox_link();
        let off_link = "172.31.255.1".parse().ok();
        Ok(JoinAnswer {
            interface_name: InterfaceName {
                src_name,
                dst_prefix: "eth".to_owned(),
            },
            gateway: off_link.filter(|_| self.has(Flaw::GatewayOffLink)),
            gateway_ipv6: None,
            static_routes: vec![StaticRoute::connected("10.0.0.0/8".parse().unwrap())],
            disable_gateway_service: internal.unwrap_or_default()
                && !self.has(Flaw::InternalLikeOthers),
        })
    }

    async fn leave(&self, _: EndpointReference) -> Answer<Empty> {
        Ok(Empty {})
    }

    async fn program_external_connectivity(
        &self,
        request: ProgramExternalConnectivity,
    ) -> Answer<Empty> {
        let id = request.endpoint_id.as_str().to_owned();
        let first = self.state.lock().unwrap().programmed.insert(id);
        if !first && self.has(Flaw::ProgramsOnce) {
            return refused("the endpoint is programmed");
        }
        Ok(Empty {})
    }

    async fn revoke_external_connectivity(&self, request: EndpointReference) -> Answer<Empty> {
        self.state
            .lock()
            .unwrap()
            .programmed
            .remove(request.endpoint_id.as_str());
        Ok(Empty {})
    }

    async fn endpoint_oper_info(&self, _: EndpointReference) -> Answer<EndpointInformation> {
        Ok(EndpointInformation::default())
    }
}
