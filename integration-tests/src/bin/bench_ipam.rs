//! How long `RequestAddress` takes with 10,000 leases on the books, against a bare HTTP echo on the same
//! kind of socket in the same run.
//!
//! `cargo run --release -p integration-tests --bin bench_ipam [LEASES [REQUESTS]]`, after
//! `cargo build --release -p drover-ipam -p drover-coordinator`. It needs no engine and no root: the
//! coordinator and the plugin run in a folder of their own. An address is on disk when it is answered, so the
//! program also prints what the smallest durable write to that disk takes.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// How long a process may take to answer for the first time.
const START: Duration = Duration::from_secs(15);
/// As an argument: be the echo, on the socket that follows.
const ECHO: &str = "--echo";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, socket] = arguments.as_slice()
        && first == ECHO
    {
        return echo(Path::new(socket)).await;
    }
    let number = |position: usize, default: usize| {
        arguments
            .get(position)
            .map_or(Ok(default), |text| text.parse())
    };
    let (leases, requests) = (number(0, 10_000)?, number(1, 3_000)?);
    let bench = Bench::start().await?;
    let outcome = bench.measure(leases, requests).await?;
    std::io::stdout().write_all(outcome.as_bytes())?;
    Ok(())
}

/// The processes, in a folder that goes with them.
struct Bench {
    folder: tempfile::TempDir,
    _processes: Vec<Running>,
    ipam: PathBuf,
    echo: PathBuf,
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing is to be kept of it, and it may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Bench {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let own = std::env::current_exe()?;
        let programs = own.parent().context("this program lies in no folder")?;
        let (ipam, echo) = (
            folder.path().join("plugins/drover-ipam.sock"),
            folder.path().join("echo.sock"),
        );
        let control = folder.path().join("run/control.sock");
        let processes = vec![
            spawn(
                &programs.join("drover-coordinator"),
                &[],
                folder.path(),
                &control,
            )
            .await?,
            spawn(&programs.join("drover-ipam"), &[], folder.path(), &ipam).await?,
            spawn(
                &own,
                &[ECHO.as_ref(), echo.as_os_str()],
                folder.path(),
                &echo,
            )
            .await?,
        ];
        Ok(Self {
            folder,
            _processes: processes,
            ipam,
            echo,
        })
    }

    async fn measure(&self, leases: usize, requests: usize) -> Result<String> {
        let mut ipam = Connection::open(&self.ipam).await?;
        let pool = ipam.call("RequestPool", &pool_request()).await?;
        let pool = pool
            .get("PoolID")
            .and_then(Value::as_str)
            .context("no pool")?
            .to_owned();
        for number in 0..leases {
            ipam.call("RequestAddress", &address_request(&pool, number))
                .await?;
        }
        let mut times = Vec::with_capacity(requests);
        for number in leases..leases.saturating_add(requests) {
            let request = address_request(&pool, number);
            let began = Instant::now();
            let given = ipam.call("RequestAddress", &request).await?;
            times.push(began.elapsed());
            // Given back untimed, so that the number of leases stays.
            let address = given
                .get("Address")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let address = address.split('/').next().unwrap_or_default();
            ipam.call(
                "ReleaseAddress",
                &json!({"PoolID": pool, "Address": address}),
            )
            .await?;
        }
        let mut echo = Connection::open(&self.echo).await?;
        let mut echoes = Vec::with_capacity(requests);
        for number in 0..requests {
            let request = address_request(&pool, number);
            let began = Instant::now();
            echo.call("RequestAddress", &request).await?;
            echoes.push(began.elapsed());
        }
        let writes = durable_writes(&self.folder.path().join("write"), 300)?;
        let (ipam, echo, write) = (Times::of(times), Times::of(echoes), Times::of(writes));
        Ok(format!(
            "RequestAddress at {leases} leases: p50 {} us, p99 {} us ({requests} requests)\n\
             HTTP echo:                        p50 {} us, p99 {} us\n\
             write and fdatasync of 4 KiB:     p50 {} us, p99 {} us\n\
             ratio to the echo:                p50 {:.1}, p99 {:.1}\n",
            ipam.p50.as_micros(),
            ipam.p99.as_micros(),
            echo.p50.as_micros(),
            echo.p99.as_micros(),
            write.p50.as_micros(),
            write.p99.as_micros(),
            ipam.p50.as_secs_f64() / echo.p50.as_secs_f64(),
            ipam.p99.as_secs_f64() / echo.p99.as_secs_f64(),
        ))
    }
}

