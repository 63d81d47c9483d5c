//! The packaged etcd as a process of this host's.
//!
//! It outlives the coordinator on purpose: other hosts need it while this one is being upgraded or has
//! crashed. A coordinator that starts finds it again by its process id, program and data
//! directory, and starts it when it is not there.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use drover_control_api::Failure;
use drover_daemon::Backoff;
use drover_pki::file;
use drover_store::Store;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::failure::{internal, unavailable};
use crate::mirror::chain;

/// The log is cut at this size; as much again is kept of before.
const LOG_BYTES: u64 = 8 << 20;
/// How often it is looked whether etcd still runs.
const LOOK: Duration = Duration::from_millis(500);
/// How long a new etcd may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long etcd may take to end by itself.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// An etcd that ran this long did not fail at its start.
const SETTLED: Duration = Duration::from_secs(60);

/// How etcd is to run here.
#[derive(Debug, Clone)]
pub(super) struct EtcdPlan {
    /// The program: a name to be looked up, or a path.
    pub(super) program: PathBuf,
    /// Where its data, log and process id are.
    pub(super) dir: PathBuf,
    /// The member's name in etcd.
    pub(super) name: String,
    /// The cluster's id.
    pub(super) cluster: String,
    /// The address that other hosts reach it at.
    pub(super) advertise: IpAddr,
    /// Its port for clients.
    pub(super) client_port: u16,
    /// Its port for members.
    pub(super) peer_port: u16,
    /// The file of its certificate and key.
    pub(super) identity: PathBuf,
    /// The file of the authority's certificate.
    pub(super) authority: PathBuf,
}

impl EtcdPlan {
    /// The URL for clients.
    pub(super) fn endpoint(&self) -> String {
        url(self.advertise, self.client_port)
    }

    fn pid_path(&self) -> PathBuf {
        self.dir.join("etcd.pid")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("etcd.log")
    }

    fn data_argument(&self) -> String {
        format!("--data-dir={}", self.dir.join("data").display())
    }

    fn arguments(&self) -> Vec<String> {
        let (endpoint, peer) = (self.endpoint(), url(self.advertise, self.peer_port));
        let loopback = url(IpAddr::from([127, 0, 0, 1]), self.client_port);
        let listen = if loopback == endpoint {
            loopback
        } else {
            format!("{endpoint},{loopback}")
        };
        let (identity, authority) = (self.identity.display(), self.authority.display());
        vec![
            format!("--name={}", self.name),
            self.data_argument(),
            format!("--listen-client-urls={listen}"),
            format!("--advertise-client-urls={endpoint}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}={peer}", self.name),
            format!("--initial-cluster-token={}", self.cluster),
            "--initial-cluster-state=new".to_owned(),
            format!("--cert-file={identity}"),
            format!("--key-file={identity}"),
            format!("--trusted-ca-file={authority}"),
            "--client-cert-auth".to_owned(),
            format!("--peer-cert-file={identity}"),
            format!("--peer-key-file={identity}"),
            format!("--peer-trusted-ca-file={authority}"),
            "--peer-client-cert-auth".to_owned(),
            "--auto-compaction-mode=periodic".to_owned(),
            "--auto-compaction-retention=1h".to_owned(),
            "--logger=zap".to_owned(),
            "--log-level=warn".to_owned(),
            "--log-outputs=stderr".to_owned(),
        ]
    }

    /// The process id of the etcd that runs with this plan's data, if one does.
    pub(super) fn running(&self) -> Option<i32> {
        let written = std::fs::read_to_string(self.pid_path()).ok();
        let written = written.and_then(|text| text.trim().parse().ok());
        // The process id is written after the start: a crash in between leaves none.
        written.filter(|pid| self.is_ours(*pid)).or_else(|| {
            let processes = std::fs::read_dir("/proc").ok()?.flatten();
            let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            pids.find(|pid| self.is_ours(*pid))
        })
    }

    /// Whether a process is an etcd on our data directory, as this process sees files and networks:
    /// another host on the same machine could use the same path in its own mount namespace.
    fn is_ours(&self, pid: i32) -> bool {
        let Ok(program) = std::fs::read_link(format!("/proc/{pid}/exe")) else {
            return false;
        };
        let name = program.file_name().map(OsStr::as_bytes).unwrap_or_default();
        if !name.starts_with(b"etcd") {
            return false;
        }
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let data = self.data_argument();
        arguments
            .split(|byte| *byte == 0)
            .any(|argument| argument == data.as_bytes())
            && ["mnt", "net"].iter().all(|kind| {
                let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/{kind}")).ok();
                namespace(&pid.to_string()) == namespace("self")
            })
    }

    /// Starts etcd if it does not run.
    pub(super) async fn ensure_running(&self) -> Result<i32, Failure> {
        if let Some(pid) = self.running() {
            self.write_pid(pid)?;
            return Ok(pid);
        }
        file::make_directory(&self.dir.join("data")).map_err(|error| internal(&error))?;
        bound_log(&self.log_path());
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.log_path());
        let log = log.map_err(|error| internal(&error))?;
        let mut command = tokio::process::Command::new(&self.program);
        command.args(self.arguments()).current_dir(&self.dir);
        // etcd takes settings from its environment; it shall have none but these.
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if cfg!(target_arch = "aarch64") {
            command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // A process group of its own: an interrupt from the terminal is not for etcd.
        let mut child = command
            .process_group(0)
            .spawn()
            .map_err(|error| self.no_start(&error))?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .unwrap_or_default();
        self.write_pid(pid)?;
        tracing::info!(pid, dir = %self.dir.display(), "etcd is started");
        tokio::spawn(async move {
            let ended = child.wait().await;
            tracing::warn!(pid, ?ended, "etcd has ended");
        });
        Ok(pid)
    }

