//! Two hosts with an encrypted network between them: the first in the test's own namespace, the second in `two`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use drover_ipsec::{Association, Direction, Epoch, KeyMaterial, Lane, Spi, Tag};
use drover_kernel::{Kernel, Receiver};
use drover_model::{
    Block, Encapsulation, Encryption, EndpointId, HostIndex, MacAddress, Mtu, NetworkId, Pool,
};
use drover_overlay::{
    BlockHolder, Desired, Endpoint, IpsecPath, Network, NetworkPool, Peer, RemoteBlock, ThisHost,
    UdpPorts, Way, lower, plan,
};
use drover_testkit::shell::run;
use nix::sched::{CloneFlags, setns, unshare};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::wire::{self, Wire};

/// How many lanes there are.
pub(crate) const LANES: u8 = 2;
/// The generations of both hosts.
pub(crate) const FIRST: (u64, u64) = (1, 1);
/// The next ones, of which one is only seen to be another by its tag.
pub(crate) const SECOND: (u64, u64) = (2, 65);
/// The first port of each host.
const FIRST_PORTS: [u16; 2] = [4600, 4700];

/// What is between the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Underlay {
    V4,
    V6,
    V4InUdp,
    V6InUdp,
}

impl Underlay {
    fn is_v6(self) -> bool {
        matches!(self, Self::V6 | Self::V6InUdp)
    }

    pub(crate) fn is_in_udp(self) -> bool {
        matches!(self, Self::V4InUdp | Self::V6InUdp)
    }

    fn address(self, host: u8) -> String {
        if self.is_v6() {
            format!("2001:db8::{host}")
        } else {
            format!("192.0.2.{host}")
        }
    }

    /// The ports that ESP in UDP is sent to.
    fn ports(self) -> Vec<u16> {
        let firsts = FIRST_PORTS.into_iter().filter(|_| self.is_in_udp());
        firsts
            .flat_map(|first| first..first + u16::from(LANES))
            .collect()
    }

    fn mtu(self) -> Mtu {
        Mtu::ETHERNET.inside(Encapsulation::Ipsec, self.is_v6())
    }
}

/// Does something on a thread in a named namespace.
pub(crate) fn within<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    std::thread::spawn(move || {
        setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

/// Puts the test's thread into namespaces of its own, with an `eth0` that leads to the one of a second one.
fn isolate(underlay: Underlay) -> Wire {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(none, "/", none, private, none).unwrap();
    // `ip netns` keeps its files here.
    std::fs::create_dir_all("/run/netns").unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), "/run/netns", Some("tmpfs"), flags, none).unwrap();
    run("ip netns add two");
    let ends = [wire::device(), within("two", wire::device).join().unwrap()];
    let (length, nodad) = if underlay.is_v6() {
        (64, "nodad")
    } else {
        (24, "")
    };
    for (host, ip) in [(1, "ip"), (2, "ip -n two")] {
        let address = underlay.address(host);
        run(&format!("{ip} link set lo up"));
        run(&format!(
            "{ip} addr add {address}/{length} dev eth0 {nodad}"
        ));
        run(&format!("{ip} link set eth0 up"));
    }
    Wire::between(ends, underlay.ports())
}

fn network_id() -> NetworkId {
    "a".repeat(64).parse().unwrap()
}

fn endpoint_id(host: u8) -> EndpointId {
    format!("{host}{}", "c".repeat(63)).parse().unwrap()
}

fn pools() -> [Pool; 2] {
    ["10.42.0.0/16", "fd00:42::/64"].map(|pool| pool.parse().unwrap())
}

fn index(host: u8) -> HostIndex {
    HostIndex::try_from(u16::from(host)).unwrap()
}

/// An epoch as one of the hosts sees it.
pub(crate) fn epoch(here: u8, (one, two): (u64, u64)) -> Epoch {
    let (own, peer) = if here == 1 { (one, two) } else { (two, one) };
    Epoch {
        own: Tag::of(own),
        peer: Tag::of(peer),
    }
}

/// The associations of an epoch as one of the hosts sees them. Each has a key of its own, the same on both hosts.
fn associations(here: u8, generations: (u64, u64)) -> Vec<Association> {
    let lanes = Lane::first(LANES);
    let both = lanes.flat_map(|lane| [(lane, 1), (lane, 2)]);
    let made = both.map(|(lane, sender)| {
        let ours = epoch(here, generations);
        let (direction, tags) = if sender == here {
            (Direction::Send, (ours.own, ours.peer))
        } else {
            (Direction::Receive, (ours.peer, ours.own))
        };
        let spi = Spi::new(index(sender), lane, tags.0, tags.1);
        let mut key = [1; KeyMaterial::LENGTH];
        key[..4].copy_from_slice(&spi.get().to_be_bytes());
        Association {
            spi,
            direction,
            lane,
            epoch: ours,
            key: Some(KeyMaterial::new(Zeroizing::new(key))),
        }
    });
    made.collect()
}

