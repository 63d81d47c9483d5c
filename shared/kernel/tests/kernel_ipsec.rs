//! Encrypted paths in the real kernel, between two hosts in namespaces of the test's own: containers reach each other
//! in full size, nothing of what they say is seen on the way, epochs change under traffic, what was made once
//! is never made again, and a tear-down leaves what is not ours.
#![cfg(test)]

#[path = "kernel_ipsec/host.rs"]
mod host;
#[path = "kernel_ipsec/wire.rs"]
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use drover_ipsec::{Direction, Epoch, Lane};
use drover_kernel::{Kernel, Target};
use drover_overlay::{Step, Way, lower, name, plan};
use drover_testkit::capability::{Capability, can_test};
use drover_testkit::shell::{run, succeeds};
use host::{FIRST, Hosts, LANES, SECOND, Underlay, epoch, within};
use wire::MARKER;

/// How long a condition may take to come about. The machine may be an emulated one.
const PATIENCE: Duration = Duration::from_secs(60);

/// The addresses of host 2's container.
const PEERS: [&str; 2] = ["10.42.2.5", "fd00:42::2:5"];

/// Runs a test on a thread of its own, where the machine can.
fn with_hosts<F>(underlay: Underlay, test: F)
where
    F: AsyncFnOnce(&mut Hosts) + Send + 'static,
{
    if !can_test(&[
        Capability::Namespaces,
        Capability::Nftables,
        Capability::Esp,
        Capability::Tun,
    ]) {
        return;
    }
    let tested = std::thread::spawn(move || {
        let folder = tempfile::tempdir().unwrap();
        let (runtime, mut hosts) = Hosts::make(folder.path(), underlay);
        runtime.block_on(test(&mut hosts));
        runtime.block_on(hosts.tear_down());
    });
    tested.join().unwrap();
}

/// Whether container 1 hears an address, with packets that tell themselves on the wire.
fn hears(to: &str, options: &str) -> bool {
    succeeds(&format!(
        "ip netns exec c1 ping -q -c 2 -i 0.2 -W 10 -p {} {options} {to}",
        wire::pattern()
    ))
}

fn is_deaf() -> bool {
    PEERS.iter().all(|peer| {
        let ping = format!(
            "ip netns exec c1 ping -q -c 2 -i 0.2 -W 1 -p {}",
            wire::pattern()
        );
        !succeeds(&format!("{ping} {peer}"))
    })
}

/// How many packets each of a host's associations of an epoch has carried, by direction and lane.
async fn carried(kernel: &Kernel, here: u8, of: (u64, u64)) -> BTreeMap<(Direction, Lane), u64> {
    let wanted = epoch(here, of);
    let counters = kernel.association_counters().await.unwrap();
    let counted = counters.iter().filter_map(|counted| {
        let spi = counted.id.spi;
        let sent = spi.sender().unwrap().get() == u16::from(here);
        let (direction, tags) = if sent {
            (Direction::Send, (spi.sender_tag(), spi.receiver_tag()))
        } else {
            (Direction::Receive, (spi.receiver_tag(), spi.sender_tag()))
        };
        assert_eq!((counted.replayed, counted.forged), (0, 0), "{counted:?}");
        let epoch = Epoch {
            own: tags.0,
            peer: tags.1,
        };
        (epoch == wanted).then_some(((direction, spi.lane()), counted.packets))
    });
    counted.collect()
}

async fn sent(kernel: &Kernel, here: u8, of: (u64, u64)) -> Vec<u64> {
    let carried = carried(kernel, here, of).await;
    let sent = carried
        .iter()
        .filter(|((direction, _), _)| *direction == Direction::Send);
    sent.map(|(_, packets)| *packets).collect()
}

fn check_sizes(hosts: &Hosts) {
    let mtu = hosts.mtu();
    for (peer, headers) in PEERS.iter().zip([28, 48]) {
        let full = format!("-M do -s {}", mtu - headers);
        assert!(hears(peer, &full), "full size to {peer}");
        let over = format!("-M do -s {}", mtu - headers + 1);
        assert!(!hears(peer, &over), "over size to {peer}");
        // In fragments, which have no ports.
        assert!(hears(peer, "-s 4000"), "fragments to {peer}");
    }
}