    fn no_start(&self, error: &std::io::Error) -> Failure {
        if error.kind() == std::io::ErrorKind::NotFound {
            return unavailable(
                "etcd is not installed on this host: install it with `apt install etcd-server`, or name \
                 an etcd that exists with --etcd-endpoints",
            );
        }
        unavailable(format!(
            "etcd ({}) cannot be started: {error}",
            self.program.display()
        ))
    }

    fn write_pid(&self, pid: i32) -> Result<(), Failure> {
        file::write(&self.pid_path(), pid.to_string().as_bytes()).map_err(|error| internal(&error))
    }

    /// Waits until etcd answers; `pid` is the process that was started.
    pub(super) async fn wait_until_it_answers(
        &self,
        store: &Store,
        pid: i32,
    ) -> Result<(), Failure> {
        let end = Instant::now() + START_LIMIT;
        loop {
            let Err(error) = store.get("cluster").await else {
                return Ok(());
            };
            let problem = if !self.is_ours(pid) {
                "etcd ended at once".to_owned()
            } else if Instant::now() > end {
                format!("etcd does not answer: {}", chain(&error))
            } else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (log, last) = (self.log_path(), self.last_words());
            return Err(unavailable(format!(
                "{problem}; its log {} ends: {last}",
                log.display()
            )));
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let last = log
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default();
        last.chars().take(600).collect()
    }

    /// Ends etcd, if it runs.
    pub(super) async fn stop(&self) -> Result<(), Failure> {
        let Some(pid) = self.running() else {
            return Ok(());
        };
        let end = Instant::now() + STOP_LIMIT;
        self.signal(pid, Signal::SIGTERM)?;
        while self.is_ours(pid) {
            if Instant::now() > end {
                self.signal(pid, Signal::SIGKILL)?;
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn signal(&self, pid: i32, signal: Signal) -> Result<(), Failure> {
        match kill(Pid::from_raw(pid), signal) {
            // It may have ended a moment ago.
            Err(error) if error != nix::Error::ESRCH => Err(unavailable(format!(
                "etcd (process {pid}, data in {}) cannot be ended: {error}",
                self.dir.display()
            ))),
            _ => Ok(()),
        }
    }
}

/// Keeps etcd running for as long as this host is in the cluster, that is, while `cluster_file` is there.
pub(super) async fn supervise(plan: EtcdPlan, cluster_file: PathBuf) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    while cluster_file.exists() {
        let begin = Instant::now();
        match plan.ensure_running().await {
            Ok(pid) => {
                while plan.is_ours(pid) {
                    bound_log(&plan.log_path());
                    sleep(LOOK).await;
                }
                if begin.elapsed() > SETTLED {
                    backoff.reset();
                }
            }
            Err(failure) => tracing::error!(%failure, "etcd is not running"),
        }
        if cluster_file.exists() {
            let delay = backoff.next_delay();
            tracing::error!(
                last = plan.last_words(),
                ?delay,
                "etcd is not running; it is started again"
            );
            sleep(delay).await;
        }
    }
}

/// Keeps the log from filling the disk: at its limit it is copied, and begun anew in place, since etcd
/// keeps it open.
fn bound_log(path: &Path) {
    let full = path.metadata().is_ok_and(|log| log.len() > LOG_BYTES);
    if full && let Err(error) = cut_log(path) {
        tracing::warn!(%error, log = %path.display(), "the log of etcd could not be cut");
    }
}

fn cut_log(path: &Path) -> std::io::Result<()> {
    let mut log = OpenOptions::new().read(true).write(true).open(path)?;
    let back = i64::try_from(LOG_BYTES).unwrap_or(i64::MAX);
    log.seek(SeekFrom::End(-back))?;
    let mut last = Vec::new();
    Read::by_ref(&mut log)
        .take(LOG_BYTES)
        .read_to_end(&mut last)?;
    let old = path.with_extension("log.1");
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(old)?
        .write_all(&last)?;
    log.set_len(0)
}

fn url(address: IpAddr, port: u16) -> String {
    format!("https://{}", SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_at_its_limit_is_begun_anew_and_its_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.log");
        let mut writer = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        writer
            .write_all(&vec![b'a'; usize::try_from(LOG_BYTES).unwrap()])
            .unwrap();
        bound_log(&path);
        assert_eq!(path.metadata().unwrap().len(), LOG_BYTES, "not yet full");
        writer.write_all(b"the end").unwrap();
        bound_log(&path);
        assert_eq!(path.metadata().unwrap().len(), 0);
        let old = std::fs::read(dir.path().join("etcd.log.1")).unwrap();
        assert!(old.ends_with(b"the end"));
        writer.write_all(b"new").unwrap();
        assert_eq!(
            std::fs::read(&path).unwrap(),
            b"new",
            "the open file goes on at the beginning"
        );
    }

    #[test]
    fn addresses_of_both_families_make_urls() {
        assert_eq!(
            url("192.0.2.1".parse().unwrap(), 4749),
            "https://192.0.2.1:4749"
        );
        assert_eq!(
            url("2001:db8::1".parse().unwrap(), 4749),
            "https://[2001:db8::1]:4749"
        );
    }
}
