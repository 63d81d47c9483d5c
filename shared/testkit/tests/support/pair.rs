//! A network and an IPAM plugin that keep everything in memory, behind sockets in a directory of their own.
//!
//! They do by the protocol what can be done without a kernel, so that the checks, and the fake engine,
//! are tested themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use drover_http::{Limits, serve};
use drover_plugin_host::{
    DriverError, IpamDriver, IpamService, NetworkDriver, NetworkService, NoMethods,
};
use drover_plugin_protocol::Empty;
use drover_plugin_protocol::ipam::{
    self, AddressAnswer, AddressSpaces, PoolAnswer, ReleaseAddress, ReleasePool, RequestAddress,
    RequestPool,
};
use drover_plugin_protocol::network::{
    self, CreateEndpoint, CreateEndpointAnswer, CreateNetwork, DeleteNetwork, EndpointInformation,
    EndpointInterface, EndpointReference, InterfaceName, Join, JoinAnswer,
    ProgramExternalConnectivity, Scope, StaticRoute,
};
use ipnet::IpNet;
use tokio::net::UnixListener;
use tokio::sync::watch;

type Answer<T> = Result<T, DriverError>;

fn refused<T>(sentence: impl Into<String>) -> Answer<T> {
    Err(DriverError::new(sentence))
}

struct PoolState {
    prefix: IpNet,
    range: IpNet,
    used: BTreeSet<IpAddr>,
}

#[derive(Default)]
struct MemoryIpam(Mutex<BTreeMap<String, PoolState>>);

impl IpamDriver for MemoryIpam {
    async fn get_capabilities(&self) -> Answer<ipam::Capabilities> {
        Ok(ipam::Capabilities {
            requires_mac_address: true,
            requires_request_replay: false,
        })
    }

    async fn get_default_address_spaces(&self) -> Answer<AddressSpaces> {
        Ok(AddressSpaces {
            local_default: "m".to_owned(),
            global_default: "m".to_owned(),
        })
    }

    async fn request_pool(&self, request: RequestPool) -> Answer<PoolAnswer> {
        let mut pools = self.0.lock().unwrap();
        let taken = |prefix: IpNet| {
            let overlap = |pool: &PoolState| {
                pool.prefix.contains(&prefix.network()) || prefix.contains(&pool.prefix.network())
            };
            pools.values().any(overlap)
        };
        let automatic = || {
            let candidates = (64..128).map(|part| format!("10.{part}.0.0/16").parse().unwrap());
            candidates
                .into_iter()
                .find(|prefix| !taken(*prefix))
                .unwrap()
        };
        let prefix = request.pool.unwrap_or_else(automatic);
        if prefix.addr() != prefix.network() || prefix.network().is_loopback() || taken(prefix) {
            return refused(format!(
                "subnet {prefix} is taken or cannot be had; use another"
            ));
        }
        let (range, used) = (request.sub_pool.unwrap_or(prefix), BTreeSet::new());
        pools.insert(
            prefix.to_string(),
            PoolState {
                prefix,
                range,
                used,
            },
        );
        Ok(PoolAnswer {
            pool_id: prefix.to_string(),
            pool: prefix,
            data: BTreeMap::new(),
        })
    }

    async fn release_pool(&self, request: ReleasePool) -> Answer<Empty> {
        self.0.lock().unwrap().remove(&request.pool_id);
        Ok(Empty {})
    }

    async fn request_address(&self, request: RequestAddress) -> Answer<AddressAnswer> {
        let mut pools = self.0.lock().unwrap();
        let Some(pool) = pools.get_mut(&request.pool_id) else {
            return refused(format!("pool `{}` is not known", request.pool_id));
        };
        let free = pool.range.hosts().find(|it| !pool.used.contains(it));
        let Some(address) = request.address.or(free) else {
            return refused("the pool is full");
        };
        if !pool.prefix.contains(&address) || !pool.used.insert(address) {
            return refused(format!("address {address} cannot be had"));
        }
        let address = IpNet::new(address, pool.prefix.prefix_len()).unwrap();
        Ok(AddressAnswer {
            address,
            data: BTreeMap::new(),
        })
    }

    async fn release_address(&self, request: ReleaseAddress) -> Answer<Empty> {
        if let Some(pool) = self.0.lock().unwrap().get_mut(&request.pool_id) {
            pool.used.remove(&request.address);
        }
        Ok(Empty {})
    }
}

#[derive(Default)]
struct Networks {
    networks: BTreeMap<String, bool>,
    endpoints: BTreeMap<String, EndpointReference>,
}

#[derive(Default)]
struct MemoryNetwork(Mutex<Networks>);

