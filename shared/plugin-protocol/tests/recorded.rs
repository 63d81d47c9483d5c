//! Everything that was recorded between four engines and a plugin is read, and nothing of it is lost.
#![cfg(test)]

use std::fs;
use std::path::Path;

use drover_model::MacAddress;
use drover_plugin_protocol::network::{self, key};
use drover_plugin_protocol::{Activation, Empty, ErrorAnswer, ipam, volume};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const RECORDED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../integration-tests/fixtures/engine"
);

struct Exchange {
    name: String,
    path: String,
    request: Value,
    answer: Value,
}

/// The recorded exchanges of a kind (`network`, `ipam`, `any`).
fn recorded(kind: &str) -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    for file in fs::read_dir(Path::new(RECORDED)).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if !name.contains(&format!("-{kind}-")) {
            continue;
        }
        let text = fs::read_to_string(Path::new(RECORDED).join(&name)).unwrap();
        let recording: Value = serde_json::from_str(&text).unwrap();
        let line = recording["request"]["line"].as_str().unwrap();
        exchanges.push(Exchange {
            name,
            path: line.split(' ').nth(1).unwrap().to_owned(),
            request: recording["request"]["body"].clone(),
            answer: recording["response"]["body"].clone(),
        });
    }
    assert!(
        exchanges.len() >= 4,
        "{kind}: {} recordings",
        exchanges.len()
    );
    exchanges
}

/// Drops what says nothing, as engines may leave it out or write it: `null`, `""`, `false`, `[]`, `{}`.
fn said(value: &Value) -> Value {
    let value = match value {
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.clone(), said(value)));
            Value::Object(fields.filter(|(_, value)| !value.is_null()).collect())
        }
        Value::Array(values) => Value::Array(values.iter().map(said).collect()),
        other => other.clone(),
    };
    let nothing = [json!(null), json!(""), json!(false), json!([]), json!({})];
    if nothing.contains(&value) {
        Value::Null
    } else {
        value
    }
}

/// Reads `value` as a `T` and writes it again, and compares.
fn keeps_all<T: DeserializeOwned + Serialize>(name: &str, value: &Value) {
    let read: T = serde_json::from_value(value.clone())
        .unwrap_or_else(|error| panic!("{name}: {error}: {value}"));
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(said(&written), said(value), "{name}");
}

#[test]
fn every_network_call_is_read_whole() {
    use network::Method;
    let mut seen = std::collections::BTreeSet::new();
    for Exchange {
        name,
        path,
        request,
        answer,
    } in recorded("network")
    {
        let method = Method::from_path(&path).unwrap_or_else(|| panic!("{name}: {path}"));
        seen.insert(method);
        if request.is_null() {
            let bodiless = method == Method::GetCapabilities;
            assert!(bodiless || name.contains("emptybody"), "{name}");
        } else {
            let check = match method {
                Method::GetCapabilities => panic!("{name}: has a body"),
                Method::GwAllocCheck => keeps_all::<network::GwAllocCheck>,
                Method::CreateNetwork => keeps_all::<network::CreateNetwork>,
                Method::DeleteNetwork => keeps_all::<network::DeleteNetwork>,
                Method::CreateEndpoint => keeps_all::<network::CreateEndpoint>,
                Method::Join => keeps_all::<network::Join>,
                Method::ProgramExternalConnectivity => {
                    keeps_all::<network::ProgramExternalConnectivity>
                }
                Method::DeleteEndpoint
                | Method::Leave
                | Method::RevokeExternalConnectivity
                | Method::EndpointOperInfo => keeps_all::<network::EndpointReference>,
            };
            check(&name, &request);
        }
        if answer.get("Err").is_some() {
            keeps_all::<ErrorAnswer>(&name, &answer);
        } else if !answer.is_null() {
            network_answer(method)(&name, &answer);
        }
    }
    assert_eq!(seen.len(), Method::ALL.len(), "{seen:?}");
}

fn network_answer(method: network::Method) -> fn(&str, &Value) {
    use network::Method;
    match method {
        Method::GetCapabilities => keeps_all::<network::Capabilities>,
        Method::GwAllocCheck => keeps_all::<network::SkipGateways>,
        Method::CreateEndpoint => keeps_all::<network::CreateEndpointAnswer>,
        Method::Join => keeps_all::<network::JoinAnswer>,
        Method::EndpointOperInfo => keeps_all::<network::EndpointInformation>,
        _ => keeps_all::<Empty>,
    }
}

#[test]
fn every_ipam_call_is_read_whole() {
    use ipam::Method;
    let mut seen = std::collections::BTreeSet::new();
    for Exchange {
        name,
        path,
        request,
        answer,
    } in recorded("ipam")
    {
        let method = Method::from_path(&path).unwrap_or_else(|| panic!("{name}: {path}"));
        seen.insert(method);
        type Check = fn(&str, &Value);
        let (on_request, on_answer): (Option<Check>, Check) = match method {
            Method::GetCapabilities => (None, keeps_all::<ipam::Capabilities>),
            Method::GetDefaultAddressSpaces => (None, keeps_all::<ipam::AddressSpaces>),
            Method::RequestPool => (
                Some(keeps_all::<ipam::RequestPool>),
                keeps_all::<ipam::PoolAnswer>,
            ),
            Method::ReleasePool => (Some(keeps_all::<ipam::ReleasePool>), keeps_all::<Empty>),
            Method::RequestAddress => (
                Some(keeps_all::<ipam::RequestAddress>),
                keeps_all::<ipam::AddressAnswer>,
            ),
            Method::ReleaseAddress => (Some(keeps_all::<ipam::ReleaseAddress>), keeps_all::<Empty>),
        };
        match on_request {
            Some(check) => check(&name, &request),
            None => assert!(request.is_null(), "{name}"),
        }
        on_answer(&name, &answer);
    }
    assert_eq!(seen.len(), Method::ALL.len(), "{seen:?}");
}