/// Many flows, which are spread over lanes, and each of which arrives whole.
fn flows() {
    const LENGTH: usize = 100_000;
    for peer in PEERS {
        let to: IpAddr = peer.parse().unwrap();
        let (told, address) = std::sync::mpsc::channel();
        let listening = within("c2", move || {
            let listener = TcpListener::bind((to, 0)).unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            for _flow in 0..8 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut whole = Vec::new();
                stream.read_to_end(&mut whole).unwrap();
                assert_eq!(whole.len(), LENGTH);
                assert!(whole.chunks(MARKER.len()).all(|it| MARKER.starts_with(it)));
                stream.write_all(b"whole").unwrap();
            }
        });
        let address = address.recv().unwrap();
        within("c1", move || {
            let whole: Vec<u8> = MARKER.iter().copied().cycle().take(LENGTH).collect();
            for _flow in 0..8 {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(&whole).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).unwrap();
                assert_eq!(answer, b"whole");
            }
            // Without anybody who listens: only the way there counts.
            for _flow in 0..32 {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).unwrap();
                socket.send_to(MARKER, (to, 4)).unwrap();
            }
        })
        .join()
        .unwrap();
        listening.join().unwrap();
    }
}

async fn reach_each_other(hosts: &mut Hosts) {
    for host in [&hosts.one, &hosts.two] {
        host.kernel.encryption().await.unwrap();
        // What was tried is gone.
        assert_eq!(host.run("ip xfrm state"), "");
        assert!(!host.run("ip link").contains("dvr-try"));
    }
    // Received, and not sent yet: nothing leaves, encrypted or not.
    hosts.set_epochs(&[FIRST], None, None);
    hosts.bring_about().await;
    hosts.start_containers();
    assert!(is_deaf(), "packets pass without an epoch to send by");
    let counters = hosts.one.kernel.counters().await.unwrap();
    assert!(counters["dip2"].dropped >= 4, "{counters:?}");
    assert_eq!(sent(&hosts.one.kernel, 1, FIRST).await, [0, 0]);

    hosts.set_epochs(&[FIRST], Some(FIRST), None);
    hosts.bring_about().await;
    for peer in PEERS {
        assert!(hears(peer, ""), "{peer}");
    }
    check_sizes(hosts);
    // Nothing of this had ports, and all of it travelled in order.
    let before = sent(&hosts.one.kernel, 1, FIRST).await;
    assert!(before[0] >= 20 && before[1] == 0, "{before:?}");
    flows();
    let after = sent(&hosts.one.kernel, 1, FIRST).await;
    assert!(after[0] > before[0] + 50 && after[1] > 50, "{after:?}");
    // The last ones may still be on their way.
    let end = Instant::now() + PATIENCE;
    for (lane, sent) in Lane::first(LANES).zip(after) {
        while carried(&hosts.two.kernel, 2, FIRST).await[&(Direction::Receive, lane)] < sent {
            assert!(
                Instant::now() < end,
                "{sent} packets of {lane:?} do not come"
            );
        }
    }

    // Opened again, as after a crash: nothing to do, and no packet waits for it.
    hosts.forget_keys();
    hosts.reopen_first();
    assert!(hears(PEERS[0], ""));
    hosts.bring_about().await;
    assert!(hears(PEERS[1], ""));
    let seen = hosts.wire.seen();
    let (travelled, not) = if hosts.underlay.is_in_udp() {
        (seen.in_udp, seen.bare)
    } else {
        (seen.bare, seen.in_udp)
    };
    assert!(travelled > 200 && not == 0, "{seen:?}");
    assert_eq!((seen.clear, seen.fragments), (0, 0), "{seen:?}");
    assert!((1490..=1500).contains(&seen.longest), "{seen:?}");
}

#[test]
fn containers_reach_each_other_over_ipv4() {
    with_hosts(Underlay::V4, reach_each_other);
}

#[test]
fn containers_reach_each_other_over_ipv6() {
    with_hosts(Underlay::V6, reach_each_other);
}

#[test]
fn containers_reach_each_other_in_udp_over_ipv4() {
    with_hosts(Underlay::V4InUdp, reach_each_other);
}

#[test]
fn containers_reach_each_other_in_udp_over_ipv6() {
    with_hosts(Underlay::V6InUdp, reach_each_other);
}

#[test]
fn the_wire_sees_what_is_clear() {
    with_hosts(Underlay::V4, async |hosts: &mut Hosts| {
        run(&format!("ping -q -c 2 -p {} 192.0.2.2", wire::pattern()));
        assert!(hosts.wire.seen().clear >= 4);
    });
}

/// A flood of small packets from container 1.
fn flood() -> Child {
    let line = format!("netns exec c1 ping -q -i 0.005 -W 10 {}", PEERS[0]);
    let mut ping = Command::new("ip");
    ping.args(line.split(' ')).stdout(Stdio::piped());
    ping.spawn().unwrap()
}

