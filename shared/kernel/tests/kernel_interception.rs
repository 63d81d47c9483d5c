//! Queries to Docker's resolver come to us while we are there, and to it when we are not: at once, from the
//! same socket too.
#![cfg(test)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use drover_kernel::{Hold, Interception, MARK, Namespace, Ports};
use drover_testkit::capability::{Capability, can_test};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};

const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// What Docker puts into a sandbox: its resolver is at port 6053.
const DOCKER: &str = "ip link set lo up
    nft add table ip nat
    nft 'add chain ip nat OUTPUT { type nat hook output priority -100; }'
    nft 'add chain ip nat POSTROUTING { type nat hook postrouting priority 100; }'
    nft add rule ip nat OUTPUT ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:6053
    nft add rule ip nat POSTROUTING ip saddr 127.0.0.11 udp sport 6053 snat to :53";

fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Puts the test's thread into a namespace with Docker's rules; `None` where there can be none.
fn sandbox() -> Option<Namespace> {
    if !can_test(&[Capability::Namespaces, Capability::Nftables]) {
        return None;
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    shell(DOCKER);
    let own = Path::new("/proc/thread-self/ns/net");
    Some(Namespace::mounted_at(own).unwrap().expect("a namespace"))
}

/// Answers every datagram with a word.
fn answering(port: u16, word: &'static str) -> u16 {
    let socket = UdpSocket::bind((RESOLVER, port)).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(word.as_bytes(), from));
        }
    });
    port
}

struct Asker(UdpSocket);

impl Asker {
    fn new(mark: Option<u32>) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        if let Some(mark) = mark {
            setsockopt(&socket, sockopt::Mark, &mark).unwrap();
        }
        socket.connect((RESOLVER, 53)).unwrap();
        let limit = Some(Duration::from_secs(5));
        socket.set_read_timeout(limit).unwrap();
        Self(socket)
    }

    fn ask(&self) -> String {
        self.0.send(b"?").unwrap();
        let mut buffer = [0; 100];
        let length = self.0.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }
}

fn tables() -> String {
    shell("nft list tables")
}

#[test]
fn queries_come_to_us_while_the_table_is_there() {
    let Some(namespace) = sandbox() else { return };
    answering(6053, "docker");
    let listener = TcpListener::bind((RESOLVER, 0)).unwrap();
    let tcp = listener.local_addr().unwrap().port();
    let ports = Ports {
        udp: answering(0, "drover"),
        tcp,
        http: 1,
    };
    for hold in [Hold::Owned, Hold::Renewed] {
        let (before, marked) = (Asker::new(None), Asker::new(Some(MARK)));
        assert_eq!(before.ask(), "docker");
        let interception = Interception::open_as(&namespace, ports, hold).unwrap();
        assert_eq!(before.ask(), "drover", "a socket that asked before");
        assert_eq!(Asker::new(None).ask(), "drover");
        assert_eq!(marked.ask(), "docker", "what we pass on");
        let resolver = SocketAddr::from((RESOLVER, 53));
        let stream = TcpStream::connect_timeout(&resolver, Duration::from_secs(5)).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(stream.local_addr().unwrap(), peer);
        interception.renew().unwrap();
        drop(interception);
        assert_eq!(before.ask(), "docker", "the same socket, at once");
        assert!(!tables().contains("drover"), "{}", tables());
    }
}

#[test]
fn this_kernel_takes_the_table_away_with_its_owner() {
    let Some(namespace) = sandbox() else { return };
    let ports = Ports {
        udp: 1,
        tcp: 1,
        http: 1,
    };
    let interception = Interception::open(&namespace, ports).unwrap();
    if interception.hold() == Hold::Renewed {
        eprintln!("skipped: the kernel is older than 5.12");
        return;
    }
    let taken = Interception::open(&namespace, ports);
    assert!(taken.is_err(), "two cannot stand in front of each other");
    assert!(tables().contains("drover-names"), "{}", tables());
}

#[test]
fn rules_that_are_not_renewed_end() {
    let Some(namespace) = sandbox() else { return };
    answering(6053, "docker");
    let ports = Ports {
        udp: answering(0, "drover"),
        tcp: 1,
        http: 1,
    };
    let interception = Interception::open_as(&namespace, ports, Hold::Renewed).unwrap();
    let asker = Asker::new(None);
    assert_eq!(asker.ask(), "drover");
    let end = Instant::now() + Duration::from_secs(10);
    while asker.ask() == "drover" {
        assert!(Instant::now() < end, "the rules still count");
        std::thread::sleep(Duration::from_millis(20));
    }
    interception.renew().unwrap();
    assert_eq!(asker.ask(), "drover", "back again");
}
