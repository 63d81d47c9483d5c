//! Two hosts in namespaces: what each of them is to be, and how it comes about.

use std::collections::BTreeMap;
use std::path::Path;

use drover_kernel::Kernel;
use drover_model::{
    Block, Encapsulation, Encryption, EndpointId, HostIndex, MacAddress, Mtu, NetworkId, Pool,
};
use drover_overlay::{
    BlockHolder, Desired, Endpoint, Network, NetworkPool, Peer, RemoteBlock, State, ThisHost,
    lower, plan,
};
use drover_testkit::shell::run;
use nix::sched::{CloneFlags, unshare};

/// Puts the test's thread into namespaces of its own, with an `eth0` that leads to a second
/// namespace, mounted in `folder`.
pub(crate) fn isolate(folder: &Path) {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(none, "/", none, private, none).unwrap();
    // `ip netns` keeps its files here.
    std::fs::create_dir_all("/run/netns").unwrap();
    nix::mount::mount(
        Some("none"),
        "/run/netns",
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        none,
    )
    .unwrap();
    assert!(folder.is_absolute());
    run("ip link set lo up");
    run("ip netns add two");
    run("ip link add eth0 type veth peer name eth0 netns two");
    run("ip addr add 192.0.2.1/24 dev eth0");
    run("ip link set eth0 up");
    run("ip -n two link set lo up");
    run("ip -n two addr add 192.0.2.2/24 dev eth0");
    run("ip -n two link set eth0 up");
}

pub(crate) fn network_id(letter: &str) -> NetworkId {
    letter.repeat(64).parse().unwrap()
}

pub(crate) fn endpoint_id(host: u8, letter: &str) -> EndpointId {
    format!("{host}{}", letter.repeat(63)).parse().unwrap()
}

/// Both pools of network `a`, and that of network `b`.
pub(crate) fn pools() -> [Pool; 3] {
    ["10.42.0.0/16", "fd00:42::/64", "10.43.0.0/16"].map(|pool| pool.parse().unwrap())
}

/// A network `a` with two families and a network `b`, seen from host 1 or 2. Endpoint `c` is on `a`,
/// `d` on `b`.
pub(crate) fn desired(here: u8, encapsulation: Encapsulation) -> Desired {
    let there = 3 - here;
    let index = |number: u8| HostIndex::try_from(u16::from(number)).unwrap();
    let [four, six, other] = pools();
    let pool = |pool, gateway: &str| NetworkPool {
        pool,
        gateway: gateway.parse().ok(),
    };
    let network = |pools| Network {
        pools,
        encryption: Encryption::Off,
        mtu: Mtu::ETHERNET.inside(Encapsulation::Vxlan, false),
    };
    let endpoint = |network: &str, addresses: &[String], last| Endpoint {
        network: network_id(network),
        mac: MacAddress::new([2, 0x42, 0, 0, here, last]),
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        mtu: Mtu::ETHERNET.inside(Encapsulation::Vxlan, false),
    };
    let mut on_a = vec![
        format!("10.42.{here}.5/24"),
        format!("fd00:42::{here}:5/112"),
    ];
    if here == 2 {
        on_a.extend(["10.42.1.77/32".to_owned(), "fd00:42::1:77/128".to_owned()]);
    }
    Desired {
        host: Some(ThisHost {
            index: index(here),
            advertise: format!("192.0.2.{here}").parse().unwrap(),
            underlay: Some("eth0".to_owned()),
            vxlan_port: 4787,
            encrypts: false,
            checks_sources: true,
        }),
        networks: BTreeMap::from([
            (
                network_id("a"),
                network(vec![pool(four, "10.42.1.1"), pool(six, "fd00:42::1:1")]),
            ),
            (network_id("b"), network(vec![pool(other, "10.43.0.1")])),
        ]),
        endpoints: BTreeMap::from([
            (endpoint_id(here, "c"), endpoint("a", &on_a, 5)),
            (
                endpoint_id(here, "d"),
                endpoint("b", &[format!("10.43.{here}.5/24")], 6),
            ),
        ]),
        peers: BTreeMap::from([(
            "there".parse().unwrap(),
            Peer {
                index: index(there),
                advertise: format!("192.0.2.{there}").parse().unwrap(),
                encapsulation,
                underlay_mtu: Mtu::ETHERNET,
                watched: encapsulation == Encapsulation::Direct,
                standby: false,
                ipsec: None,
            },
        )]),
        blocks: blocks(here),
    }
}

/// Both hosts' blocks, seen from one of them. Host 2 holds a single address of host 1's blocks, in both
/// families.
pub(crate) fn blocks(here: u8) -> BTreeMap<Block, RemoteBlock> {
    let [four, six, other] = pools();
    let mut blocks = BTreeMap::new();
    for host in [1, 2] {
        let owner = || {
            if host == here {
                BlockHolder::Here
            } else {
                BlockHolder::Peer("there".parse().unwrap())
            }
        };
        let mut add = |prefix: String, pool| {
            let held = RemoteBlock {
                pool,
                owner: owner(),
                claims: BTreeMap::new(),
            };
            blocks.insert(Block::new(prefix.parse().unwrap()), held);
        };
        add(format!("10.42.{host}.0/24"), four);
        add(format!("10.43.{host}.0/24"), other);
        add(format!("fd00:42::{host}:0/112"), six);
    }
    let claimant = || {
        if here == 2 {
            BlockHolder::Here
        } else {
            BlockHolder::Peer("there".parse().unwrap())
        }
    };
    for (block, address) in [
        ("10.42.1.0/24", "10.42.1.77"),
        ("fd00:42::1:0/112", "fd00:42::1:77"),
    ] {
        let block = blocks.get_mut(&Block::new(block.parse().unwrap())).unwrap();
        block.claims = BTreeMap::from([(address.parse().unwrap(), claimant())]);
    }
    blocks
}

pub(crate) async fn bring_about(kernel: &Kernel, desired: &Desired) -> State {
    let wanted = lower(desired);
    let failed = kernel
        .apply(&plan(&wanted, &kernel.observe().await.unwrap()))
        .await;
    assert!(failed.is_empty(), "{failed:#?}");
    let state = kernel.observe().await.unwrap();
    let again = plan(&wanted, &state);
    assert!(again.is_empty(), "a second plan:\n{again}");
    state
}

/// Does what an engine does with an endpoint: takes its end into a container's namespace.
pub(crate) fn start_container(host: u8, name: &str, id: &EndpointId, desired: &Desired) {
    let inside = if host == 1 {
        String::new()
    } else {
        "ip netns exec two ".to_owned()
    };
    let endpoint = desired.endpoints.get(id).unwrap();
    run(&format!("ip netns add {name}"));
    run(&format!(
        "{inside}ip link set {} netns {name} name eth0",
        id.sandbox_link()
    ));
    run(&format!("ip -n {name} link set lo up"));
    for address in &endpoint.addresses {
        run(&format!("ip -n {name} addr add {address} dev eth0 nodad"));
    }
    run(&format!("ip -n {name} link set eth0 up"));
    let net = if endpoint.network == network_id("a") {
        42
    } else {
        43
    };
    run(&format!(
        "ip -n {name} route add 10.{net}.0.0/16 via 10.{net}.{host}.1"
    ));
    if net == 42 {
        run(&format!(
            "ip -n {name} -6 route add fd00:42::/64 via fd00:42::{host}:1"
        ));
    }
}
