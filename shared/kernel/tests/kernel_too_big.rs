//! What a router says of a packet that is too large for the next link is heard, and says where the packet went.
#![cfg(test)]

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use drover_kernel::Kernel;
use drover_testkit::capability::{Capability, can_test};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// This host, a router, and a host behind a link of 1300 bytes.
const LINKS: [&str; 18] = [
    "ip link set lo up",
    "ip netns add router",
    "ip netns add far",
    "ip link add eth0 type veth peer name near netns router",
    "ip -n router link add away mtu 1300 type veth peer name eth0 netns far",
    "ip addr add 192.0.2.1/24 dev eth0",
    "ip addr add 2001:db8:1::1/64 dev eth0 nodad",
    "ip link set eth0 up",
    "ip -n router addr add 192.0.2.254/24 dev near",
    "ip -n router addr add 2001:db8:1::fe/64 dev near nodad",
    "ip -n router addr add 203.0.113.254/24 dev away",
    "ip -n router addr add 2001:db8:2::fe/64 dev away nodad",
    "ip -n router link set near up",
    "ip -n router link set away up",
    "ip netns exec router sysctl -qw net.ipv4.ip_forward=1",
    "ip netns exec router sysctl -qw net.ipv6.conf.all.forwarding=1",
    "ip route add default via 192.0.2.254",
    "ip -6 route add default via 2001:db8:1::fe",
];

fn run(line: &str) {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    let output = command.args(words).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
}

/// Puts the test's thread into namespaces of its own, which go with it.
fn isolate() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).unwrap();
    std::fs::create_dir_all("/run/netns").unwrap();
    let names = Some("tmpfs");
    mount(Some("none"), "/run/netns", names, MsFlags::empty(), none).unwrap();
    LINKS.iter().for_each(|line| run(line));
}

/// Sends a packet of so many bytes beside its headers, which must not be cut.
fn send(from: &str, to: IpAddr, bytes: usize) {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.send_to(&vec![0; bytes], (to, 4740)).unwrap();
}

#[test]
fn a_router_that_carries_less_is_heard() {
    if !can_test(&[Capability::Namespaces]) {
        return;
    }
    isolate();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("overlay");
    let mut building = tokio::runtime::Builder::new_current_thread();
    let runtime = building.enable_all().build().unwrap();
    runtime.block_on(async {
        let (kernel, _) = Kernel::open(&path).await.unwrap();
        let heard = kernel.too_big().await.unwrap();
        for (own, far) in [
            ("192.0.2.1", "203.0.113.9"),
            ("2001:db8:1::1", "2001:db8:2::9"),
        ] {
            let far: IpAddr = far.parse().unwrap();
            send(own, far, 1400);
            let limit = Duration::from_secs(10);
            let destination = tokio::time::timeout(limit, heard.next()).await;
            assert_eq!(destination.unwrap().unwrap(), far);
        }
    });
    umount2(&path, MntFlags::MNT_DETACH).unwrap();
}
