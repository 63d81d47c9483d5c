//! The real plugin on two hosts that are namespaces, called as an engine calls it: what containers
//! reach, what they may not send, and what is left after a kill, a reboot and a reset.
#![cfg(test)]

#[path = "two_hosts/host.rs"]
mod host;
#[path = "two_hosts/lost.rs"]
mod lost;
#[path = "two_hosts/segments.rs"]
mod segments;

use std::net::IpAddr;
use std::path::Path;

use drover_control_api::fabric::FabricEvent;
use drover_control_api::record::{AddressClaim, BlockRecord, ClaimState, HostRecord};
use drover_model::{Block, HostIndex, HostName, Mtu, Pool};
use drover_testkit::capability::{Capability, can_test};
use drover_testkit::shell::{run, succeeds, wait_for};
use host::Host;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

const NET_A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const NET_B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn endpoint(number: u8) -> String {
    format!("{number:02}{}", "e".repeat(62))
}

/// Puts the test's thread into namespaces of its own, with a bridge for the hosts to be on. Says
/// whether it may.
fn lab() -> bool {
    if !can_test(&[Capability::Namespaces]) {
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    std::fs::create_dir_all("/run/netns").unwrap();
    mount(
        Some("none"),
        "/run/netns",
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .unwrap();
    run("ip link add lab type bridge");
    run("ip link set lab up");
    true
}

fn host_name(number: u8) -> HostName {
    format!("host{number}").parse().unwrap()
}

fn host_record(number: u8) -> HostRecord {
    HostRecord {
        version: 1,
        name: host_name(number),
        member: format!("member{number}"),
        index: HostIndex::try_from(u16::from(number)).unwrap(),
        advertise: IpAddr::from([192, 0, 2, number]),
        link: "192.0.2.0/24".parse().ok(),
        underlay_mtu: Mtu::ETHERNET,
        prefixes: std::collections::BTreeSet::new(),
        addresses: std::collections::BTreeSet::new(),
        software: String::new(),
        joined_at: 0,
    }
}

fn block_record(pool: &str, block: &str, owner: u8) -> BlockRecord {
    BlockRecord {
        version: 1,
        pool: pool.parse::<Pool>().unwrap(),
        block: Block::new(block.parse().unwrap()),
        owner: Some(host_name(owner)),
        owner_member: Some(format!("member{owner}")),
        quarantined_until: 0,
        claims: std::collections::BTreeMap::new(),
    }
}

fn blocks() -> Vec<BlockRecord> {
    let mut blocks = Vec::new();
    for number in [1, 2] {
        blocks.push(block_record(
            "10.42.0.0/16",
            &format!("10.42.{number}.0/24"),
            number,
        ));
        blocks.push(block_record(
            "fd00:42::/64",
            &format!("fd00:42::{number}:0/112"),
            number,
        ));
        blocks.push(block_record(
            "10.43.0.0/16",
            &format!("10.43.{number}.0/24"),
            number,
        ));
    }
    blocks
}

/// Says everything that is known to a coordinator's listeners.
fn introduce(host: &Host) {
    let this_host = host_name(host.number);
    host.coordinator.say(FabricEvent::Reset {
        this_host,
        fenced: false,
        cluster: "00112233445566778899aabbccddeeff".to_owned(),
    });
    for number in [1, 2] {
        host.coordinator.say(FabricEvent::Host(host_record(number)));
    }
    for block in blocks() {
        host.coordinator.say(FabricEvent::Block(block));
    }
    host.coordinator.say(FabricEvent::Synced);
}

fn two_hosts(folder: &Path, encapsulation: &str) -> [Host; 2] {
    let hosts = [1, 2].map(|number| Host::start(number, folder, encapsulation));
    for host in &hosts {
        introduce(host);
        let dual = [
            ("10.42.0.0/16", "10.42.0.1/16"),
            ("fd00:42::/64", "fd00:42::1/64"),
        ];
        host.create_network(NET_A, &dual, false);
        host.create_network(NET_B, &[("10.43.0.0/16", "10.43.0.1/16")], true);
        let number = host.number;
        let (four, six) = (
            format!("10.42.{number}.5/24"),
            format!("fd00:42::{number}:5/112"),
        );
        host.start_container(&format!("a{number}"), NET_A, &endpoint(1), &[&four, &six]);
        let other = format!("10.43.{number}.5/24");
        host.start_container(&format!("b{number}"), NET_B, &endpoint(2), &[&other]);
    }
    hosts
}

fn reaches(from: &str, to: &str, options: &str) -> bool {
    succeeds(&format!(
        "ip netns exec {from} ping -c 1 -W 2 {options} {to}"
    ))
}

fn check_paths(host: &Host, encapsulation: &str) {
    let paths = host.call("Drover.Paths", json!({}));
    let path = &paths["paths"][0];
    assert_eq!(path["encapsulation"], encapsulation, "{paths}");
    assert_eq!(path["blocks"], 3);
    assert!(path["packets"]["sent"].as_u64().unwrap() > 0, "{paths}");
    let identity = host.call("Drover.WhoAreYou", json!({}));
    assert_eq!(identity["complaints"], json!([]));
}

fn check_traffic() {
    for (to, size) in [("10.42.2.5", 1422), ("fd00:42::2:5", 1402)] {
        assert!(
            reaches("a1", to, &format!("-s {size} -M do")),
            "full size to {to}"
        );
    }
    assert!(
        !reaches("a1", "10.42.2.5", "-s 1423 -M do"),
        "one byte more than the MTU"
    );
    assert!(reaches("a2", "10.42.1.5", "") && reaches("b1", "10.43.2.5", ""));
    run("ip -n a1 route add 10.43.0.0/16 via 10.42.1.1");
    assert!(
        !reaches("a1", "10.43.2.5", "") && !reaches("a1", "10.43.1.5", ""),
        "isolation"
    );
    run("ip -n a1 route del 10.43.0.0/16");
    run("ip -n a1 addr add 10.42.1.9/24 dev eth0");
    assert!(
        !reaches("a1", "10.42.2.5", "-I 10.42.1.9"),
        "a foreign address"
    );
    run("ip -n a1 addr del 10.42.1.9/24 dev eth0");
}

/// Pings ten times a second until it is stopped, and tells how many went unanswered.
fn while_pinging(from: &str, to: &str, work: impl FnOnce()) {
    let arguments = ["netns", "exec", from, "ping", "-i", "0.1", "-W", "1", to];
    let mut command = std::process::Command::new("ip");
    let ping = command
        .args(arguments)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    work();
    let pid = nix::unistd::Pid::from_raw(ping.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
    let counts = output
        .lines()
        .find(|line| line.contains("packets transmitted"))
        .unwrap();
    eprintln!("{counts}");
    assert!(counts.contains(" 0% packet loss"), "{output}");
}

fn scenario(encapsulation: &str, expected: &str) {
    if !lab() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut hosts = two_hosts(folder.path(), encapsulation);
    check_traffic();
    check_paths(&hosts[0], expected);
    let steps = hosts[0].call("Drover.Reconcile", json!({}));
    assert_eq!(steps["steps"], json!([]), "a second plan is empty");
    assert!(
        !run("ip -n h1 route show table main").contains("10.42."),
        "no route in the root"
    );

    // Killed, without a coordinator, and started again: nothing is lost and nothing changes.
    while_pinging("a1", "10.42.2.5", || {
        hosts[0].kill_plugin();
        hosts[0].stop_coordinator();
        hosts[0].start_plugin();
        let steps = hosts[0].call("Drover.Reconcile", json!({}));
        assert_eq!(steps["steps"], json!([]), "after a kill");
    });
    hosts[0].start_coordinator();
    wait_for("attachments are told", || {
        hosts[0].coordinator.attachments(NET_A) == Some(1)
    });
    assert!(hosts[0].coordinator.engines() > 0);

    claim_single_address(&hosts);

    hosts[0].stop_container("a1", NET_A, &endpoint(1));
    wait_for("attachments are told", || {
        hosts[0].coordinator.attachments(NET_A) == Some(0)
    });
    let known = hosts[0].call("Drover.Endpoints", json!({}));
    assert_eq!(known["endpoints"].as_array().unwrap().len(), 1);
    tear_down(&hosts[0]);
}

/// Host 2 gets a single address of a block of host 1.
fn claim_single_address(hosts: &[Host; 2]) {
    let mut blocks = blocks();
    let block = &mut blocks[0];
    let claim = AddressClaim {
        host: host_name(2),
        state: ClaimState::Granted,
    };
    block.claims.insert("10.42.1.77".parse().unwrap(), claim);
    for host in hosts {
        host.coordinator.say(FabricEvent::Block(block.clone()));
    }
    hosts[1].start_container("c2", NET_A, &endpoint(3), &["10.42.1.77/32"]);
    wait_for("the single address", || reaches("a1", "10.42.1.77", ""));
    assert!(reaches("a2", "10.42.1.77", ""), "from its own host");
    hosts[1].stop_container("c2", NET_A, &endpoint(3));
}

fn tear_down(host: &Host) {
    host.call("Drover.TearDown", json!({}));
    assert!(!host.overlay().exists());
    assert_eq!(run("ip netns exec h1 nft list ruleset"), "");
    let links = run("ip -n h1 -br link");
    assert!(!links.contains("dvr"), "{links}");
    let refusal = json!({
        "NetworkID": NET_A, "EndpointID": endpoint(9), "SandboxKey": "/s", "Options": {},
    });
    assert!(
        host.refused("NetworkDriver.Join", refusal)
            .contains("drover up")
    );
}

#[test]
fn containers_of_two_hosts_talk_directly_where_the_hosts_share_a_link() {
    scenario("auto", "direct");
}

#[test]
fn containers_of_two_hosts_talk_by_vxlan_when_told_to() {
    scenario("vxlan", "vxlan");
}

#[test]
fn docker_may_call_twice_out_of_order_and_for_what_is_not_there() {
    if !lab() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start(1, folder.path(), "auto");
    let unknown = json!({"NetworkID": NET_A, "EndpointID": endpoint(9)});
    for method in [
        "Leave",
        "DeleteEndpoint",
        "RevokeExternalConnectivity",
        "EndpointOperInfo",
    ] {
        host.call(&format!("NetworkDriver.{method}"), unknown.clone());
    }
    host.call("NetworkDriver.DeleteNetwork", json!({"NetworkID": NET_A}));
    let lost = json!({
        "NetworkID": NET_A, "EndpointID": endpoint(1), "Interface": {"Address": "10.42.1.5/24"},
        "Options": {},
    });
    assert!(
        host.refused("NetworkDriver.CreateEndpoint", lost)
            .contains("is not known")
    );

    // Without a coordinator, ever: a single host works all the same.
    let dual = [("10.42.0.0/16", "10.42.0.1/16")];
    host.create_network(NET_A, &dual, false);
    host.create_network(NET_A, &dual, false);
    host.start_container("a1", NET_A, &endpoint(1), &["10.42.1.5/24"]);
    let again = host.join(NET_A, &endpoint(1), "/sandbox/a1");
    assert_eq!(
        again["InterfaceName"]["SrcName"],
        format!("dvr01{}", "e".repeat(8))
    );
    let elsewhere = json!({
        "NetworkID": NET_A, "EndpointID": endpoint(1), "SandboxKey": "/sandbox/b", "Options": {},
    });
    assert!(
        host.refused("NetworkDriver.Join", elsewhere)
            .contains("/sandbox/a1")
    );
    host.start_container("a2", NET_A, &endpoint(2), &["10.42.1.6/24"]);
    assert!(
        reaches("a1", "10.42.1.6", "") && reaches("a1", "10.42.0.1", ""),
        "and the gateway"
    );

    // The engine died with its container, and starts another with the same address.
    run("ip netns del a1");
    host.start_container("a3", NET_A, &endpoint(3), &["10.42.1.5/24"]);
    // Its link is up a moment later, by a work queue of the kernel's; a2 need not ask for the address, and so asks once only.
    assert!((0..3).any(|_| reaches("a2", "10.42.1.5", "")));
    let known = host.call("Drover.Endpoints", json!({}));
    let known = known["endpoints"].as_array().unwrap();
    assert_eq!(known.len(), 2, "{known:?}");
    assert!(
        known
            .iter()
            .all(|it| it["present"] == true && it["sandbox"].is_string()),
        "{known:?}"
    );
}

/// The removal of a port goes on beside the answer to Leave: nothing that comes next takes it for its own.
#[test]
fn an_endpoint_that_leaves_may_join_again_at_once_and_its_port_goes_in_the_end() {
    if !lab() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(1, folder.path(), "auto");
    host.create_network(NET_A, &[("10.42.0.0/16", "10.42.0.1/16")], false);
    host.start_container("a2", NET_A, &endpoint(2), &["10.42.1.6/24"]);
    let body = json!({"NetworkID": NET_A, "EndpointID": endpoint(1)});
    host.create_endpoint(NET_A, &endpoint(1), &["10.42.1.5/24"]);
    for round in 0..5 {
        host.join(NET_A, &endpoint(1), &format!("/sandbox/{round}"));
        let made = format!("ip -n h1 link show dvr01{}", "e".repeat(8));
        assert!(succeeds(&made), "the container's end of round {round}");
        host.call("NetworkDriver.Leave", body.clone());
    }
    // Another one with the same address, while the port of the first may be there still.
    host.start_container("a3", NET_A, &endpoint(3), &["10.42.1.5/24"]);
    assert!(reaches("a2", "10.42.1.5", ""));
    let overlay = host.overlay();
    let ports = || {
        let links = run(&format!("nsenter --net={} ip -o link", overlay.display()));
        links.lines().filter(|line| line.contains(": ep")).count()
    };
    wait_for("the port of the first is gone", || ports() == 2);
    // Killed before the port is gone: the next start removes it.
    host.stop_container("a3", NET_A, &endpoint(3));
    host.kill_plugin();
    host.start_plugin();
    wait_for("the port is gone after a kill", || ports() == 1);
    assert!(reaches("a2", "10.42.0.1", ""));
}

#[test]
fn a_host_that_was_started_anew_has_its_networks_and_no_endpoints() {
    if !lab() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(1, folder.path(), "auto");
    introduce(&host);
    host.create_network(NET_A, &[("10.42.0.0/16", "10.42.0.1/16")], false);
    host.start_container("a1", NET_A, &endpoint(1), &["10.42.1.5/24"]);
    wait_for("attachments are told", || {
        host.coordinator.attachments(NET_A) == Some(1)
    });
    host.kill_plugin();
    run("ip netns del a1");
    nix::mount::umount2(&host.overlay(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    wait_for("the namespace has gone", || {
        !succeeds("ip -n h1 link show dvr-root")
    });
    host.start_plugin();
    wait_for("attachments are told", || {
        host.coordinator.attachments(NET_A) == Some(0)
    });
    let known = host.call("Drover.Endpoints", json!({}));
    assert_eq!(known["endpoints"], json!([]));
    assert_eq!(known["networks"].as_array().unwrap().len(), 1);
    host.start_container("a2", NET_A, &endpoint(2), &["10.42.1.5/24"]);
    assert!(reaches("a2", "10.42.1.1", ""));
}

#[test]
fn a_link_that_drops_frames_of_containers_is_noticed_and_vxlan_takes_over() {
    if !lab() {
        return;
    }
    // What a cloud's virtual switch does.
    run("nft add table bridge cloud");
    run("nft add chain bridge cloud forward { type filter hook forward priority 0 ; }");
    run("nft add rule bridge cloud forward ether type ip ip saddr != 192.0.2.0/24 drop");
    let folder = tempfile::tempdir().unwrap();
    let mut hosts = two_hosts(folder.path(), "auto");
    let encapsulation = |host: &Host| {
        let paths = host.call("Drover.Paths", json!({}));
        paths["paths"][0]["encapsulation"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(encapsulation(&hosts[0]), "direct", "at first");
    wait_for("both fall back", || {
        hosts.iter().all(|host| encapsulation(host) == "vxlan")
    });
    wait_for("packets flow", || {
        reaches("a1", "10.42.2.5", "-s 1422 -M do")
    });
    let complaints = hosts[0].call("Drover.WhoAreYou", json!({}))["complaints"].to_string();
    assert!(
        complaints.contains("host2") && complaints.contains("encapsulation"),
        "{complaints}"
    );
    while_pinging("a1", "10.42.2.5", || {
        hosts[0].kill_plugin();
        hosts[0].start_plugin();
        assert_eq!(encapsulation(&hosts[0]), "vxlan", "it is remembered");
    });
}
