//! ESP in UDP becomes bare ESP at the device, and nothing else is changed: by packets that are made here and looked
//! at behind the filter, and, where the kernel has ESP, by traffic between two hosts.
#![cfg(test)]

#[path = "kernel_receiver/packet.rs"]
mod packet;
#[path = "kernel_receiver/wire.rs"]
mod wire;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, UdpSocket};
use std::process::Command;

use drover_kernel::{Kernel, Receiver};
use drover_testkit::capability::{Capability, can_test};
use drover_testkit::shell::{run, succeeds};
use nix::sched::{CloneFlags, unshare};
use packet::{ETHERNET, frame, received, sum, udp};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use wire::Wire;

const PORT: u16 = 4600;
const V4: (&str, &str) = ("192.0.2.2", "192.0.2.1");
const V6: (&str, &str) = ("2001:db8::2", "2001:db8::1");

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Puts the test's thread into namespaces of its own.
fn isolate() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(none, "/", none, private, none).unwrap();
    std::fs::create_dir_all("/run/netns").unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), "/run/netns", Some("tmpfs"), flags, none).unwrap();
    run("ip link set lo up");
}

/// Does something with the kernel of this thread's namespace, and leaves nothing but what the kernel holds.
fn with_kernel<T>(work: impl AsyncFnOnce(&Kernel) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("overlay");
    let done = runtime().block_on(async {
        let (kernel, _) = Kernel::open(&path).await.unwrap();
        work(&kernel).await
    });
    nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).unwrap();
    done
}

fn receiver(device: &str, address: &str) -> Receiver {
    Receiver {
        device: device.to_owned(),
        address: address.parse().unwrap(),
        further: std::collections::BTreeSet::new(),
        first_port: PORT,
    }
}

fn set(device: &str, address: &str) {
    let wanted = receiver(device, address);
    with_kernel(async |kernel| {
        assert!(kernel.set_receiver(&wanted).await.unwrap());
        assert!(!kernel.set_receiver(&wanted).await.unwrap(), "again");
        let seen = kernel.receiver(device).await.unwrap().unwrap();
        assert!(seen.is(&wanted), "{seen:?}");
    });
}

fn addresses((from, to): (&str, &str)) -> (IpAddr, IpAddr) {
    (from.parse().unwrap(), to.parse().unwrap())
}

/// As much of an ESP packet as matters.
fn esp(length: usize) -> Vec<u8> {
    let begin = [0x60, 0x02, 0, 0x41, 0, 0, 0, 7];
    begin
        .into_iter()
        .chain((0..=255).cycle())
        .take(length)
        .collect()
}

#[test]
fn esp_in_udp_becomes_bare_esp() {
    if !can_test(&[
        Capability::Namespaces,
        Capability::Forwarding,
        Capability::Tun,
    ]) {
        return;
    }
    isolate();
    for (name, family, ethernet) in [
        ("eth4", V4, true),
        ("eth6", V6, true),
        ("tun4", V4, false),
        ("tun6", V6, false),
    ] {
        let mut wire = Wire::new(name, ethernet);
        set(name, family.1);
        let (from, to) = addresses(family);
        for (port, length) in [(PORT, 8), (PORT + 7, 100), (PORT + 3, 1400), (PORT, 8900)] {
            let packet = udp(from, to, port, &esp(length));
            let bare = received(&packet, to, PORT).unwrap();
            let header = if to.is_ipv4() { 20 } else { 40 };
            assert_eq!(bare[header..], esp(length));
            if to.is_ipv4() {
                assert_eq!(sum(&bare[..20]), 0xffff, "the checksum is right");
            }
            let (packet, expected) = if ethernet {
                (frame(&packet), frame(&bare))
            } else {
                (packet, bare)
            };
            let passed = wire.through(&packet);
            assert_eq!(passed, Some(expected), "{to} {port} {length}");
        }
    }
}

