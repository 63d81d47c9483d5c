//! An authorization plugin that reads every question whole and says yes: what an engine takes to ask, and nothing else.

use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result};
use integration_tests::call::head;

/// Its name among an engine's plugins.
pub(crate) const NAME: &str = "says-yes";

/// Answers at an engine's folder of plugins, as long as the benchmark runs.
///
/// # Errors
/// When the socket cannot be bound.
pub(crate) fn serve(folder: &Path) -> Result<()> {
    let path = folder.join(format!("{NAME}.sock"));
    let socket =
        UnixListener::bind(&path).with_context(|| format!("cannot bind `{}`", path.display()))?;
    thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    Ok(())
}

/// Answers until the engine closes the connection.
fn answer(stream: UnixStream) -> Result<()> {
    let mut stream = BufReader::with_capacity(1 << 17, stream);
    loop {
        let head = head(&mut stream)?;
        let mut question = vec![0; head.length];
        stream.read_exact(&mut question)?;
        let body = if head.first.contains("/Plugin.Activate ") {
            r#"{"Implements":["authz"]}"#
        } else {
            r#"{"Allow":true}"#
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.get_mut().write_all(answer.as_bytes())?;
    }
}
