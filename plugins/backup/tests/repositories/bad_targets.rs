//! Targets that do not do what they say: an S3 server behind something that forgets, fails or is slow.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use drover_backup_protocol::{FailureKind, Operation, Outcome, Source};

use crate::place::{Place, create, noise};
use crate::servers::{Server, in_s3};

/// Packs are written to paths with this in them.
const PACKS: &str = "/data/";

const FAITHFUL: u8 = 0;
/// Says that packs are written, and writes none.
const LYING: u8 = 1;
/// Refuses everything once it has taken a pack, for good: what may pass is tried again for half a minute.
const FAILING: u8 = 2;
/// Takes its time with everything.
const SLOW: u8 = 3;

/// What stands before the server.
#[derive(Debug, Default)]
struct Front {
    manner: AtomicU8,
    packs: AtomicUsize,
}

impl Front {
    /// One that listens, and its port.
    fn before(server: &Server) -> (Arc<Self>, u16) {
        let front = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, to) = (listener.local_addr().unwrap().port(), server.port);
        let serving = front.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let front = serving.clone();
                std::thread::spawn(move || front.pass(stream, to));
            }
        });
        (front, port)
    }

    fn behave(&self, manner: u8) {
        self.packs.store(0, Ordering::Relaxed);
        self.manner.store(manner, Ordering::Relaxed);
    }

    /// Passes one request on and its answer back, or does not.
    fn pass(&self, mut client: TcpStream, to: u16) -> Option<()> {
        let request = read_request(&mut client)?;
        let text = String::from_utf8_lossy(&request);
        let is_pack = text.starts_with("PUT ") && text.lines().next()?.contains(PACKS);
        let packs = self
            .packs
            .fetch_add(usize::from(is_pack), Ordering::Relaxed);
        match self.manner.load(Ordering::Relaxed) {
            LYING if is_pack => return answer(&mut client, "200 OK"),
            FAILING if packs > 0 => return answer(&mut client, "403 Forbidden"),
            SLOW => std::thread::sleep(Duration::from_millis(300)),
            _ => {}
        }
        let mut server = TcpStream::connect(("127.0.0.1", to)).ok()?;
        server.write_all(&request).ok()?;
        std::io::copy(&mut server, &mut client).ok().map(drop)
    }
}

fn answer(client: &mut TcpStream, status: &str) -> Option<()> {
    let text = format!(
        "HTTP/1.1 {status}\r\nETag: \"0\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    client.write_all(text.as_bytes()).ok()
}

/// A request with its body, made the last of its connection.
fn read_request(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 65_536];
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            break end;
        }
        let count = client.read(&mut piece).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(piece.get(..count)?);
    };
    let header = String::from_utf8(bytes.get(..head)?.to_vec()).ok()?;
    let length = header.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    let whole = head + 4 + length.unwrap_or(0);
    while bytes.len() < whole {
        let count = client.read(&mut piece).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(piece.get(..count)?);
    }
    let mut request = format!("{header}\r\nConnection: close\r\n\r\n").into_bytes();
    request.extend_from_slice(bytes.get(head + 4..)?);
    Some(request)
}

fn checked(place: &Place) {
    match place.work(Operation::Check { read_data: true }) {
        Ok(Outcome::Checked(checked)) => assert_eq!(checked.problems, []),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_target_that_lies_fails_or_is_slow_loses_nothing() {
    let server = Server::s3();
    let (front, port) = Front::before(&server);
    let mut place = Place::new();
    in_s3(&mut place, port);
    let path = place.path("volume");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("file"), noise(30, 24 << 20)).unwrap();
    let tree = || Source::Tree { path: path.clone() };
    place.work(Operation::Init).unwrap();

    front.behave(LYING);
    let lie = place.work(create("pg", tree())).unwrap_err();
    assert_eq!(lie.kind, FailureKind::Damaged, "{}", lie.message);
    front.behave(FAITHFUL);
    assert_eq!(place.backups(), []);

    front.behave(FAILING);
    let failure = place.work(create("pg", tree())).unwrap_err();
    assert_eq!(
        failure.kind,
        FailureKind::Unreachable,
        "{}",
        failure.message
    );
    front.behave(FAITHFUL);
    assert_eq!(place.backups(), []);

    front.behave(SLOW);
    let made = place.create("pg", tree());
    front.behave(FAITHFUL);
    assert!(made.resumed > 0, "what was sent before is sent again");
    assert_eq!(place.backups().len(), 1);
    checked(&place);
}