#[test]
fn where_a_packet_came_from_is_noted_and_one_to_a_further_address_is_turned() {
    if !can_test(&[
        Capability::Namespaces,
        Capability::Forwarding,
        Capability::Tun,
    ]) {
        return;
    }
    isolate();
    for (name, family, further, ethernet) in [
        ("eth4", V4, ["198.51.100.77", "203.0.113.254"], true),
        ("tun6", V6, ["2001:db8:1::1", "2001:db8:ffff::fffe"], false),
    ] {
        let mut wire = Wire::new(name, ethernet);
        let (from, to) = addresses(family);
        let further = further.map(|it| it.parse::<IpAddr>().unwrap());
        let wanted = Receiver {
            further: further.into(),
            ..receiver(name, family.1)
        };
        let whole = |packet: &[u8]| {
            if ethernet {
                frame(packet)
            } else {
                packet.to_vec()
            }
        };
        with_kernel(async |kernel| {
            assert!(kernel.set_receiver(&wanted).await.unwrap());
            assert!(!kernel.set_receiver(&wanted).await.unwrap());
            assert!(kernel.sources().unwrap().is_empty());
            let expected = received(&udp(from, to, PORT + 1, &esp(100)), to, PORT).unwrap();
            for address in [to, further[0], further[1], to] {
                let packet = udp(from, address, PORT + 1, &esp(100));
                let passed = wire.through(&whole(&packet));
                assert_eq!(passed, Some(whole(&expected)), "{address}");
                let sources = kernel.sources().unwrap();
                let noted: Vec<_> = sources.iter().collect();
                let [((spi, device), source)] = noted.as_slice() else {
                    panic!("{noted:?}")
                };
                assert_eq!((spi.get(), device.as_str()), (0x6002_0041, name));
                let seen = (source.remote, source.port, source.local);
                assert_eq!(seen, (from, 40000, address));
            }
        });
    }
}

/// What must pass as it is, with what makes it so.
fn others(from: IpAddr, to: IpAddr) -> Vec<(&'static str, Vec<u8>)> {
    let own = |port, payload: &[u8]| frame(&udp(from, to, port, payload));
    let changed = |at: usize, byte| {
        let mut frame = own(PORT, &esp(100));
        frame[at] = byte;
        frame
    };
    let mut padded = own(PORT, &esp(100));
    padded.truncate(ETHERNET + 40);
    let mut tagged = own(PORT, &esp(100));
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    let mut others = vec![
        ("the port before", own(PORT - 1, &esp(100))),
        ("the port behind", own(PORT + 8, &esp(100))),
        ("a keepalive", own(PORT, &[0xff])),
        ("no ESP", own(PORT, &[0; 60])),
        ("another's SPI", own(PORT, &[0xc1; 60])),
        ("no sequence number", own(PORT, &esp(7))),
        ("an empty datagram", own(PORT, &[])),
        ("a truncated packet", padded),
        ("another VLAN", tagged),
        ("another link address", changed(5, 9)),
        ("another type of frame", changed(13, 0xff)),
        ("only headers", own(PORT, &esp(100))[..ETHERNET].to_vec()),
    ];
    let ip = ETHERNET;
    if to.is_ipv4() {
        others.extend([
            ("another address", changed(ip + 19, 9)),
            ("TCP", changed(ip + 9, 6)),
            ("options", changed(ip, 0x46)),
            ("version 6", changed(ip, 0x65)),
            ("a first fragment", changed(ip + 6, 0x20)),
            ("a later fragment", changed(ip + 7, 1)),
            ("a length beyond the end", changed(ip + 2, 1)),
            ("another datagram's length", changed(ip + 25, 100)),
        ]);
    } else {
        others.extend([
            ("another address", changed(ip + 39, 9)),
            ("TCP", changed(ip + 6, 6)),
            ("a fragment", changed(ip + 6, 44)),
            ("version 4", changed(ip, 0x45)),
            ("a length beyond the end", changed(ip + 4, 1)),
            ("another datagram's length", changed(ip + 45, 100)),
        ]);
    }
    others
}

