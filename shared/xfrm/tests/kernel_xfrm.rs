//! Associations and policies of two hosts in the real kernel, in namespaces of the test's own: packets of both
//! families pass, by the association that the policy names and by no other, and what is listed is what was set.
#![cfg(test)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use drover_ipsec::KeyMaterial;
use drover_model::Family;
use drover_testkit::capability::{Capability, can_test};
use drover_testkit::shell::{run, succeeds};
use drover_xfrm::{PolicyDirection, PolicyId, PolicySpec, SeenState, Shape, StateSpec, Xfrm};
use nix::sched::{CloneFlags, setns, unshare};
use zeroize::Zeroizing;

const IF_ID: u32 = 0x6472_0001;
const WINDOW: u32 = 4096;
/// From host `a` to host `b` by two lanes, and back.
const FIRST: u32 = 0x6001_0001;
const SECOND: u32 = 0x6001_1001;
const BACK: u32 = 0x6002_0001;

/// Two hosts, `a` and `b`. Each has a network namespace, which `eth0` is in, and one with an interface `dip1` alone.
struct Hosts {
    a: Xfrm,
    b: Xfrm,
    a_address: IpAddr,
    b_address: IpAddr,
}

/// Whether host `a` hears host `b` through the tunnel, for a mark of its packets.
fn hears(mark: u32) -> bool {
    ["10.42.0.2", "fd00:42::2"].iter().all(|peer| {
        succeeds(&format!(
            "ip netns exec a-inside ping -q -c 3 -i 0.2 -W 5 -m {mark} {peer}"
        ))
    })
}

fn is_deaf() -> bool {
    ["10.42.0.2", "fd00:42::2"]
        .iter()
        .all(|peer| !succeeds(&format!("ip netns exec a-inside ping -q -c 2 -W 1 {peer}")))
}

/// Opens a socket in a namespace, on a thread that ends in it.
fn open(namespace: &str) -> Xfrm {
    let runtime = tokio::runtime::Handle::current();
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    std::thread::spawn(move || {
        let _inside = runtime.enter();
        setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
        Xfrm::open().unwrap()
    })
    .join()
    .unwrap()
}

impl Hosts {
    /// Puts the test's thread into namespaces of its own and makes the hosts there.
    fn make(a_address: &str, b_address: &str) -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(none, "/", none, private, none).unwrap();
        std::fs::create_dir_all("/run/netns").unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("none"), "/run/netns", Some("tmpfs"), flags, none).unwrap();
        for (number, host) in [(1, "a"), (2, "b")] {
            run(&format!("ip netns add {host}"));
            run(&format!("ip netns add {host}-inside"));
            run(&format!(
                "ip -n {host} link add dip1 type xfrm if_id {IF_ID}"
            ));
            run(&format!("ip -n {host} link set dip1 netns {host}-inside"));
            let inside = format!("ip -n {host}-inside");
            run(&format!("{inside} link set dip1 addrgenmode none"));
            run(&format!("{inside} addr add 10.42.0.{number}/24 dev dip1"));
            run(&format!(
                "{inside} addr add fd00:42::{number}/64 dev dip1 nodad"
            ));
            run(&format!("{inside} link set dip1 up"));
        }
        run("ip -n a link add eth0 type veth peer name eth0 netns b");
        for (host, address) in [("a", a_address), ("b", b_address)] {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            let length = if address.contains(':') { 64 } else { 24 };
            run(&format!("ip -n {host} link set lo up"));
            run(&format!(
                "ip -n {host} addr add {address}/{length} dev eth0 {nodad}"
            ));
            run(&format!("ip -n {host} link set eth0 up"));
        }
        Self {
            a: open("a"),
            b: open("b"),
            a_address: a_address.parse().unwrap(),
            b_address: b_address.parse().unwrap(),
        }
    }

    fn state<'a>(&self, spi: u32, key: &'a KeyMaterial) -> StateSpec<'a> {
        let (source, destination) = if spi == BACK {
            (self.b_address, self.a_address)
        } else {
            (self.a_address, self.b_address)
        };
        StateSpec {
            spi,
            source,
            destination,
            if_id: IF_ID,
            request: IF_ID,
            udp: None,
            key,
            window: WINDOW,
        }
    }

    /// Adds a state on both hosts.
    async fn add(&self, spi: u32, key: &KeyMaterial) {
        for host in [&self.a, &self.b] {
            host.add_state(&self.state(spi, key)).await.unwrap();
        }
    }

    /// The policy of host `a` for what goes out.
    fn out(&self, family: Family, mark: Option<u32>, spi: u32) -> PolicySpec {
        PolicySpec {
            id: PolicyId {
                if_id: IF_ID,
                direction: PolicyDirection::Out,
                family,
                mark,
            },
            source: self.a_address,
            destination: self.b_address,
            spi: Some(spi),
            request: IF_ID,
        }
    }

    /// Lets host `a` send by a state.
    async fn send_by(&self, mark: Option<u32>, spi: u32) {
        for family in [Family::V4, Family::V6] {
            let policy = self.out(family, mark, spi);
            self.a.set_policy(&policy).await.unwrap();
        }
    }

    /// The other policies: host `b` answers, and both take in what came encrypted from anywhere.
    async fn answer(&self) {
        let any: IpAddr = if self.a_address.is_ipv4() {
            [0; 4].into()
        } else {
            [0_u8; 16].into()
        };
        for family in [Family::V4, Family::V6] {
            let mut back = self.out(family, None, BACK);
            (back.source, back.destination) = (self.b_address, self.a_address);
            self.b.set_policy(&back).await.unwrap();
            for (host, own) in [(&self.a, self.a_address), (&self.b, self.b_address)] {
                let mut inward = self.out(family, None, 1);
                inward.id.direction = PolicyDirection::In;
                inward.spi = None;
                (inward.source, inward.destination) = (any, own);
                host.set_policy(&inward).await.unwrap();
            }
        }
    }
}

