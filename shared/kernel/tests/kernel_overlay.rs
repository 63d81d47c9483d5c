//! Plans carried out on the real kernel, in namespaces of the test's own: what is observed is what
//! was planned, packets flow between two hosts and nowhere else, and a tear-down leaves nothing.
#![cfg(test)]

#[path = "kernel_overlay/host.rs"]
mod host;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use drover_kernel::Kernel;
use drover_model::{Block, Encapsulation, HostIndex, Mtu, Pool};
use drover_overlay::{BlockHolder, Desired, NetworkPool, Peer, RemoteBlock, lower, plan};
use drover_testkit::capability::{Capability, can_test};
use drover_testkit::shell::{run, succeeds};
use host::{bring_about, desired, endpoint_id, isolate, network_id, start_container};
use nix::sched::CloneFlags;

fn reaches(from: &str, to: &str, options: &str) -> bool {
    succeeds(&format!(
        "ip netns exec {from} ping -c 1 -W 2 {options} {to}"
    ))
}

fn check_reachability() {
    for (to, size) in [("10.42.2.5", "-s 1422"), ("fd00:42::2:5", "-s 1402")] {
        assert!(
            reaches("c1", to, &format!("{size} -M do")),
            "full size to {to}"
        );
        assert!(!reaches("c1", to, "-s 1452 -M do"), "over size to {to}");
    }
    assert!(reaches("c2", "10.42.1.5", ""), "and back");
    for claimed in ["10.42.1.77", "fd00:42::1:77"] {
        assert!(reaches("c1", claimed, ""), "single claim {claimed}");
    }
    assert!(reaches("d1", "10.43.2.5", ""), "the other network");
    assert!(
        reaches("c1", "10.42.2.1", ""),
        "the router of the other host"
    );
    // Networks are apart, on one host and between hosts.
    run("ip -n c1 route replace 10.43.0.0/16 via 10.42.1.1");
    run("ip -n d1 route replace 10.42.0.0/16 via 10.43.1.1");
    for (from, to) in [
        ("c1", "10.43.1.5"),
        ("c1", "10.43.2.5"),
        ("d1", "10.42.2.5"),
    ] {
        assert!(!reaches(from, to, ""), "{from} must not reach {to}");
    }
}

fn check_spoofing() {
    run("ip -n c1 addr add 10.42.1.99/24 dev eth0");
    assert!(
        !reaches("c1", "10.42.2.5", "-I 10.42.1.99"),
        "another address of the block"
    );
    run("ip -n c1 addr del 10.42.1.99/24 dev eth0");
    run("ip -n c1 link set eth0 address 02:42:00:00:09:09");
    assert!(!reaches("c1", "10.42.2.5", ""), "another link address");
    run("ip -n c1 link set eth0 address 02:42:00:00:01:05");
    // Changing the link address has flushed the IPv6 routes, not the IPv4 ones.
    assert!(reaches("c1", "10.42.2.5", ""), "its own link address again");
}

/// The second host, whose namespace is given, sends from addresses of the first one's block.
fn check_claims(two: &Path) {
    let inside = format!("nsenter --net={}", two.display());
    for (claimed, length, to) in [
        ("10.42.1.9", 32, "10.42.1.5"),
        ("fd00:42::1:9", 128, "fd00:42::1:5"),
    ] {
        run(&format!("{inside} ip addr add {claimed}/{length} dev lo"));
        assert!(
            !succeeds(&format!("{inside} ping -c 2 -i 0.2 -W 1 -I {claimed} {to}")),
            "{claimed} is answered"
        );
        run(&format!("{inside} ip addr del {claimed}/{length} dev lo"));
    }
}