impl NetworkDriver for MemoryNetwork {
    async fn get_capabilities(&self) -> Answer<network::Capabilities> {
        let (scope, connectivity_scope) = (Scope::Local, Scope::Global);
        Ok(network::Capabilities {
            scope,
            connectivity_scope,
            gw_alloc_checker: true,
        })
    }

    async fn create_network(&self, request: CreateNetwork) -> Answer<Empty> {
        for (name, value) in &request.options.generic {
            let mtu = name == "com.docker.network.driver.mtu";
            if !mtu || !value.parse::<u16>().is_ok_and(|mtu| mtu >= 68) {
                return refused(format!("option `{name}={value}` is not known"));
            }
        }
        let mut state = self.0.lock().unwrap();
        let id = request.network_id.as_str().to_owned();
        state.networks.insert(id, request.options.internal);
        Ok(Empty {})
    }

    async fn delete_network(&self, request: DeleteNetwork) -> Answer<Empty> {
        self.0
            .lock()
            .unwrap()
            .networks
            .remove(request.network_id.as_str());
        Ok(Empty {})
    }

    async fn create_endpoint(&self, request: CreateEndpoint) -> Answer<CreateEndpointAnswer> {
        let mut state = self.0.lock().unwrap();
        let (network_id, endpoint_id) = (request.network_id, request.endpoint_id);
        if !state.networks.contains_key(network_id.as_str()) {
            return refused(format!("network `{network_id}` is not known"));
        }
        let key = endpoint_id.as_str().to_owned();
        state.endpoints.insert(
            key,
            EndpointReference {
                network_id,
                endpoint_id,
            },
        );
        let made = "02:42:00:00:00:01".parse().ok();
        let mac_address = if request.interface.mac_address.is_some() {
            None
        } else {
            made
        };
        let interface = EndpointInterface {
            mac_address,
            ..EndpointInterface::default()
        };
        Ok(CreateEndpointAnswer { interface })
    }

    async fn delete_endpoint(&self, request: EndpointReference) -> Answer<Empty> {
        self.0
            .lock()
            .unwrap()
            .endpoints
            .remove(request.endpoint_id.as_str());
        Ok(Empty {})
    }

    async fn join(&self, request: Join) -> Answer<JoinAnswer> {
        let state = self.0.lock().unwrap();
        if !state.endpoints.contains_key(request.endpoint_id.as_str()) {
            return refused(format!("endpoint `{}` is not known", request.endpoint_id));
        }
        let internal = state.networks.get(request.network_id.as_str()).copied();
        let src_name = request.endpoint_id.sandbox_link();
        Ok(JoinAnswer {
            interface_name: InterfaceName {
                src_name,
                dst_prefix: "eth".to_owned(),
            },
            gateway: None,
            gateway_ipv6: None,
            static_routes: vec![StaticRoute::connected("10.0.0.0/8".parse().unwrap())],
            disable_gateway_service: internal.unwrap_or_default(),
        })
    }

    async fn leave(&self, _: EndpointReference) -> Answer<Empty> {
        Ok(Empty {})
    }

    async fn program_external_connectivity(&self, _: ProgramExternalConnectivity) -> Answer<Empty> {
        Ok(Empty {})
    }

    async fn revoke_external_connectivity(&self, _: EndpointReference) -> Answer<Empty> {
        Ok(Empty {})
    }

    async fn endpoint_oper_info(&self, _: EndpointReference) -> Answer<EndpointInformation> {
        Ok(EndpointInformation::default())
    }
}

/// Both plugins, served by a thread of their own until dropped.
pub(crate) struct Pair {
    pub(crate) network: PathBuf,
    pub(crate) ipam: PathBuf,
    stop: watch::Sender<bool>,
    server: Option<thread::JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Pair {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (network, ipam) = (
            directory.path().join("net.sock"),
            directory.path().join("ipam.sock"),
        );
        let (stop, stopped) = watch::channel(false);
        let (sockets, (ready, bound)) =
            ((network.clone(), ipam.clone()), std::sync::mpsc::channel());
        let server = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let network = UnixListener::bind(sockets.0).unwrap();
                let ipam = UnixListener::bind(sockets.1).unwrap();
                ready.send(()).unwrap();
                let network_service =
                    NetworkService::new(Arc::<MemoryNetwork>::default(), NoMethods);
                let ipam_service = IpamService::new(Arc::<MemoryIpam>::default(), NoMethods);
                let limits = Limits::default();
                tokio::join!(
                    serve(network, Arc::new(network_service), limits, stopped.clone()),
                    serve(ipam, Arc::new(ipam_service), limits, stopped),
                );
            });
        });
        bound.recv().unwrap();
        Self {
            network,
            ipam,
            stop,
            server: Some(server),
            _directory: directory,
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }
}