async fn seen(host: &Xfrm, spi: u32) -> SeenState {
    let states = host.states().await.unwrap();
    let found: Vec<_> = states.iter().filter(|state| state.spi == spi).collect();
    assert_eq!(found.len(), 1, "{states:?}");
    found[0].clone()
}

fn key(byte: u8) -> KeyMaterial {
    KeyMaterial::new(Zeroizing::new([byte; KeyMaterial::LENGTH]))
}

/// Runs a test on a thread of its own, where the machine can.
fn with_hosts<F: AsyncFnOnce(Hosts) + Send + 'static>(addresses: [&'static str; 2], test: F) {
    if !can_test(&[Capability::Namespaces, Capability::Esp]) {
        return;
    }
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let [a, b] = addresses;
            test(Hosts::make(a, b)).await;
        });
    })
    .join()
    .unwrap();
}

const V4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const V6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

async fn packets_pass(hosts: Hosts) {
    for (spi, byte) in [(FIRST, 1), (SECOND, 2), (BACK, 3)] {
        hosts.add(spi, &key(byte)).await;
    }
    hosts.answer().await;
    assert!(is_deaf(), "packets pass without a policy");
    hosts.send_by(None, FIRST).await;
    assert!(hears(0));

    // Three of each family, both ways, by the one state and not by the other. The kernel adds packets of its own.
    let came = seen(&hosts.b, FIRST).await;
    let sent = seen(&hosts.a, FIRST).await;
    assert!(sent.packets >= 6 && sent.bytes >= 6 * 84, "{sent:?}");
    assert!(
        came.packets >= 6 && came.packets <= sent.packets,
        "{came:?}"
    );
    assert!(seen(&hosts.a, BACK).await.packets >= 6);
    assert_eq!(seen(&hosts.b, SECOND).await.packets, 0);

    // A policy in the place of another one switches.
    hosts.send_by(None, SECOND).await;
    let before = seen(&hosts.a, FIRST).await.packets;
    assert!(hears(0));
    assert!(seen(&hosts.b, SECOND).await.packets >= 6);
    assert_eq!(seen(&hosts.a, FIRST).await.packets, before);

    // One with a mark is for packets with that mark alone.
    for family in [Family::V4, Family::V6] {
        let id = hosts.out(family, None, SECOND).id;
        hosts.a.delete_policy(&id).await.unwrap();
    }
    hosts.send_by(Some(8), FIRST).await;
    let other = seen(&hosts.a, SECOND).await.packets;
    assert!(is_deaf());
    assert_eq!(seen(&hosts.a, FIRST).await.packets, before);
    assert!(hears(0x18));
    assert!(seen(&hosts.b, FIRST).await.packets >= came.packets + 6);
    assert_eq!(seen(&hosts.a, SECOND).await.packets, other);
    hosts.send_by(Some(0), SECOND).await;
    assert!(hears(0));
    assert!(seen(&hosts.a, SECOND).await.packets >= other + 6);

    // A state that is gone lets nothing through in clear.
    hosts.a.delete_state(SECOND, hosts.b_address).await.unwrap();
    assert!(is_deaf());
}

#[test]
fn packets_of_both_families_pass_over_ipv4() {
    with_hosts(V4, packets_pass);
}

#[test]
fn packets_of_both_families_pass_over_ipv6() {
    with_hosts(V6, packets_pass);
}

#[test]
fn what_is_not_genuine_is_dropped_and_counted() {
    with_hosts(V4, async |hosts: Hosts| {
        hosts.add(BACK, &key(3)).await;
        hosts.answer().await;
        hosts.send_by(None, FIRST).await;
        for (host, byte) in [(&hosts.a, 1), (&hosts.b, 2)] {
            host.add_state(&hosts.state(FIRST, &key(byte)))
                .await
                .unwrap();
        }
        assert!(is_deaf());
        assert!(seen(&hosts.b, FIRST).await.forged >= 4);
        assert_eq!(seen(&hosts.b, FIRST).await.packets, 0);
    });
}

