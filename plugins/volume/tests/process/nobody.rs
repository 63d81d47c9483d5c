//! An engine without a container, for what asks whether one uses a volume.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Answers at a socket until the test ends.
pub(crate) fn serve(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            // Whoever asked may have been killed.
            drop(connection.and_then(answer));
        }
    });
}

fn answer(mut connection: UnixStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    // No question has a body.
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let body = if first.contains("/version") {
        r#"{"Version":"28.5.2","ApiVersion":"1.51"}"#
    } else {
        "[]"
    };
    write!(
        connection,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