#[test]
fn everything_else_is_left_alone() {
    if !can_test(&[
        Capability::Namespaces,
        Capability::Forwarding,
        Capability::Tun,
    ]) {
        return;
    }
    isolate();
    for (name, family) in [("eth4", V4), ("eth6", V6)] {
        let mut wire = Wire::new(name, true);
        set(name, family.1);
        let (from, to) = addresses(family);
        for (what, frame) in others(from, to) {
            let passed = wire.through(&frame);
            assert_eq!(passed, Some(frame), "{what} to {to}");
        }
        let mut prior = frame(&udp(from, to, PORT, &esp(100)));
        prior.splice(12..12, [0x81, 0, 0x60, 0]);
        let passed = wire.through(&prior).unwrap();
        assert_eq!(passed.len(), prior.len() - 8, "priority without a VLAN");
    }
}

#[test]
fn a_receiver_is_replaced_and_removed_without_touching_others() {
    if !can_test(&[
        Capability::Namespaces,
        Capability::Forwarding,
        Capability::Tun,
    ]) {
        return;
    }
    isolate();
    run("ip link add eth0 type veth peer name far");
    let others = with_kernel(async |kernel| {
        let wanted = receiver("eth0", V4.1);
        assert_eq!(kernel.receiver("eth0").await.unwrap(), None);
        assert!(!kernel.remove_receiver("eth0").await.unwrap());
        assert!(!kernel.remove_receiver("nowhere").await.unwrap());
        let missing = kernel.set_receiver(&receiver("nowhere", V4.1)).await;
        assert!(missing.is_err());

        // Somebody else's filter of another kind holds the first priority, one of the same kind the second.
        run("tc qdisc add dev eth0 clsact");
        run("tc filter add dev eth0 ingress prio 1 protocol ip u32 match ip protocol 6 0xff");
        let mut other = Command::new("tc");
        other.args("filter add dev eth0 ingress prio 2 bpf da bytecode".split(' '));
        assert!(other.arg("1,6 0 0 0").status().unwrap().success());
        let others = run("tc filter show dev eth0 ingress");
        assert!(kernel.set_receiver(&wanted).await.unwrap());
        let seen = kernel.receiver("eth0").await.unwrap().unwrap();
        assert!(seen.is(&wanted) && seen.priority() == 2, "{seen:?}");
        let moved = Receiver {
            first_port: 4700,
            ..wanted.clone()
        };
        assert!(!seen.is(&moved));
        assert!(kernel.set_receiver(&moved).await.unwrap());
        let listing = run("tc filter show dev eth0 ingress");
        assert_eq!(listing.matches("drover_esp_").count(), 1, "{listing}");
        let seen = kernel.receiver("eth0").await.unwrap().unwrap();
        assert!(seen.is(&moved) && seen.priority() == 2, "{seen:?}");
        assert_eq!(kernel.receivers().await.unwrap(), [seen]);
        assert!(kernel.remove_receiver("eth0").await.unwrap());
        assert_eq!(kernel.receiver("eth0").await.unwrap(), None);
        assert_eq!(run("tc filter show dev eth0 ingress"), others);
        assert!(kernel.set_receiver(&wanted).await.unwrap());
        assert!(kernel.set_receiver(&receiver("far", V6.1)).await.unwrap());
        assert_eq!(kernel.receivers().await.unwrap().len(), 2);
        others
    });
    // A tear-down takes them along.
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let (kernel, _) = Kernel::open(&folder.path().join("overlay")).await.unwrap();
        kernel.tear_down().await.unwrap();
        assert_eq!(kernel.receivers().await.unwrap(), []);
    });
    assert_eq!(run("tc filter show dev eth0 ingress"), others);
}