#[test]
fn a_state_is_added_once_and_never_changed() {
    with_hosts(V4, async |hosts: Hosts| {
        hosts.add(FIRST, &key(1)).await;
        hosts.add(BACK, &key(3)).await;
        hosts.answer().await;
        hosts.send_by(None, FIRST).await;
        for byte in [1, 9] {
            let again = hosts.a.add_state(&hosts.state(FIRST, &key(byte))).await;
            let error = again.unwrap_err();
            assert!(error.is_duplicate(), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("9, 9"), "{error:?}");
        }
        // Its key is still the first one.
        assert!(hears(0));
        for _twice in 0..2 {
            hosts.a.delete_state(FIRST, hosts.b_address).await.unwrap();
            let id = hosts.out(Family::V4, None, FIRST).id;
            hosts.a.delete_policy(&id).await.unwrap();
        }
        let states = hosts.a.states().await.unwrap();
        assert_eq!(
            states.iter().map(|state| state.spi).collect::<Vec<_>>(),
            [BACK]
        );
        assert_eq!(hosts.a.policies().await.unwrap().len(), 3);
    });
}

#[test]
fn what_is_listed_is_what_was_set() {
    with_hosts(V6, async |hosts: Hosts| {
        let key = key(1);
        let mut wanted = BTreeSet::new();
        for number in 0..300_u16 {
            let udp = (number % 2 == 0).then_some((number + 1, 4500));
            let spec = StateSpec {
                udp,
                if_id: IF_ID + u32::from(number % 7),
                ..hosts.state(FIRST + u32::from(number), &key)
            };
            hosts.a.add_state(&spec).await.unwrap();
            wanted.insert((spec.spi, spec.source, spec.destination, spec.if_id, udp));
        }
        let states = hosts.a.states().await.unwrap();
        assert!(
            states
                .iter()
                .all(|state| state.shape == Shape::Ours && state.request == IF_ID)
        );
        let listed: BTreeSet<_> = states
            .iter()
            .map(|it| (it.spi, it.source, it.destination, it.if_id, it.udp))
            .collect();
        assert_eq!((listed, states.len()), (wanted, 300));

        let mut wanted = BTreeSet::new();
        for mark in (0..9).map(Some).chain([None]) {
            for (family, spi) in [(Family::V4, FIRST), (Family::V6, SECOND)] {
                let out = hosts.out(family, mark, spi);
                let mut inward = PolicySpec { spi: None, ..out };
                inward.id.direction = PolicyDirection::In;
                for policy in [out, inward] {
                    hosts.a.set_policy(&policy).await.unwrap();
                    wanted.insert(policy);
                }
            }
        }
        // Others' states and policies: the ones are told apart, the others left out.
        run(
            "ip -n a xfrm state add src 192.0.2.8 dst 192.0.2.9 proto esp spi 7 mode transport \
             auth hmac(sha256) 0x00112233445566778899aabbccddeeff enc cbc(aes) 0x00112233445566778899aabbccddeeff",
        );
        run("ip -n a xfrm policy add dir fwd tmpl proto esp mode tunnel");
        run("ip -n a xfrm policy add dst 192.0.2.0/24 dir out tmpl proto esp mode tunnel");
        let policies = hosts.a.policies().await.unwrap();
        assert_eq!(
            (BTreeSet::from_iter(policies.clone()), policies.len()),
            (wanted, 40)
        );
        assert_eq!(seen(&hosts.a, 7).await.shape, Shape::Other);
        assert_eq!(hosts.b.states().await.unwrap(), []);
    });
}

/// A program that is told of packets without a state.
struct Listener(Child);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_larval_state_is_told_apart_and_can_be_replaced() {
    with_hosts(V4, async |hosts: Hosts| {
        hosts.send_by(None, FIRST).await;
        let mut listener = Command::new("ip");
        listener
            .args(["-n", "a", "xfrm", "monitor", "acquire"])
            .stdout(Stdio::null());
        let _listener = Listener(listener.spawn().unwrap());
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(is_deaf());
            let states = hosts.a.states().await.unwrap();
            if let [state] = states.as_slice() {
                assert_eq!(
                    (state.spi, state.if_id, state.shape),
                    (FIRST, IF_ID, Shape::Larval)
                );
                break;
            }
            assert!(Instant::now() < end, "{states:?}");
        }
        hosts.a.delete_state(FIRST, hosts.b_address).await.unwrap();
        hosts
            .a
            .add_state(&hosts.state(FIRST, &key(1)))
            .await
            .unwrap();
        assert_eq!(seen(&hosts.a, FIRST).await.shape, Shape::Ours);
    });
}
