//! The services in front of drivers: handshake, missing bodies, limits, failures, parallel calls.
#![cfg(test)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use drover_http::{Body, Client, Limits, Method, PeerIdentity, Request, Response, Service, serve};
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
    EndpointReference, InterfaceName, Join, JoinAnswer, ProgramExternalConnectivity, Scope,
};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

/// A driver whose endpoint calls wait, fail and crash on demand.
struct Driver {
    activations: AtomicU32,
    began: Semaphore,
    go: Semaphore,
    ended: Semaphore,
}

impl Default for Driver {
    fn default() -> Self {
        let none = || Semaphore::new(0);
        Self {
            activations: AtomicU32::new(0),
            began: none(),
            go: none(),
            ended: none(),
        }
    }
}

impl NetworkDriver for Driver {
    fn activated(&self) {
        self.activations.fetch_add(1, Ordering::SeqCst);
    }

    async fn get_capabilities(&self) -> Result<network::Capabilities, DriverError> {
        let (scope, connectivity_scope) = (Scope::Local, Scope::Global);
        Ok(network::Capabilities {
            scope,
            connectivity_scope,
            gw_alloc_checker: false,
        })
    }

    async fn create_network(&self, request: CreateNetwork) -> Result<Empty, DriverError> {
        let name = request.network_id.short().to_owned();
        Err(DriverError::new(format!(
            "network `{name}` cannot be made here"
        )))
    }

    async fn delete_network(&self, _: DeleteNetwork) -> Result<Empty, DriverError> {
        Ok(Empty {})
    }

    async fn create_endpoint(
        &self,
        _: CreateEndpoint,
    ) -> Result<CreateEndpointAnswer, DriverError> {
        Ok(CreateEndpointAnswer::default())
    }

    async fn delete_endpoint(&self, _: EndpointReference) -> Result<Empty, DriverError> {
        panic!("a bug")
    }

    async fn join(&self, _: Join) -> Result<JoinAnswer, DriverError> {
        self.began.add_permits(1);
        self.go.acquire().await.unwrap().forget();
        self.ended.add_permits(1);
        let interface_name = InterfaceName {
            src_name: "a".into(),
            dst_prefix: "eth".into(),
        };
        Ok(JoinAnswer {
            interface_name,
            gateway: None,
            gateway_ipv6: None,
            static_routes: Vec::new(),
            disable_gateway_service: false,
        })
    }

    async fn leave(&self, _: EndpointReference) -> Result<Empty, DriverError> {
        Ok(Empty {})
    }

    async fn program_external_connectivity(
        &self,
        _: ProgramExternalConnectivity,
    ) -> Result<Empty, DriverError> {
        Ok(Empty {})
    }

    async fn revoke_external_connectivity(
        &self,
        _: EndpointReference,
    ) -> Result<Empty, DriverError> {
        Ok(Empty {})
    }

    async fn endpoint_oper_info(
        &self,
        _: EndpointReference,
    ) -> Result<EndpointInformation, DriverError> {
        Ok(EndpointInformation::default())
    }
}

impl IpamDriver for Driver {
    async fn get_capabilities(&self) -> Result<ipam::Capabilities, DriverError> {
        let (requires_mac_address, requires_request_replay) = (true, false);
        Ok(ipam::Capabilities {
            requires_mac_address,
            requires_request_replay,
        })
    }

    async fn get_default_address_spaces(&self) -> Result<AddressSpaces, DriverError> {
        Ok(AddressSpaces {
            local_default: "a".into(),
            global_default: "a".into(),
        })
    }

    async fn request_pool(&self, request: RequestPool) -> Result<PoolAnswer, DriverError> {
        let pool = request
            .pool
            .ok_or_else(|| DriverError::new("no pool is left"))?;
        Ok(PoolAnswer {
            pool_id: pool.to_string(),
            pool,
            data: Default::default(),
        })
    }

    async fn release_pool(&self, _: ReleasePool) -> Result<Empty, DriverError> {
        Ok(Empty {})
    }

