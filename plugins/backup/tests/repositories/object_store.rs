//! S3, against a server that speaks it: moto, which run-tests installs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use drover_backup_protocol::{FailureKind, Operation, Outcome, Restore, Source, Target};

use crate::place::{Place, noise, secret};

pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start() -> Self {
        let cache = std::env::var_os("DROVER_CACHE").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/drover"),
            PathBuf::from,
        );
        let program = cache.join("moto/bin/moto_server");
        assert!(
            program.exists(),
            "`{}` is installed by run-tests",
            program.display()
        );
        // A port that is free now.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, port };
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                server.put("bucket");
                return server;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the server does not listen after 30 s");
    }

    /// Has a place's repository be in the bucket, by way of a port.
    pub(crate) fn options(&self, place: &mut Place, port: u16) {
        let options = place.path("options");
        secret(
            &options,
            &format!(
                "# for the tests\nendpoint = http://127.0.0.1:{port}\naccess_key_id = key\nsecret_access_key = \"hidden\"\n"
            ),
        );
        place.repository.url = "s3://bucket/hosts/one".to_owned();
        place.repository.options_file = Some(options);
    }

    fn put(&self, path: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(
            stream,
            "PUT /{path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn a_volume_goes_to_s3_and_comes_back() {
    let server = Server::start();
    let mut place = Place::new();
    server.options(&mut place, server.port);
    let path = place.path("volume");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("file"), noise(20, 20 << 20)).unwrap();
    let none = place.work(Operation::List { volume: None }).unwrap_err();
    assert_eq!(none.kind, FailureKind::NoRepository, "{}", none.message);
    place.create("pg", Source::Tree { path: path.clone() });
    let image = Source::Block {
        path: path.join("file"),
        size: 20 << 20,
        changed: None,
    };
    place.create("disk", image.clone());
    assert_eq!(place.backups().len(), 2);
    let target = place.path("restored");
    place
        .work(Operation::Restore(Restore {
            backup: "pg".parse().unwrap(),
            target: Target::Directory {
                path: target.clone(),
            },
        }))
        .unwrap();
    assert!(std::fs::read(target.join("file")).unwrap() == noise(20, 20 << 20));
    let verify = Operation::Verify {
        backup: "disk".parse().unwrap(),
        against: Some(image),
    };
    place.work(verify).unwrap();
    let Ok(Outcome::Checked(checked)) = place.work(Operation::Check { read_data: true }) else {
        panic!("the check failed");
    };
    assert_eq!(checked.problems, []);
    place.repository.url = "s3://no-such-bucket/x".to_owned();
    let failed = place.work(Operation::Init).unwrap_err();
    assert_eq!(failed.kind, FailureKind::InvalidInput, "{}", failed.message);
    assert!(
        failed.message.contains("no-such-bucket"),
        "{}",
        failed.message
    );
    assert!(!failed.message.contains("hidden"), "{}", failed.message);
}