/// Both hosts: the first is the test's own namespace, the second is entered on a thread.
fn two_hosts(encapsulation: Encapsulation) {
    if !can_test(&[Capability::Namespaces, Capability::Vxlan]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    isolate(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let path = folder.path().join("two");
    let second = std::thread::spawn(move || {
        let file = std::fs::File::open("/run/netns/two").unwrap();
        nix::sched::setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (kernel, made) = Kernel::open(&path).await.unwrap();
            assert!(made);
            bring_about(&kernel, &desired(2, encapsulation)).await;
            let ours = kernel
                .device_with("192.0.2.2".parse().unwrap())
                .await
                .unwrap();
            assert_eq!(ours.as_deref(), Some("eth0"));
        });
    });
    second.join().unwrap();
    runtime.block_on(async {
        let (kernel, _) = Kernel::open(&folder.path().join("one")).await.unwrap();
        let wanted = desired(1, encapsulation);
        // As it comes about: first the networks and the other host, then blocks of its own, one of
        // which has the gateway for its router, and endpoints.
        let mut bare = wanted.clone();
        bare.endpoints.clear();
        bare.blocks
            .retain(|_, held| held.owner != BlockHolder::Here);
        bring_about(&kernel, &bare).await;
        bring_about(&kernel, &wanted).await;
        for host in [1, 2] {
            let desired = desired(host, encapsulation);
            start_container(host, &format!("c{host}"), &endpoint_id(host, "c"), &desired);
            start_container(host, &format!("d{host}"), &endpoint_id(host, "d"), &desired);
        }
        check_reachability();
        check_spoofing();
        if encapsulation == Encapsulation::Vxlan {
            let before = kernel.drops().await.unwrap().foreign;
            check_claims(&folder.path().join("two"));
            let counted = kernel.drops().await.unwrap().foreign - before;
            assert!(counted >= 4, "{counted} packets were counted");
        }
        // Opened again, as by a process that was killed: nothing to do, and everything still flows.
        drop(kernel);
        let (kernel, made) = Kernel::open(&folder.path().join("one")).await.unwrap();
        assert!(!made && kernel.is_current());
        let again = plan(&lower(&wanted), &kernel.observe().await.unwrap());
        assert!(again.is_empty(), "after a restart:\n{again}");
        let device = match encapsulation {
            Encapsulation::Direct => "dvr-direct",
            _ => "dvx2",
        };
        let counters = kernel.counters().await.unwrap();
        assert!(
            counters[device].sent > 5 && counters[device].received > 5,
            "{counters:?}"
        );
        // Removal of all endpoints and networks, then of everything.
        bring_about(
            &kernel,
            &Desired {
                networks: BTreeMap::new(),
                endpoints: BTreeMap::new(),
                ..wanted
            },
        )
        .await;
        kernel.tear_down().await.unwrap();
    });
    assert!(!folder.path().join("one").exists());
    assert!(!succeeds("ip link show dvr-root"));
    assert_eq!(run("nft list ruleset"), "");
    nix::mount::umount2(&folder.path().join("two"), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn two_hosts_that_share_a_link_reach_each_other_directly() {
    two_hosts(Encapsulation::Direct);
}

#[test]
fn two_hosts_reach_each_other_by_vxlan() {
    two_hosts(Encapsulation::Vxlan);
}

#[test]
fn what_is_not_ours_is_left_alone() {
    if !can_test(&[Capability::Namespaces, Capability::Vxlan]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    isolate(folder.path());
    run("nft add table inet somebody");
    run("nft add table ip drover");
    run("ip link add dvr-lan type bridge");
    let path = folder.path().join("one");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (kernel, _) = Kernel::open(&path).await.unwrap();
        let enter = format!("nsenter --net={} ", path.display());
        run(&format!("{enter}ip link add br-lan type bridge"));
        run(&format!("{enter}ip link set br-lan up"));
        run(&format!("{enter}ip route add 198.51.100.0/24 dev br-lan"));
        bring_about(&kernel, &desired(1, Encapsulation::Direct)).await;
        bring_about(&kernel, &Desired::default()).await;
        run(&format!("{enter}ip link show br-lan"));
        run(&format!("{enter}ip route show 198.51.100.0/24"));
        kernel.tear_down().await.unwrap();
    });
    run("nft list table inet somebody");
    run("nft list table ip drover");
    run("ip link show dvr-lan");
}

#[test]
fn a_thousand_hosts_are_planned_and_programmed_in_one_go() {
    if !can_test(&[Capability::Namespaces, Capability::Vxlan]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    isolate(folder.path());
    let pool: Pool = "10.64.0.0/12".parse().unwrap();
    let mut wanted = desired(1, Encapsulation::Direct);
    wanted.peers.clear();
    let subnet = NetworkPool {
        pool,
        gateway: None,
    };
    wanted.networks.get_mut(&network_id("b")).unwrap().pools = vec![subnet];
    wanted.endpoints = BTreeMap::new();
    wanted.blocks = BTreeMap::new();
    for number in 2..1002_u16 {
        let name: drover_model::HostName = format!("host{number}").parse().unwrap();
        let [high, low] = number.to_be_bytes();
        let peer = Peer {
            index: HostIndex::try_from(number).unwrap(),
            advertise: std::net::Ipv4Addr::new(192, 0, 2 + high, low).into(),
            encapsulation: Encapsulation::Direct,
            underlay_mtu: Mtu::ETHERNET,
            watched: false,
            standby: false,
            ipsec: None,
        };
        wanted.peers.insert(name.clone(), peer);
        let prefix = format!("10.{}.{low}.0/24", 64 + u16::from(high))
            .parse()
            .unwrap();
        let held = RemoteBlock {
            pool,
            owner: BlockHolder::Peer(name),
            claims: BTreeMap::new(),
        };
        wanted.blocks.insert(Block::new(prefix), held);
    }
    // The other network has IPv6, for which each peer would need a VXLAN device.
    wanted.networks.remove(&network_id("a"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (kernel, _) = Kernel::open(&folder.path().join("one")).await.unwrap();
        let before = std::time::Instant::now();
        let state = bring_about(&kernel, &wanted).await;
        eprintln!("1,000 hosts: {:?}", before.elapsed());
        let routes = state
            .routes
            .values()
            .filter(|target| target.device().is_some());
        assert_eq!(routes.count(), 1000);
        let devices: BTreeSet<_> = state.links.keys().collect();
        assert!(devices.len() < 5, "no device a host: {devices:?}");
        kernel.tear_down().await.unwrap();
    });
}
