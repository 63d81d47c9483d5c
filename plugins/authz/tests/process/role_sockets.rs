//! A role's socket, spoken to byte by byte: what reaches the engine behind it, and what comes back.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::plugin::{Plugin, until};

/// A call that is answered, and the connection closed, in good time.
const GOOD: Duration = Duration::from_secs(20);

/// A plugin with a socket for Ann, who is a developer.
fn start() -> (Plugin, PathBuf) {
    let plugin = Plugin::start("[roles]\nadmin = [\"local\"]\n");
    let socket = plugin.at("sockets/ann/docker.sock");
    let path = socket.to_str().unwrap();
    let made = plugin.words(&[
        "authz",
        "socket",
        "--role",
        "developer",
        "--user",
        "ann",
        "--mode",
        "0640",
        path,
    ]);
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(
        made.status.success() && said.contains("is served to `ann`"),
        "{made:?}"
    );
    // The first list of what is on the engine is there before a call is counted.
    until("the inventory", || plugin.heads().len() >= 3);
    (plugin, socket)
}

/// Sends bytes, and returns all that is answered until the end, or until nothing has come for so long.
fn send(socket: &PathBuf, bytes: &[u8], patience: Duration) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    // It may have refused by now.
    drop(stream.write_all(bytes));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// Bytes that somebody could take for another call than we do: each has a call in it that Ann may not make, and that says `evil`.
const RAW: &[&str] = &[
    "DELETE /containers/nobodys?evil=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /_ping HTTP/1.1\r\nHost: a\r\n\r\nDELETE /containers/nobodys?evil=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /containers/anns/start HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n\
     0\r\n\r\nDELETE /containers/nobodys?evil=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /containers/anns/start HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 200\r\n\r\n\
     DELETE /containers/nobodys?evil=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /containers/anns/start HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n\
     0\r\n\r\nDELETE /containers/nobodys?evil=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /containers/anns/start HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n\
     0\r\n\r\nDELETE /containers/nobodys?evil=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /_ping HTTP/1.1\r\nHost: a\r\nX: b\r\n DELETE: /containers/nobodys?evil=1\r\n\r\n",
    "GET /_ping HTTP/1.1\nHost: a\n\nDELETE /containers/nobodys?evil=1 HTTP/1.1\nHost: a\n\n",
    "DELETE http://engine/containers/nobodys?evil=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "DELETE /containers/nobodys?evil=1#/_ping HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT /containers/nobodys?evil=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT evil:80 HTTP/1.1\r\nHost: a\r\n\r\nDELETE /containers/nobodys?evil=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: evil\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nevil",
    "delete /containers/nobodys?evil=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "DELETE /containers/nobodys?evil=1\r\n\r\n",
    "DELETE /containers/nobodys?evil=1 HTTP/1.0\r\n\r\n",
    "GET /_ping HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n\
     PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nevil",
    "POST /containers/create?name=evil HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Type: text/plain\r\n\
     Content-Length: 13\r\n\r\n{\"Image\":\"a\"}",
    "POST /containers/create?name=evil HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{\"Image\":\"a\"}",
];

#[test]
fn what_can_be_read_in_two_ways_does_not_reach_the_engine() {
    let (plugin, socket) = start();
    for raw in RAW {
        let answer = send(&socket, raw.as_bytes(), Duration::from_millis(400));
        let evil = plugin
            .heads()
            .into_iter()
            .find(|head| head.contains("evil"));
        assert_eq!(evil, None, "{raw}\n{answer}");
    }
    for head in plugin.heads() {
        let head = head.to_ascii_lowercase();
        assert!(
            !head.contains("upgrade") && !head.contains("http2-settings"),
            "{head}"
        );
        let framed =
            head.matches("content-length:").count() + head.matches("transfer-encoding:").count();
        assert!(framed <= 1, "{head}");
    }
}

#[test]
fn a_list_shows_what_may_be_seen_and_a_call_bears_the_token() {
    let (plugin, socket) = start();
    let list = "GET /containers/json?all=true HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\
                X-Drover-Authorization: mine\r\nX-Drover-Authorization: another\r\nUser-Agent: me\r\n\r\n";
    let answer = send(&socket, list.as_bytes(), GOOD);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("/anns") && !answer.contains("/nobodys"),
        "{answer}"
    );
    let heads = plugin.heads();
    let head = heads.iter().find(|head| head.contains("all=true")).unwrap();
    let token = std::fs::read_to_string(plugin.at("run/authorization.token")).unwrap();
    let head = head.to_ascii_lowercase();
    assert_eq!(head.matches("x-drover-authorization").count(), 1, "{head}");
    assert!(
        head.contains(token.trim()) && head.contains("user-agent: me"),
        "{head}"
    );
    assert!(
        !head.contains("accept-encoding") && !head.contains("connection"),
        "{head}"
    );
    let volumes = send(
        &socket,
        b"GET /volumes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        GOOD,
    );
    assert!(volumes.contains("\"Volumes\":[]"), "{volumes}");
    let lines = plugin.decisions(2);
    assert!(
        lines
            .iter()
            .all(|line| line["user"] == "ann" && line["decision"] == "allow"),
        "{lines:?}"
    );
}

#[test]
fn a_socket_comes_and_goes_with_its_file() {
    let (plugin, socket) = start();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let path = socket.to_str().unwrap();
    let ping = || {
        send(
            &socket,
            b"GET /_ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            GOOD,
        )
    };
    assert!(ping().starts_with("HTTP/1.1 404"), "{}", ping());
    // A role that nobody knows is refused, and a file that is not usable changes nothing.
    let unknown = plugin.words(&["authz", "socket", "--role", "nobody", "/x/y"]);
    assert!(
        !unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("developer"),
        "{unknown:?}"
    );
    plugin.write_policy("sockets/other.toml", "path = \"x\"\n");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(ping().starts_with("HTTP/1.1 404"));
    let told = std::fs::read_to_string(plugin.at("stderr")).unwrap();
    assert!(told.contains("other.toml"), "{told}");
    let gone = plugin.words(&["authz", "socket", "--remove", path]);
    assert!(gone.status.success(), "{gone:?}");
    until("the end of the file", || !socket.exists());
}
