//! The servers that backups are sent to: each is real, or as real as there is one for its protocol, and run-tests installs it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use crate::place::{Place, secret};

/// The account that Azurite knows, and its key: they are in its documentation.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Starts the emulator. What an object has not, Google's own leaves out of its answers, and the emulator tells as `null`.
const GCS: &str = "
import json, sys
from gcp_storage_emulator import server
from gcp_storage_emulator.__main__ import main
def told(value):
    if isinstance(value, dict):
        return {name: told(part) for name, part in value.items() if part is not None}
    return [told(part) for part in value] if isinstance(value, list) else value
def answer(self, value):
    self['Content-type'] = 'application/json'
    self._content = json.dumps(told(value))
server.Response.json = answer
sys.exit(main())
";

/// A server that listens; dropped, it is gone.
pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
}

impl Server {
    /// moto, which speaks S3, with a bucket.
    pub(crate) fn s3() -> Self {
        let port = free_port();
        let mut command = Command::new(installed("moto/bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let server = Self::start(command, port);
        server.asked("PUT /bucket", "");
        server
    }

    /// Azurite, Azure's own emulator, with a container.
    pub(crate) fn azure() -> Self {
        let port = free_port();
        let mut command = Command::new(installed("azurite/node_modules/.bin/azurite-blob"));
        command.args(["--inMemoryPersistence", "--silent", "--skipApiVersionCheck"]);
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
        let server = Self::start(command, port);
        let headers = "x-ms-date:Thu, 01 Jan 2026 00:00:00 GMT\nx-ms-version:2021-08-06\n";
        let path = format!("/{ACCOUNT}/container");
        let text =
            format!("PUT\n\n\n\n\n\n\n\n\n\n\n\n{headers}/{ACCOUNT}{path}\nrestype:container");
        let signature = BASE64_STANDARD.encode(hmac(&text));
        let headers = headers.replace('\n', "\r\n");
        let authorization = format!("Authorization: SharedKey {ACCOUNT}:{signature}\r\n");
        let headers = format!("{headers}{authorization}");
        server.asked(&format!("PUT {path}?restype=container"), &headers);
        server
    }

    /// An emulator of Google Cloud Storage, with a bucket.
    pub(crate) fn gcs() -> Self {
        let port = free_port();
        let mut command = Command::new(installed("gcs/bin/python"));
        command.args([
            "-c",
            GCS,
            "start",
            "--in-memory",
            "--default-bucket",
            "bucket",
        ]);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        Self::start(command, port)
    }

    /// OpenSSH's server, with keys and a configuration of its own in a place.
    pub(crate) fn sftp(place: &Place) -> Self {
        let port = free_port();
        for name in ["host-key", "key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(place.path(name))
                .status();
            assert!(made.unwrap().success());
        }
        let path = |name: &str| place.path(name).display().to_string();
        let configuration = [
            format!("Port {port}"),
            "ListenAddress 127.0.0.1".to_owned(),
            format!("HostKey {}", path("host-key")),
            format!("AuthorizedKeysFile {}", path("key.pub")),
            "PermitRootLogin prohibit-password".to_owned(),
            // The folder of a test may belong to others.
            "StrictModes no".to_owned(),
            "UsePAM no".to_owned(),
            "PidFile none".to_owned(),
            "Subsystem sftp internal-sftp".to_owned(),
        ];
        fs::write(place.path("sshd_config"), configuration.join("\n") + "\n").unwrap();
        // Where it has no service, nobody has made this.
        fs::create_dir_all("/run/sshd").unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-f"]).arg(place.path("sshd_config"));
        Self::start(command, port)
    }

    fn start(mut command: Command, port: u16) -> Self {
        let name = command.get_program().to_owned();
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}, of run-tests: {error}", name.display()));
        let server = Self { process, port };
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{} does not listen after 30 s", name.display());
    }

    fn asked(&self, request: &str, headers: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n{headers}Content-Length: 0\r\n\r\n",
            self.port
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let is_done = answer.contains(" 200 ") || answer.contains(" 201 ");
        assert!(is_done, "{request}: {answer}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Connections that a killed worker has left outlive the server, and keep its ssh alive.
        let pid = self.process.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        for child in children.unwrap_or_default().split_whitespace() {
            let child = Pid::from_raw(child.parse().unwrap());
            match kill(child, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => panic!("process {child}: {error}"),
            }
        }
    }
}

/// Has a place's repository be in moto's bucket, by way of a port.
pub(crate) fn in_s3(place: &mut Place, port: u16) {
    let options = format!(
        "# for the tests\nendpoint = http://127.0.0.1:{port}\naccess_key_id = key\nsecret_access_key = \"hidden\"\n"
    );
    lies(place, "s3://bucket/hosts/one", &options);
}

/// The same in Azurite's container.
pub(crate) fn in_azure(place: &mut Place, port: u16) {
    let options = format!(
        "endpoint = http://127.0.0.1:{port}/{ACCOUNT}\naccount_name = {ACCOUNT}\naccount_key = {ACCOUNT_KEY}\n"
    );
    lies(place, "azure://container/hosts/one", &options);
}

/// The same in the emulator's bucket.
pub(crate) fn in_gcs(place: &mut Place, port: u16) {
    let options = format!("endpoint = http://127.0.0.1:{port}\nskip_signature = true\n");
    lies(place, "gs://bucket/hosts/one", &options);
}

/// The same in a directory behind ssh.
pub(crate) fn behind_ssh(place: &mut Place, port: u16) {
    // What ssh learns of hosts stays in the place: what is said first counts.
    let programs = place.path("programs");
    fs::create_dir(&programs).unwrap();
    let hosts = place.path("known_hosts").display().to_string();
    let text = format!("#!/bin/sh\nexec /usr/bin/ssh -o UserKnownHostsFile={hosts} \"$@\"\n");
    fs::write(programs.join("ssh"), text).unwrap();
    fs::set_permissions(programs.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    place
        .environment
        .push(("PATH", format!("{}:{path}", programs.display())));
    let options = format!(
        "key = {}\nknown_hosts_strategy = add\n",
        place.path("key").display()
    );
    let url = format!(
        "sftp://root@127.0.0.1:{port}{}",
        place.path("behind").display()
    );
    lies(place, &url, &options);
}

fn lies(place: &mut Place, url: &str, options: &str) {
    let file = place.path("options");
    secret(&file, options);
    place.repository.url = url.to_owned();
    place.repository.options_file = Some(file);
}

/// A program in the cache, where run-tests puts it.
fn installed(path: &str) -> PathBuf {
    let cache = std::env::var_os("DROVER_CACHE").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/drover"),
        PathBuf::from,
    );
    let program = cache.join(path);
    assert!(
        program.exists(),
        "`{}` is installed by run-tests",
        program.display()
    );
    program
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// HMAC-SHA256 (RFC 2104) with the account's key.
fn hmac(text: &str) -> Vec<u8> {
    let key = BASE64_STANDARD.decode(ACCOUNT_KEY).unwrap();
    let padded = |with: u8| -> Vec<u8> { key.iter().map(|byte| byte ^ with).collect() };
    assert_eq!(key.len(), 64, "as long as a block");
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(text)
        .finalize();
    let outer = Sha256::new().chain_update(padded(0x5c)).chain_update(inner);
    outer.finalize().to_vec()
}