/// Ends it as a person does, so that it says what was lost.
fn lost(mut flood: Child) -> String {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(flood.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let mut said = String::new();
    flood
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    flood.wait().unwrap();
    said
}

#[test]
fn an_epoch_follows_another_without_a_packet_lost() {
    with_hosts(Underlay::V4, async |hosts: &mut Hosts| {
        hosts.set_epochs(&[FIRST], Some(FIRST), None);
        hosts.bring_about().await;
        hosts.start_containers();
        assert!(hears(PEERS[0], ""));
        let flood = flood();
        // The next epoch is there on both sides, and not tried: its mark leads nowhere.
        hosts.set_epochs(&[FIRST, SECOND], Some(FIRST), None);
        hosts.bring_about().await;
        let probe = Target::routed(name::ipsec_probe(2.try_into().unwrap()).into());
        let tried = Target { mark: 8, ..probe };
        let prober = hosts.one.kernel.prober();
        let both = BTreeSet::from([probe, tried]);
        assert_eq!(
            prober.ask(both.clone()).await.unwrap().answered,
            BTreeSet::from([probe])
        );
        assert_eq!(sent(&hosts.one.kernel, 1, SECOND).await, [0, 0]);
        hosts.set_epochs(&[FIRST, SECOND], Some(FIRST), Some(SECOND));
        hosts.bring_about().await;
        assert_eq!(prober.ask(both.clone()).await.unwrap().answered, both);
        assert!(sent(&hosts.one.kernel, 1, SECOND).await[0] >= 1);
        // One host changes over, then the other.
        hosts.forget_keys();
        for host in [1, 2] {
            hosts.set_send(host, SECOND);
            hosts.bring_about().await;
            let kernel = if host == 1 {
                &hosts.one.kernel
            } else {
                &hosts.two.kernel
            };
            let before = sent(kernel, host, SECOND).await[0];
            let old = sent(kernel, host, FIRST).await[0];
            let end = Instant::now() + PATIENCE;
            while sent(kernel, host, SECOND).await[0] < before + 20 {
                assert!(Instant::now() < end, "nothing goes by the new epoch");
            }
            assert_eq!(sent(kernel, host, FIRST).await[0], old);
        }
        hosts.keep_epochs(&[SECOND]);
        hosts.bring_about().await;
        assert_eq!(carried(&hosts.one.kernel, 1, FIRST).await, BTreeMap::new());
        let before = sent(&hosts.one.kernel, 1, SECOND).await[0];
        let end = Instant::now() + PATIENCE;
        while sent(&hosts.one.kernel, 1, SECOND).await[0] < before + 20 {
            assert!(Instant::now() < end, "nothing goes by the new epoch");
        }
        let said = lost(flood);
        assert!(said.contains(" 0% packet loss"), "{said}");
        assert_eq!(hosts.wire.seen().clear, 0);
    });
}

#[test]
fn what_was_made_once_is_never_made_again() {
    with_hosts(Underlay::V4, async |hosts: &mut Hosts| {
        hosts.set_epochs(&[FIRST], Some(FIRST), None);
        let wanted = lower(&hosts.one.desired);
        hosts.bring_about().await;
        hosts.start_containers();
        assert!(hears(PEERS[0], ""));
        let first = plan(&wanted, &drover_overlay::State::default());
        let made: Vec<Step> = first
            .steps
            .iter()
            .filter(|step| matches!(step, Step::AddAssociation { .. }))
            .cloned()
            .collect();
        assert_eq!(made.len(), 2 * usize::from(LANES));
        let before = carried(&hosts.one.kernel, 1, FIRST).await;
        let again = drover_overlay::Plan { steps: made };
        let failed = hosts.one.kernel.apply(&again).await;
        assert_eq!(failed.len(), 2 * usize::from(LANES), "{failed:?}");
        assert_eq!(carried(&hosts.one.kernel, 1, FIRST).await, before);
        assert!(!format!("{failed:?}").contains("1, 1, 1"), "a key is told");

        // One that somebody has removed stays away, and what went by it is dropped.
        hosts.forget_keys();
        run("ip xfrm state deleteall src 192.0.2.1 dst 192.0.2.2");
        hosts.bring_about().await;
        assert!(is_deaf());
        assert_eq!(sent(&hosts.one.kernel, 1, FIRST).await, [0_u64; 0]);
        let drops = hosts.one.kernel.drops().await.unwrap();
        assert!(drops.security["XfrmOutNoStates"] >= 4, "{drops:?}");
        let seen = hosts.wire.seen();
        assert_eq!(seen.clear, 0, "{seen:?}");
    });
}

#[test]
fn what_is_not_ours_stays_and_what_is_ours_goes() {
    const THEIRS: [&str; 2] = [
        "ip xfrm state add src 192.0.2.8 dst 192.0.2.9 proto esp spi 7 mode transport \
         aead rfc4106(gcm(aes)) 0x0011223344556677889900112233445566778899 128",
        "ip xfrm policy add dst 198.51.100.0/24 dir out if_id 7 tmpl src 192.0.2.8 dst 192.0.2.9 proto esp mode tunnel",
    ];
    with_hosts(Underlay::V4, async |hosts: &mut Hosts| {
        for line in THEIRS {
            run(line);
        }
        let theirs = || [run("ip xfrm state"), run("ip xfrm policy")];
        let before = theirs();
        // One of ours that a crash has kept from being moved is made anew; what only has its name stays.
        run("ip link add dip2 type xfrm if_id 0x64720002");
        run("ip link add dip3 type dummy");
        run("ip link add dip4 type xfrm if_id 0x64720005");
        hosts.set_epochs(&[FIRST, SECOND], Some(FIRST), Some(SECOND));
        hosts.bring_about().await;
        // On an interface of ours, with an index that we never give.
        run(
            "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x7 mode tunnel if_id 0x64720002 \
             aead rfc4106(gcm(aes)) 0x0011223344556677889900112233445566778899 128",
        );
        hosts.set_epochs(&[SECOND], Some(SECOND), None);
        hosts.bring_about().await;
        assert_ne!(theirs(), before);
        hosts.one.kernel.tear_down().await.unwrap();
        assert_eq!(theirs(), before);
        let links = run("ip link");
        assert!(links.contains("dip3") && links.contains("dip4"), "{links}");
        assert!(!links.contains("dip2"), "{links}");
    });
}

/// Where packets of the first host's lanes came from, and to which address of the second they went.
fn sources(kernel: &Kernel) -> BTreeSet<(u8, String, String)> {
    let sources = kernel.sources().unwrap();
    let told = sources.iter().map(|((spi, _), source)| {
        let from = format!("{}:{}", source.remote, source.port);
        (spi.lane().get(), from, source.local.to_string())
    });
    told.collect()
}

#[test]
fn a_way_is_tried_and_taken_without_an_association_made_anew() {
    with_hosts(Underlay::V4InUdp, async |hosts: &mut Hosts| {
        hosts.set_epochs(&[FIRST], Some(FIRST), None);
        hosts.bring_about().await;
        hosts.start_containers();
        assert!(hears(PEERS[0], ""));
        hosts.forget_keys();
        let first = |from: &str, to: &str| (0, from.to_owned(), to.to_owned());
        let told = sources(&hosts.two.kernel);
        assert!(
            told.contains(&first("192.0.2.1:4600", "192.0.2.2")),
            "{told:?}"
        );
        hosts.add_addresses(["198.51.100.1", "198.51.100.2"]).await;
        let way = |remote: &str| Way {
            local: "198.51.100.1".parse().unwrap(),
            remote: remote.parse().unwrap(),
            port: 4700,
        };
        let probe = Target::routed(name::ipsec_probe(2.try_into().unwrap()).into());
        let trial = |attempt| Target {
            mark: 0x10,
            attempt,
            ..probe
        };
        let before = sent(&hosts.one.kernel, 1, FIRST).await[0];
        for (attempt, remote, reaches) in [(1, "198.51.100.9", false), (2, "198.51.100.2", true)] {
            hosts.set_ways(&[], &[(Lane::FIRST, way(remote))]);
            hosts.bring_about().await;
            let asked = BTreeSet::from([probe, trial(attempt)]);
            let prober = hosts.one.kernel.prober();
            let answered = prober.ask(asked).await.unwrap().answered;
            assert!(answered.contains(&probe), "{answered:?}");
            assert_eq!(answered.contains(&trial(attempt)), reaches, "{answered:?}");
        }
        // All goes by it, from the port that the lane has, and with the numbers that follow.
        hosts.set_ways(&[(Lane::FIRST, way("198.51.100.2"))], &[]);
        hosts.bring_about().await;
        assert!(hears(PEERS[0], ""));
        let told = sources(&hosts.two.kernel);
        assert!(
            told.contains(&first("198.51.100.1:4600", "198.51.100.2")),
            "{told:?}"
        );
        assert!(sent(&hosts.one.kernel, 1, FIRST).await[0] > before + 4);
        let seen = hosts.wire.seen();
        assert!(seen.in_udp > 8, "{seen:?}");
        assert_eq!((seen.clear, seen.summed), (0, 0), "{seen:?}");
    });
}