fn desired(here: u8, underlay: Underlay) -> Desired {
    let there = 3 - here;
    let [four, six] = pools();
    let pool = |pool, gateway: &str| NetworkPool {
        pool,
        gateway: gateway.parse().ok(),
    };
    let network = Network {
        pools: vec![pool(four, "10.42.1.1"), pool(six, "fd00:42::1:1")],
        encryption: Encryption::Ipsec,
        mtu: underlay.mtu(),
    };
    let addresses = [
        format!("10.42.{here}.5/24"),
        format!("fd00:42::{here}:5/112"),
    ];
    let endpoint = Endpoint {
        network: network_id(),
        mac: MacAddress::new([2, 0x42, 0, 0, here, 5]),
        addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        mtu: underlay.mtu(),
    };
    let port = |host: u8| FIRST_PORTS[usize::from(host - 1)];
    let udp = underlay.is_in_udp().then(|| UdpPorts {
        source: port(here),
        destination: port(there),
    });
    let peer = Peer {
        index: index(there),
        advertise: underlay.address(there).parse().unwrap(),
        encapsulation: Encapsulation::Direct,
        underlay_mtu: Mtu::ETHERNET,
        watched: false,
        standby: false,
        ipsec: Some(IpsecPath {
            lanes: LANES,
            udp,
            associations: Vec::new(),
            send: None,
            candidate: None,
            mtu: None,
            ways: BTreeMap::new(),
            trials: BTreeMap::new(),
        }),
    };
    Desired {
        host: Some(ThisHost {
            index: index(here),
            advertise: underlay.address(here).parse().unwrap(),
            underlay: Some("eth0".to_owned()),
            vxlan_port: 4787,
            encrypts: true,
            checks_sources: true,
        }),
        networks: BTreeMap::from([(network_id(), network)]),
        endpoints: BTreeMap::from([(endpoint_id(here), endpoint)]),
        peers: BTreeMap::from([("there".parse().unwrap(), peer)]),
        blocks: blocks(here),
    }
}

fn blocks(here: u8) -> BTreeMap<Block, RemoteBlock> {
    let [four, six] = pools();
    let mut blocks = BTreeMap::new();
    for host in [1, 2] {
        for (prefix, pool) in [
            (format!("10.42.{host}.0/24"), four),
            (format!("fd00:42::{host}:0/112"), six),
        ] {
            let owner = if host == here {
                BlockHolder::Here
            } else {
                BlockHolder::Peer("there".parse().unwrap())
            };
            let held = RemoteBlock {
                pool,
                owner,
                claims: BTreeMap::new(),
            };
            blocks.insert(Block::new(prefix.parse().unwrap()), held);
        }
    }
    blocks
}

/// A host.
pub(crate) struct Host {
    number: u8,
    overlay: PathBuf,
    pub(crate) kernel: Kernel,
    pub(crate) desired: Desired,
}

impl Host {
    fn path(&mut self) -> &mut IpsecPath {
        let peer = self.desired.peers.values_mut().next().unwrap();
        peer.ipsec.as_mut().unwrap()
    }

    /// What a command prints in the `drover` namespace.
    pub(crate) fn run(&self, line: &str) -> String {
        run(&format!("nsenter --net={} {line}", self.overlay.display()))
    }

    async fn bring_about(&self) {
        let wanted = lower(&self.desired);
        let observed = self.kernel.observe().await.unwrap();
        let failed = self.kernel.apply(&plan(&wanted, &observed)).await;
        assert!(failed.is_empty(), "{failed:#?}");
        let again = plan(&wanted, &self.kernel.observe().await.unwrap());
        assert!(
            again.is_empty(),
            "a second plan of host {}:\n{again}",
            self.number
        );
    }

    fn start_container(&self) {
        let host = self.number;
        let inside = if host == 1 { "" } else { "ip netns exec two " };
        let id = endpoint_id(host);
        let (link, name) = (id.sandbox_link(), format!("c{host}"));
        run(&format!("ip netns add {name}"));
        run(&format!(
            "{inside}ip link set {link} netns {name} name eth0"
        ));
        run(&format!("ip -n {name} link set lo up"));
        for address in &self.desired.endpoints[&id].addresses {
            run(&format!("ip -n {name} addr add {address} dev eth0 nodad"));
        }
        run(&format!("ip -n {name} link set eth0 up"));
        run(&format!(
            "ip -n {name} route add 10.42.0.0/16 via 10.42.{host}.1"
        ));
        run(&format!(
            "ip -n {name} -6 route add fd00:42::/64 via fd00:42::{host}:1"
        ));
    }
}

/// Both.
pub(crate) struct Hosts {
    pub(crate) one: Host,
    pub(crate) two: Host,
    pub(crate) wire: Wire,
    pub(crate) underlay: Underlay,
}

fn open(path: &Path, namespace: Option<&str>) -> Kernel {
    let file = namespace.map(|name| File::open(format!("/run/netns/{name}")).unwrap());
    let runtime = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        let opened = scope.spawn(|| {
            if let Some(file) = file {
                setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
            }
            runtime.block_on(Kernel::open(path)).unwrap().0
        });
        opened.join().unwrap()
    })
}