fn frames(family: (&str, &str)) -> impl Strategy<Value = Vec<u8>> {
    let (from, to) = addresses(family);
    let port = prop_oneof![4 => PORT..PORT + 8, 1 => PORT - 2..PORT + 10, 1 => any::<u16>()];
    let payload = prop_oneof![
        3 => (0..1500_usize).prop_map(esp),
        1 => prop::collection::vec(any::<u8>(), 0..100)
    ];
    // What is likely to matter lies in the headers.
    let changes = prop::collection::vec((0..80_usize, any::<u8>()), 0..3);
    let rest = prop_oneof![4 => Just(0_i32), 1 => -200..200_i32];
    let crafted = (port, payload, changes, rest).prop_map(move |(port, payload, changes, rest)| {
        let mut frame = frame(&udp(from, to, port, &payload));
        for (at, byte) in changes {
            if let Some(old) = frame.get_mut(at) {
                *old = byte;
            }
        }
        let length = i32::try_from(frame.len()).unwrap() + rest;
        frame.resize(usize::try_from(length).unwrap_or(0).max(ETHERNET), 0x66);
        frame
    });
    let random = prop::collection::vec(any::<u8>(), ETHERNET..200);
    prop_oneof![9 => crafted, 1 => random]
}

/// What ought to become of a frame without a VLAN's tag.
fn expected(frame: &[u8], to: IpAddr) -> Option<Vec<u8>> {
    let (header, packet) = frame.split_at(ETHERNET);
    let kind: [u8; 2] = if to.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
    let ours = header[..6] == wire::OWN && header[12..] == kind;
    let bare = received(packet.get(..).filter(|_| ours)?, to, PORT)?;
    Some([header, &bare].concat())
}

#[test]
fn whatever_comes_is_either_unchanged_or_what_it_should_be() {
    if !can_test(&[
        Capability::Namespaces,
        Capability::Forwarding,
        Capability::Tun,
    ]) {
        return;
    }
    isolate();
    for (name, family) in [("eth4", V4), ("eth6", V6)] {
        let wire = RefCell::new(Wire::new(name, true));
        set(name, family.1);
        let to = addresses(family).1;
        let stripped = Cell::new(0_u32);
        let mut runner = TestRunner::new(Config {
            cases: 3000,
            failure_persistence: None,
            ..Config::default()
        });
        let ran = runner.run(&frames(family), |frame| {
            prop_assume!(![[0x81, 0], [0x88, 0xa8]].contains(&[frame[12], frame[13]]));
            let bare = expected(&frame, to);
            stripped.set(stripped.get() + u32::from(bare.is_some()));
            let passed = wire.borrow_mut().through(&frame);
            prop_assert_eq!(passed, Some(bare.unwrap_or(frame)));
            Ok(())
        });
        ran.unwrap();
        let stripped = stripped.get();
        assert!((500..2500).contains(&stripped), "of 3,000: {stripped}");
    }
}

/// A second host, as namespace `two`.
fn second_host() {
    run("ip netns add two");
    run("ip link add eth0 type veth peer name eth0 netns two");
    for (host, inside) in [(1, ""), (2, "-n two ")] {
        run(&format!("ip {inside}link set lo up"));
        run(&format!("ip {inside}addr add 192.0.2.{host}/24 dev eth0"));
        run(&format!(
            "ip {inside}addr add 2001:db8::{host}/64 dev eth0 nodad"
        ));
        run(&format!("ip {inside}link set eth0 up"));
    }
}

/// Does something on a thread in the namespace `two`.
fn on_second_host<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        let file = std::fs::File::open("/run/netns/two").unwrap();
        nix::sched::setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
}

