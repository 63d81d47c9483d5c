//! A container's TCP sends no larger segments than the path takes, also where its own link takes more and errors of routers do
//! not come through.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::thread;

use drover_testkit::shell::run;
use nix::sched::{CloneFlags, setns};

use super::{lab, two_hosts};

/// Does something in a network namespace.
fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    thread::scope(|scope| {
        let entered = scope.spawn(|| {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        entered.join().unwrap()
    })
}

/// The size of the segments that the other side of the only connection in a namespace takes.
fn segments(namespace: &str) -> u32 {
    let said = run(&format!(
        "ip netns exec {namespace} ss -Htin state established"
    ));
    let mut words = said.split_whitespace();
    let size = words.find_map(|word| word.strip_prefix("mss:"));
    size.unwrap_or_else(|| panic!("{said}")).parse().unwrap()
}

#[test]
fn what_tcp_agrees_on_fits_the_path() {
    // Of IPv4 and IPv6, each with TCP's header and its time stamps.
    const HEADERS: [u32; 2] = [20 + 20 + 12, 40 + 20 + 12];
    if !lab() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let hosts = two_hosts(folder.path(), "vxlan");
    let connect = |address: &'static str| {
        let listener = inside("a2", || TcpListener::bind((address, 5000)).unwrap());
        let near = inside("a1", || TcpStream::connect((address, 5000)).unwrap());
        let far = listener.accept().unwrap();
        let sizes = ["a1", "a2"].map(segments);
        drop((near, far));
        // What is closed in order is remembered for a while, and is not established.
        sizes
    };
    for (address, headers) in ["10.42.2.5", "fd00:42::2:5"].into_iter().zip(HEADERS) {
        assert_eq!(connect(address), [1450 - headers; 2], "to {address}");
    }
    // A path that takes less than the link of the container.
    let overlay = hosts[0].overlay();
    let overlay = overlay.display();
    run(&format!(
        "nsenter --net={overlay} ip link set dvx2 mtu 1300"
    ));
    for (address, headers) in ["10.42.2.5", "fd00:42::2:5"].into_iter().zip(HEADERS) {
        assert_eq!(
            connect(address)[1],
            1300 - headers,
            "what is sent to a1 from {address}"
        );
    }
}