#[test]
fn every_volume_call_is_read_whole() {
    use volume::Method;
    let mut seen = std::collections::BTreeSet::new();
    for Exchange {
        name,
        path,
        request,
        answer,
    } in recorded("volume")
    {
        let method = Method::from_path(&path).unwrap_or_else(|| panic!("{name}: {path}"));
        seen.insert(method);
        type Check = fn(&str, &Value);
        let (on_request, on_answer): (Check, Check) = match method {
            Method::Capabilities => (keeps_all::<Empty>, keeps_all::<volume::CapabilitiesAnswer>),
            Method::Create => (keeps_all::<volume::Create>, keeps_all::<Empty>),
            Method::Get => (keeps_all::<volume::Named>, keeps_all::<volume::GetAnswer>),
            Method::List => (keeps_all::<Empty>, keeps_all::<volume::ListAnswer>),
            Method::Mount => (keeps_all::<volume::Mount>, keeps_all::<volume::MountAnswer>),
            Method::Unmount => (keeps_all::<volume::Mount>, keeps_all::<Empty>),
            Method::Path => (keeps_all::<volume::Named>, keeps_all::<volume::MountAnswer>),
            Method::Remove => (keeps_all::<volume::Named>, keeps_all::<Empty>),
        };
        on_request(&name, &request);
        on_answer(&name, &answer);
    }
    // No engine asks for the path.
    assert_eq!(seen.len(), Method::ALL.len() - 1, "{seen:?}");
}

#[test]
fn every_handshake_is_read() {
    for Exchange {
        name,
        path,
        request,
        answer,
    } in recorded("any")
    {
        assert_eq!(path, drover_plugin_protocol::ACTIVATE, "{name}");
        assert!(request.is_null(), "{name}");
        keeps_all::<Activation>(&name, &answer);
    }
}

#[test]
fn a_link_address_is_base64_for_networks_and_text_for_ipam() {
    let mac: MacAddress = "02:11:22:33:44:55".parse().unwrap();
    let endpoint = json!({ key::MAC_ADDRESS: "AhEiM0RV" });
    let options: network::EndpointOptions = serde_json::from_value(endpoint).unwrap();
    assert_eq!(options.mac_address, Some(mac));
    let address = json!({ ipam::key::MAC_ADDRESS: "02:11:22:33:44:55" });
    let options: ipam::AddressOptions = serde_json::from_value(address).unwrap();
    assert_eq!(options.mac_address, Some(mac));

    for wrong in ["02:11:22:33:44:55", "AhEiM0Q=", "!"] {
        let endpoint = json!({ key::MAC_ADDRESS: wrong });
        let error = serde_json::from_value::<network::EndpointOptions>(endpoint);
        assert!(error.is_err(), "{wrong}");
    }
}

#[test]
fn what_compose_leaves_out_is_no_error() {
    let pool = json!({"AddressSpace":"a","Pool":"","SubPool":"","Options":null,"V6":false});
    let pool: ipam::RequestPool = serde_json::from_value(pool).unwrap();
    assert_eq!((pool.pool, pool.options.len()), (None, 0));
    let address = json!({"PoolID":"p","Address":"","Options":null});
    let address: ipam::RequestAddress = serde_json::from_value(address).unwrap();
    assert!(!address.is_gateway());
    let id = "ab".repeat(32);
    let network = json!({"NetworkID":id,"Options":null,"IPv4Data":null});
    let network: network::CreateNetwork = serde_json::from_value(network).unwrap();
    assert_eq!(network.pools().count(), 0);
}

#[test]
fn what_a_call_cannot_do_without_is_required() {
    let id = "ab".repeat(32);
    let refused = [
        serde_json::from_value::<network::CreateNetwork>(json!({})).is_err(),
        serde_json::from_value::<network::CreateEndpoint>(json!({"NetworkID": id})).is_err(),
        serde_json::from_value::<network::Join>(json!({"NetworkID": id, "EndpointID": id}))
            .is_err(),
        serde_json::from_value::<network::DeleteNetwork>(json!({"NetworkID": "../x"})).is_err(),
        serde_json::from_value::<ipam::RequestPool>(json!({})).is_err(),
        serde_json::from_value::<ipam::RequestAddress>(json!({"Address": ""})).is_err(),
        serde_json::from_value::<ipam::ReleaseAddress>(json!({"PoolID": "p"})).is_err(),
    ];
    assert_eq!(refused, [true; 7]);
}

#[test]
fn driver_options_are_those_of_the_user() {
    let options: network::EndpointOptions = serde_json::from_value(json!({
        "do1": "dv1",
        "com.docker.network.endpoint.ifname": "eth7",
        "com.docker.network.endpoint.exposedports": [],
    }))
    .unwrap();
    assert_eq!(
        options.driver_options().collect::<Vec<_>>(),
        [("do1", "dv1")]
    );
}