impl Hosts {
    /// Makes both around the calling thread, which is in namespaces of its own from now on.
    pub(crate) fn make(folder: &Path, underlay: Underlay) -> (Runtime, Self) {
        let wire = isolate(underlay);
        // Its threads are in the same namespaces.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let inside = runtime.enter();
        let host = |number: u8, namespace| {
            let overlay = folder.join(number.to_string());
            Host {
                number,
                kernel: open(&overlay, namespace),
                desired: desired(number, underlay),
                overlay,
            }
        };
        let hosts = Self {
            one: host(1, None),
            two: host(2, Some("two")),
            wire,
            underlay,
        };
        if underlay.is_in_udp() {
            runtime.block_on(hosts.receive_udp());
        }
        drop(inside);
        (runtime, hosts)
    }

    async fn receive_udp(&self) {
        for host in [&self.one, &self.two] {
            let receiver = Receiver {
                device: "eth0".to_owned(),
                address: self.underlay.address(host.number).parse().unwrap(),
                further: BTreeSet::new(),
                first_port: FIRST_PORTS[usize::from(host.number - 1)],
            };
            assert!(host.kernel.set_receiver(&receiver).await.unwrap());
        }
    }

    /// The largest packet of a container.
    pub(crate) fn mtu(&self) -> u16 {
        self.underlay.mtu().get()
    }

    /// Which epochs there are, with their keys, which is sent by, and which is tried.
    pub(crate) fn set_epochs(
        &mut self,
        all: &[(u64, u64)],
        send: Option<(u64, u64)>,
        candidate: Option<(u64, u64)>,
    ) {
        for host in [&mut self.one, &mut self.two] {
            let here = host.number;
            let path = host.path();
            path.associations = all.iter().flat_map(|it| associations(here, *it)).collect();
            path.send = send.map(|it| epoch(here, it));
            path.candidate = candidate.map(|it| epoch(here, it));
        }
    }

    /// Lets one host send by an epoch, which it tries no more.
    pub(crate) fn set_send(&mut self, host: u8, send: (u64, u64)) {
        let which = if host == 1 {
            &mut self.one
        } else {
            &mut self.two
        };
        which.path().send = Some(epoch(host, send));
        which.path().candidate = None;
    }

    /// Lets the first host reach the second by other ways.
    pub(crate) fn set_ways(&mut self, taken: &[(Lane, Way)], tried: &[(Lane, Way)]) {
        let path = self.one.path();
        path.ways = taken.iter().copied().collect();
        path.trials = tried.iter().copied().collect();
    }

    /// Gives both hosts another address, at which the second takes packets as well.
    pub(crate) async fn add_addresses(&self, [one, two]: [&str; 2]) {
        run(&format!("ip addr add {one}/24 dev eth0"));
        run(&format!("ip -n two addr add {two}/24 dev eth0"));
        let receiver = Receiver {
            device: "eth0".to_owned(),
            address: self.underlay.address(2).parse().unwrap(),
            further: [two.parse().unwrap()].into(),
            first_port: FIRST_PORTS[1],
        };
        assert!(self.two.kernel.set_receiver(&receiver).await.unwrap());
    }

    /// Lets go of all epochs but these.
    pub(crate) fn keep_epochs(&mut self, kept: &[(u64, u64)]) {
        for host in [&mut self.one, &mut self.two] {
            let here = host.number;
            host.path()
                .associations
                .retain(|it| kept.iter().any(|kept| epoch(here, *kept) == it.epoch));
        }
    }

    /// Forgets the keys, as a process that was started anew.
    pub(crate) fn forget_keys(&mut self) {
        for host in [&mut self.one, &mut self.two] {
            for association in &mut host.path().associations {
                association.key = None;
            }
        }
    }

    /// Opens the first host's kernel again.
    pub(crate) fn reopen_first(&mut self) {
        self.one.kernel = open(&self.one.overlay, None);
    }

    /// Brings about what should be, on both, and checks that a second plan is empty.
    pub(crate) async fn bring_about(&self) {
        for host in [&self.one, &self.two] {
            host.bring_about().await;
        }
    }

    /// Does what an engine does with the endpoints: takes their ends into containers' namespaces.
    pub(crate) fn start_containers(&self) {
        for host in [&self.one, &self.two] {
            host.start_container();
        }
    }

    /// Takes everything away, and checks that nothing of ours is left.
    pub(crate) async fn tear_down(self) {
        for (host, ip) in [(&self.one, "ip"), (&self.two, "ip -n two")] {
            host.kernel.tear_down().await.unwrap();
            for what in ["state", "policy"] {
                let left = run(&format!("{ip} xfrm {what}"));
                assert!(!left.contains("0x6472"), "{left}");
            }
            assert!(!run(&format!("{ip} link")).contains("dvr"));
        }
    }
}