    async fn request_address(&self, _: RequestAddress) -> Result<AddressAnswer, DriverError> {
        Ok(AddressAnswer {
            address: "10.0.0.2/24".parse().unwrap(),
            data: Default::default(),
        })
    }

    async fn release_address(&self, _: ReleaseAddress) -> Result<Empty, DriverError> {
        Ok(Empty {})
    }
}

fn request(path: &str, body: &str) -> Request {
    Request {
        method: Method::POST,
        path: path.to_owned(),
        query: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
        peer: PeerIdentity::default(),
    }
}

fn read(response: Response) -> (u16, Value) {
    let Body::Full(body) = response.body else {
        panic!("a stream")
    };
    (response.status, serde_json::from_slice(&body).unwrap())
}

async fn ask(service: &impl Service, path: &str, body: &str) -> (u16, Value) {
    read(service.call(request(path, body)).await)
}

fn network_service() -> (Arc<Driver>, NetworkService<Driver, NoMethods>) {
    let driver = Arc::new(Driver::default());
    (driver.clone(), NetworkService::new(driver, NoMethods))
}

fn endpoint() -> String {
    let id = "ab".repeat(32);
    json!({"NetworkID": id, "EndpointID": id, "SandboxKey": "/x"}).to_string()
}

#[tokio::test]
async fn the_handshake_is_answered_and_told_to_the_driver() {
    let (driver, service) = network_service();
    let (status, answer) = ask(&service, "/Plugin.Activate", "").await;
    assert_eq!(
        (status, answer),
        (200, json!({"Implements": ["NetworkDriver"]}))
    );
    assert_eq!(driver.activations.load(Ordering::SeqCst), 1);
    let ipam = IpamService::new(driver, NoMethods);
    let (_, answer) = ask(&ipam, "/Plugin.Activate", "").await;
    assert_eq!(answer, json!({"Implements": ["IpamDriver"]}));
}

#[tokio::test]
async fn calls_without_arguments_need_no_body() {
    let (driver, service) = network_service();
    let (_, answer) = ask(&service, "/NetworkDriver.GetCapabilities", "").await;
    let expected =
        json!({"Scope": "local", "ConnectivityScope": "global", "GwAllocChecker": false});
    assert_eq!(answer, expected);
    let ipam = IpamService::new(driver, NoMethods);
    let (_, answer) = ask(&ipam, "/IpamDriver.GetDefaultAddressSpaces", "").await;
    assert_eq!(answer["LocalDefaultAddressSpace"], "a");
}

