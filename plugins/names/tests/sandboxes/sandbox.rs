//! A sandbox as the engine makes it: a namespace that is mounted in the folder, with Docker's rules and resolver.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use drover_kernel::Namespace;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// What Docker's resolver says to everything.
pub(crate) const DOCKERS: &str = "198.51.100.1";

/// Docker's rules; its resolver's ports are different in every sandbox and after every restart.
fn rules(udp: u16, tcp: u16) -> String {
    format!(
        "nft add table ip nat
         nft flush table ip nat
         nft 'add chain ip nat OUTPUT {{ type nat hook output priority -100; }}'
         nft 'add chain ip nat POSTROUTING {{ type nat hook postrouting priority 100; }}'
         nft add rule ip nat OUTPUT ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:{udp}
         nft add rule ip nat OUTPUT ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:{tcp}
         nft add rule ip nat POSTROUTING ip saddr 127.0.0.11 udp sport {udp} snat to :53
         nft add rule ip nat POSTROUTING ip saddr 127.0.0.11 tcp sport {tcp} snat to :53"
    )
}

pub(crate) fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A sandbox.
pub(crate) struct Sandbox {
    path: PathBuf,
    namespace: Namespace,
    /// Whether Docker's resolver is there.
    resolver: Arc<AtomicBool>,
}

impl Sandbox {
    /// Makes one; the test's thread must be in a mount namespace of its own.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        std::fs::write(&path, "").unwrap();
        shell(&format!(
            "unshare --net={} ip link set lo up",
            path.display()
        ));
        let namespace = Namespace::mounted_at(&path).unwrap().expect("a namespace");
        let mut sandbox = Self {
            path,
            namespace,
            resolver: Arc::default(),
        };
        sandbox.restart_docker();
        sandbox
    }

    /// Where its namespace is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a script inside.
    pub(crate) fn run(&self, script: &str) -> String {
        let script = script.to_owned();
        self.namespace.enter(move || shell(&script)).unwrap()
    }

    /// A link with an address comes.
    pub(crate) fn join(&self, link: &str, address: &str) {
        self.run(&format!(
            "ip link add {link} type veth peer name {link}-peer
             ip address add {address}/24 dev {link}
             ip link set {link} up"
        ));
    }

    /// The link goes.
    pub(crate) fn leave(&self, link: &str) {
        self.run(&format!("ip link delete {link}"));
    }

    /// Docker's resolver ends, and another one begins at other ports.
    pub(crate) fn restart_docker(&mut self) {
        self.resolver.store(false, Ordering::Relaxed);
        self.resolver = Arc::new(AtomicBool::new(true));
        let opened = self.namespace.enter(|| {
            let udp = UdpSocket::bind((RESOLVER, 0)).unwrap();
            let tcp = TcpListener::bind((RESOLVER, 0)).unwrap();
            (udp, tcp)
        });
        let (udp, tcp) = opened.unwrap();
        let ports = (
            udp.local_addr().unwrap().port(),
            tcp.local_addr().unwrap().port(),
        );
        udp.set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        tcp.set_nonblocking(true).unwrap();
        let is_there = self.resolver.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while is_there.load(Ordering::Relaxed) {
                if let Ok((length, client)) = udp.recv_from(&mut buffer) {
                    drop(udp.send_to(&dockers_answer(&buffer[..length]), client));
                }
                if let Ok((mut stream, _)) = tcp.accept() {
                    stream.set_nonblocking(false).unwrap();
                    std::thread::spawn(move || {
                        while let Some(query) = read(&mut stream) {
                            write(&mut stream, &dockers_answer(&query));
                        }
                    });
                }
            }
        });
        self.run(&rules(ports.0, ports.1));
    }

    /// A socket as a container's resolver has it.
    pub(crate) fn client(&self) -> UdpSocket {
        let opened = self.namespace.enter(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.connect((RESOLVER, 53)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            socket
        });
        opened.unwrap()
    }

    /// A connection, and what it is told.
    pub(crate) fn connect(&self) -> TcpStream {
        let opened = self
            .namespace
            .enter(|| TcpStream::connect((RESOLVER, 53)).unwrap());
        let stream = opened.unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
    }

    /// Asks for a path over HTTP; [`end_get`] reads the answer.
    pub(crate) fn begin_get(&self, path: &str) -> TcpStream {
        let opened = self
            .namespace
            .enter(|| TcpStream::connect((RESOLVER, 80)).unwrap());
        let mut stream = opened.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: drover.internal\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// What it reads at a path over HTTP.
    pub(crate) fn get(&self, path: &str) -> String {
        end_get(self.begin_get(path))
    }

    /// What it is told when it asks for a name, from a new socket. As a resolver does, it asks again: a query that is under
    /// way when the sandbox changes hands is lost.
    pub(crate) fn ask(&self, name: &str) -> Vec<String> {
        (0..3)
            .find_map(|_| ask_with(&self.client(), name))
            .expect("an answer")
    }

    /// The same by connection.
    pub(crate) fn ask_by_connection(&self, name: &str) -> Vec<String> {
        let mut stream = self.connect();
        write(&mut stream, &question(name));
        addresses(&read(&mut stream).expect("an answer"))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.resolver.store(false, Ordering::Relaxed);
        shell(&format!("umount {0} && rm {0}", self.path.display()));
    }
}

/// The whole answer to [`Sandbox::begin_get`].
pub(crate) fn end_get(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A question for addresses.
pub(crate) fn question(name: &str) -> Vec<u8> {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(format!("{name}.")).unwrap();
    message.add_query(Query::query(name, RecordType::A));
    message.to_vec().unwrap()
}

/// Asks from a socket; `None` when it is told nothing.
pub(crate) fn ask_with(socket: &UdpSocket, name: &str) -> Option<Vec<String>> {
    socket.send(&question(name)).ok()?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    Some(addresses(&buffer[..length]))
}

fn addresses(answer: &[u8]) -> Vec<String> {
    let message = Message::from_vec(answer).unwrap();
    assert_eq!(message.metadata.id, 77, "the id that was asked with");
    assert_ne!(
        message.metadata.response_code,
        ResponseCode::ServFail,
        "{message}"
    );
    let address = |record: &Record| record.data.ip_addr().as_ref().map(IpAddr::to_string);
    message.answers.iter().filter_map(address).collect()
}

fn dockers_answer(query: &[u8]) -> Vec<u8> {
    let query = Message::from_vec(query).unwrap();
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    let name = query.queries[0].name.clone();
    message.add_query(query.queries[0].clone());
    let data = RData::A(A(DOCKERS.parse().unwrap()));
    message.add_answer(Record::from_rdata(name, 600, data));
    message.to_vec().unwrap()
}

/// Reads a message from a connection.
pub(crate) fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

/// Writes a message to a connection.
pub(crate) fn write(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    drop(stream.write_all(&[&length, message].concat()));
}