fn pool_request() -> Value {
    json!({"AddressSpace": "drover", "Pool": "", "SubPool": "", "Options": null, "V6": false})
}

fn address_request(pool: &str, number: usize) -> Value {
    let (high, low) = (number / 256 % 256, number % 256);
    let mac = format!("02:42:0a:40:{high:02x}:{low:02x}");
    let options = json!({"com.docker.network.endpoint.macaddress": mac});
    json!({"PoolID": pool, "Address": "", "Options": options})
}

struct Times {
    p50: Duration,
    p99: Duration,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let position = times.len().saturating_mul(percent) / 100;
            times.get(position).copied().unwrap_or_default()
        };
        Self {
            p50: at(50),
            p99: at(99),
        }
    }
}

fn durable_writes(path: &Path, count: usize) -> Result<Vec<Duration>> {
    let file = File::create(path)?;
    let page = [7_u8; 4096];
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        file.write_all_at(&page, 0)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Starts a process and waits until its socket takes connections.
async fn spawn(
    program: &Path,
    arguments: &[&std::ffi::OsStr],
    folder: &Path,
    socket: &Path,
) -> Result<Running> {
    let setting = |name: &str| folder.join(name);
    let child = Command::new(program)
        .args(arguments)
        .env("DROVER_CONFIG", "/dev/null")
        .env("DROVER_STATE_DIR", setting("state"))
        .env("DROVER_RUN_DIR", setting("run"))
        .env("DROVER_PLUGIN_DIR", setting("plugins"))
        .env("DROVER_HOST_NAME", "bench")
        .env("DROVER_ADVERTISE_ADDR", "127.0.0.1")
        .env("DROVER_DOCKER_HOST", format!("unix://{}", setting("no-engine.sock").display()))
        .env("DROVER_LOG_LEVEL", "error")
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| {
            let shown = program.display();
            format!("cannot start `{shown}`: build drover-ipam and drover-coordinator first, in the same profile")
        })?;
    let mut running = Running(child);
    let began = Instant::now();
    while UnixStream::connect(socket).await.is_err() {
        if let Some(status) = running.0.try_wait()? {
            bail!("`{}` ended with {status}", program.display());
        }
        if began.elapsed() > START {
            bail!(
                "`{}` does not listen on `{}`",
                program.display(),
                socket.display()
            );
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(running)
}

/// One connection that is kept, as an engine keeps its own.
struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    async fn open(socket: &Path) -> Result<Self> {
        Ok(Self {
            stream: BufReader::new(UnixStream::connect(socket).await?),
        })
    }

    async fn call(&mut self, method: &str, request: &Value) -> Result<Value> {
        let body = request.to_string();
        let head = format!(
            "POST /IpamDriver.{method} HTTP/1.1\r\nHost: plugin\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.stream
            .write_all(format!("{head}{body}").as_bytes())
            .await?;
        let answer: Value = serde_json::from_slice(&self.body().await?)?;
        match answer.get("Error").and_then(Value::as_str) {
            Some(error) if !error.is_empty() => bail!("`{method}`: {error}"),
            _ => Ok(answer),
        }
    }

    /// Reads one message of either direction, and gives its body.
    async fn body(&mut self) -> Result<Vec<u8>> {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                bail!("the connection was closed");
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }
}

/// Answers every request with its own body, and does nothing else.
async fn echo(socket: &Path) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let mut connection = Connection {
            stream: BufReader::new(stream),
        };
        tokio::spawn(async move {
            while let Ok(body) = connection.body().await {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                let answer = [head.as_bytes(), &body].concat();
                if connection.stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        });
    }
}