#[tokio::test]
async fn a_call_that_lost_its_body_fails_whatever_it_is() {
    let (driver, service) = network_service();
    for method in network::Method::ALL {
        if *method == network::Method::GetCapabilities {
            continue;
        }
        for body in ["", "\n", "null", "{}", "[", "[]"] {
            let (status, answer) = ask(&service, method.path(), body).await;
            assert_eq!(status, 200);
            assert!(answer["Err"].is_string(), "{method:?} {body:?}: {answer}");
            assert_eq!(answer["Err"], answer["Error"]);
        }
    }
    let ipam = IpamService::new(driver, NoMethods);
    for method in [
        "RequestPool",
        "ReleasePool",
        "RequestAddress",
        "ReleaseAddress",
    ] {
        let (_, answer) = ask(&ipam, &format!("/IpamDriver.{method}"), "").await;
        assert!(
            answer["Error"]
                .as_str()
                .unwrap()
                .contains("without its body"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_failure_is_the_drivers_sentence_in_both_fields() {
    let (_, service) = network_service();
    let body = json!({"NetworkID": "ab".repeat(32)}).to_string();
    let (status, answer) = ask(&service, "/NetworkDriver.CreateNetwork", &body).await;
    assert_eq!(status, 200);
    assert!(
        answer["Err"]
            .as_str()
            .unwrap()
            .ends_with("cannot be made here"),
        "{answer}"
    );
    assert_eq!(answer["Err"], answer["Error"]);
}

#[tokio::test]
async fn an_unknown_method_is_404_and_says_so() {
    let (_, service) = network_service();
    let (status, answer) = ask(&service, "/NetworkDriver.DiscoverNew", "{}").await;
    assert_eq!(status, 404);
    assert!(
        answer["Err"].as_str().unwrap().contains("DiscoverNew"),
        "{answer}"
    );
    let (status, _) = ask(&service, "/IpamDriver.RequestPool", "{}").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn own_methods_go_to_their_own_service() {
    struct Own;
    impl Service for Own {
        async fn call(&self, request: Request) -> Response {
            Response::json(200, &request.path)
        }
    }
    let service = NetworkService::new(Arc::new(Driver::default()), Own);
    let (_, answer) = ask(&service, "/Drover.WhoAreYou", "{}").await;
    assert_eq!(answer, "/Drover.WhoAreYou");
}

#[tokio::test]
async fn an_answer_is_never_empty() {
    let (_, service) = network_service();
    for method in [
        "Leave",
        "RevokeExternalConnectivity",
        "EndpointOperInfo",
        "CreateEndpoint",
    ] {
        let (_, answer) = ask(&service, &format!("/NetworkDriver.{method}"), &endpoint()).await;
        assert!(answer.is_object(), "{method}: {answer}");
    }
    let (_, answer) = ask(&service, "/NetworkDriver.EndpointOperInfo", &endpoint()).await;
    assert_eq!(answer, json!({"Value": {}}));
}

#[tokio::test]
async fn a_bug_in_a_driver_is_a_failure_of_the_call() {
    let (_, service) = network_service();
    let (_, answer) = ask(&service, "/NetworkDriver.DeleteEndpoint", &endpoint()).await;
    assert!(answer["Err"].as_str().unwrap().contains("bug"), "{answer}");
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_answered_and_still_runs_to_its_end() {
    let (driver, service) = network_service();
    let service = service.with_limit(Duration::from_millis(50));
    let (_, answer) = ask(&service, "/NetworkDriver.Join", &endpoint()).await;
    assert!(
        answer["Err"]
            .as_str()
            .unwrap()
            .contains("not done within 50ms"),
        "{answer}"
    );
    driver.go.add_permits(1);
    let ended = driver.ended.acquire();
    tokio::time::timeout(Duration::from_secs(5), ended)
        .await
        .unwrap()
        .unwrap()
        .forget();
}

#[tokio::test]
async fn over_a_socket_calls_run_in_parallel_and_outlive_their_asker() {
    let (driver, service) = network_service();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("plugin.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let (_stop, stopped) = watch::channel(false);
    let limits = Limits {
        body: 4096,
        ..Limits::default()
    };
    tokio::spawn(serve(listener, Arc::new(service), limits, stopped));
    let client = Client::unix(&socket);
    let send = |path: &'static str, body: String| {
        let client = client.clone();
        let limit = Duration::from_secs(5);
        tokio::spawn(async move {
            client
                .send(Method::POST, path, Some(body.into()), limit)
                .await
        })
    };
    let joins: Vec<_> = (0..8)
        .map(|_| send("/NetworkDriver.Join", endpoint()))
        .collect();
    let wait = Duration::from_secs(5);
    tokio::time::timeout(wait, driver.began.acquire_many(8))
        .await
        .unwrap()
        .unwrap()
        .forget();
    // While all of them wait, the handshake is answered.
    assert_eq!(
        send("/Plugin.Activate", String::new())
            .await
            .unwrap()
            .unwrap()
            .status,
        200
    );
    for join in &joins {
        join.abort();
    }
    driver.go.add_permits(8);
    tokio::time::timeout(wait, driver.ended.acquire_many(8))
        .await
        .unwrap()
        .unwrap()
        .forget();

    let long = send("/NetworkDriver.Join", "x".repeat(5000))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(long.status, 413);
    let answer: Value = serde_json::from_slice(&long.body).unwrap();
    assert!(answer["Err"].as_str().unwrap().contains("4096"), "{answer}");
}
