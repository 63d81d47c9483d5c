//! Calls over one kept connection to a unix socket, as the benchmarks of authorization make them, and the body of a container.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// The head of a message.
#[derive(Debug, Default)]
pub struct Head {
    /// Its first line.
    pub first: String,
    /// `Content-Length`.
    pub length: usize,
    is_chunked: bool,
}

/// A connection that is kept.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Opens it.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to `{}`", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a request as it is, and reads the status and body of the answer.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub fn call(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.stream.get_mut().write_all(request)?;
        let head = self.head()?;
        let status = head
            .first
            .split(' ')
            .nth(1)
            .and_then(|text| text.parse().ok());
        let status = status.with_context(|| format!("no status in `{}`", head.first))?;
        let mut body = vec![0; head.length];
        if head.is_chunked {
            body = self.chunks()?;
        } else if status != 101 {
            self.stream.read_exact(&mut body)?;
        }
        Ok((status, body))
    }

    /// Reads the head of a message.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn head(&mut self) -> Result<Head> {
        head(&mut self.stream)
    }

    /// What comes behind an upgrade.
    #[must_use]
    pub const fn stream(&mut self) -> &mut BufReader<UnixStream> {
        &mut self.stream
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let length = usize::from_str_radix(line.trim(), 16).context("the length of a chunk")?;
            let mut chunk = vec![0; length + 2];
            self.stream.read_exact(&mut chunk)?;
            if length == 0 {
                return Ok(body);
            }
            body.extend_from_slice(chunk.get(..length).unwrap_or_default());
        }
    }
}

/// Reads the head of a message from a stream.
///
/// # Errors
/// When the stream ends.
pub fn head(stream: &mut BufReader<UnixStream>) -> Result<Head> {
    let mut head = Head::default();
    loop {
        let mut line = String::new();
        ensure!(
            stream.read_line(&mut line)? > 0,
            "the connection was closed"
        );
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(head);
        }
        if head.first.is_empty() {
            line.clone_into(&mut head.first);
        }
        let line = line.to_ascii_lowercase();
        if let Some(text) = line.strip_prefix("content-length:") {
            head.length = text.trim().parse()?;
        }
        head.is_chunked |= line == "transfer-encoding: chunked";
    }
}

/// A request to an engine, with a body of JSON or none.
#[must_use]
pub fn request(method: &str, uri: &str, headers: &str, body: Option<&Value>) -> Vec<u8> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let kind = if body.is_empty() {
        ""
    } else {
        "Content-Type: application/json\r\n"
    };
    let length = body.len();
    format!("{method} {uri} HTTP/1.1\r\nHost: localhost\r\n{kind}{headers}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// What the command line sends for a container with a volume, a port, labels and limits. Its environment fills it up to
/// `length` bytes.
#[must_use]
pub fn container(image: &str, volume: &str, port: &str, label: &str, length: usize) -> Value {
    let value = "x".repeat(80);
    let mut environment = Vec::new();
    let mut filled = with_environment(image, volume, port, label, &environment)
        .to_string()
        .len();
    while filled < length {
        let setting = format!("SETTING_{}={value}", environment.len());
        // Quotes and a comma.
        filled += setting.len() + 3;
        environment.push(setting);
    }
    with_environment(image, volume, port, label, &environment)
}

fn with_environment(
    image: &str,
    volume: &str,
    port: &str,
    label: &str,
    environment: &[String],
) -> Value {
    json!({
        "Image": image,
        "Cmd": ["serve", "--port", "8080"],
        "Env": environment,
        "ExposedPorts": {"8080/tcp": {}},
        "Labels": {"com.example.team": "shop", "com.example.build": label},
        "HostConfig": {
            "Binds": [format!("{volume}:/data")],
            "PortBindings": {"8080/tcp": [{"HostIp": "", "HostPort": port}]},
            "NetworkMode": "bridge",
            "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
            "Memory": 536_870_912,
            "LogConfig": {"Type": "", "Config": {}},
        },
        "NetworkingConfig": {"EndpointsConfig": {"bridge": {}}},
    })
}