#[test]
fn what_a_socket_sends_as_one_is_left_alone() {
    if !can_test(&[
        Capability::Namespaces,
        Capability::Forwarding,
        Capability::Tun,
    ]) {
        return;
    }
    isolate();
    second_host();
    for family in [V4, V6] {
        set("eth0", family.1);
        let (_, to) = addresses(family);
        let listening = UdpSocket::bind((to, PORT)).unwrap();
        let limit = Some(std::time::Duration::from_secs(5));
        listening.set_read_timeout(limit).unwrap();
        let sending = on_second_host(|| {
            let any: IpAddr = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
            UdpSocket::bind((any, 0)).unwrap()
        });
        // By itself it becomes ESP, and the socket gets only what comes behind it.
        sending.send_to(&esp(300), (to, PORT)).unwrap();
        let segment = nix::sys::socket::sockopt::UdpGsoSegment;
        nix::sys::socket::setsockopt(&sending, segment, &100).unwrap();
        sending.send_to(&esp(300), (to, PORT)).unwrap();
        let mut buffer = [0; 1000];
        for _segment in 0..3 {
            assert_eq!(listening.recv(&mut buffer).unwrap(), 100, "{to}");
        }
    }
}

const KEY: &str = "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223 128";

/// Both hosts' associations and policies between two underlay addresses: sent by UDP, received bare.
fn encrypt(interface: &str, id: u8, ends: (&str, &str)) {
    let (two, one) = ends;
    let any = if one.contains(':') { "::" } else { "0.0.0.0" };
    for (host, inside, own, other) in [(1, "", one, two), (2, "-n two ", two, one)] {
        run(&format!(
            "ip {inside}link add {interface} type xfrm if_id {id}"
        ));
        run(&format!(
            "ip {inside}addr add 10.9.{id}.{host}/24 dev {interface}"
        ));
        run(&format!("ip {inside}link set {interface} mtu 1380 up"));
        let udp = format!("encap espinudp {PORT} {PORT} {any}");
        let receiver = 3 - host;
        for (from, to, spi, encap) in [
            (own, other, format!("0x600{host}00{id:02}"), udp.as_str()),
            (other, own, format!("0x600{receiver}00{id:02}"), ""),
        ] {
            run(&format!(
                "ip {inside}xfrm state add src {from} dst {to} proto esp spi {spi} reqid {id} mode tunnel \
                 {KEY} flag af-unspec if_id {id} {encap}"
            ));
        }
        for (direction, from, to) in [("out", own, other), ("in", other, own)] {
            run(&format!(
                "ip {inside}xfrm policy add dir {direction} src 0.0.0.0/0 dst 0.0.0.0/0 if_id {id} \
                 tmpl src {from} dst {to} proto esp reqid {id} mode tunnel"
            ));
        }
    }
}

#[test]
fn two_hosts_that_send_esp_in_udp_hear_each_other_without_a_socket() {
    if !can_test(&[
        Capability::Namespaces,
        Capability::Nftables,
        Capability::Esp,
        Capability::Tun,
    ]) {
        return;
    }
    isolate();
    second_host();
    run("nft add table inet seen");
    run("nft add chain inet seen input { type filter hook input priority 0; }");
    run("nft add rule inet seen input udp dport 4600-4607 counter");
    run("nft add rule inet seen input meta l4proto esp counter");
    for (interface, id, family) in [("dip4", 4, V4), ("dip6", 6, V6)] {
        encrypt(interface, id, family);
        let ping = format!("ping -c 2 -W 3 -s 1200 10.9.{id}.2");
        assert!(!succeeds(&ping), "without a receiver");
        set("eth0", family.1);
        on_second_host(|| set("eth0", family.0));
        // All that held a receiver, but for the kernel itself, is closed.
        assert!(succeeds(&ping), "{}", family.1);
        on_second_host(|| {
            with_kernel(async |kernel| assert!(kernel.remove_receiver("eth0").await.unwrap()));
        });
        assert!(!succeeds(&ping), "after its removal");
        with_kernel(async |kernel| assert!(kernel.remove_receiver("eth0").await.unwrap()));
    }
    let seen = run("nft list table inet seen");
    let count = |rule: &str| {
        let line = seen.lines().find(|line| line.contains(rule)).unwrap();
        let packets = line
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        packets
            .skip(1)
            .map(|count| count.parse::<u32>().unwrap())
            .next()
    };
    assert_eq!(count("udp dport"), Some(0), "{seen}");
    assert!(count("esp") >= Some(4), "{seen}");
}
