//! Two hosts with an encrypted network are started with a kernel that cannot encrypt. On a kernel that never could, what
//! they remember is written for them: a clear network that works is said to have been an encrypted one.

use drover_store::local::{Database, Table};
use drover_testkit::capability::{Capability, can_test};
use drover_testkit::shell::{run, wait_for};
use serde_json::{Value, json};

use super::host::Host;
use super::{NET_A, endpoint, lab, reaches, two_hosts};

/// Has a host remember that a network of its is encrypted. Its plugin does not run.
fn remember_encryption(host: &Host, network: &str) {
    let database = Database::open(host.state()).unwrap();
    let networks: Table<Value> = Table::open(&database, "networks").unwrap();
    let mut record = networks.get(network).unwrap().unwrap();
    assert_eq!(record["options"]["encryption"], "off", "{record}");
    record["options"]["encryption"] = "ipsec".into();
    networks.put(network, &record).unwrap();
}

/// How many frames of the first network's containers were on the underlay.
fn frames_in_clear() -> u64 {
    let listed = run("nft -j list counter bridge sniffer clear");
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let counters = listed["nftables"].as_array().unwrap();
    let mut counted = counters.iter().filter_map(|it| it.get("counter"));
    counted.next().unwrap()["packets"].as_u64().unwrap()
}

#[test]
fn a_network_that_cannot_be_encrypted_any_more_leaves_nothing_in_clear() {
    if !can_test(&[Capability::NoEsp, Capability::BridgeTables]) || !lab() {
        return;
    }
    run("nft add table bridge sniffer");
    run("nft add counter bridge sniffer clear");
    run("nft add chain bridge sniffer passing { type filter hook prerouting priority -300 ; }");
    for pools in ["ip saddr 10.42.0.0/16", "ip6 saddr fd00:42::/64"] {
        run(&format!(
            "nft add rule bridge sniffer passing {pools} counter name clear"
        ));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut hosts = two_hosts(folder.path(), "auto");
    for to in ["10.42.2.5", "fd00:42::2:5"] {
        assert!(reaches("a1", to, ""), "{to}");
    }
    for host in &mut hosts {
        host.kill_plugin();
        remember_encryption(host, NET_A);
    }
    for host in &mut hosts {
        host.start_plugin();
        // It answers before it has looked at the kernel.
        host.call("Drover.Reconcile", json!({}));
    }
    let before = frames_in_clear();
    assert!(before > 0, "the sniffer sees nothing");
    for (from, to) in [
        ("a1", "10.42.2.5"),
        ("a2", "10.42.1.5"),
        ("a1", "fd00:42::2:5"),
    ] {
        assert!(
            !reaches(from, to, "-c 3 -i 0.2 -W 1"),
            "{from} reaches {to}"
        );
    }
    assert_eq!(frames_in_clear(), before);
    wait_for("the other network", || reaches("b1", "10.43.2.5", ""));
    let why = ["cannot encrypt", "CONFIG_"];
    let identity = hosts[0].call("Drover.WhoAreYou", json!({}));
    let paths = hosts[0].call("Drover.Paths", json!({}));
    let interface = json!({
        "Address": "10.42.1.6/24", "AddressIPv6": "", "MacAddress": "02:42:00:01:06:06",
    });
    let refused = hosts[0].refused(
        "NetworkDriver.CreateEndpoint",
        json!({
            "NetworkID": NET_A, "EndpointID": endpoint(6), "Interface": interface, "Options": {},
        }),
    );
    for said in [
        identity["complaints"].to_string(),
        paths["cannot_encrypt"].to_string(),
        refused,
    ] {
        assert!(why.iter().all(|word| said.contains(word)), "{said}");
    }
}
