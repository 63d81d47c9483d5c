//! A child: started, watched, started again, stopped.

use std::io::IsTerminal as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use drover_daemon::{Backoff, Exit, Settings, task};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::handover::hand_over;
use super::orphan::PATIENCE;
use crate::output;
use crate::process::{Process, Running};

/// The shortest wait before a child that keeps dying is started again.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A child that ran this long was well: its death is the first of its kind again.
const WELL: Duration = Duration::from_secs(10);
/// A child that asks for a restart sooner than this is treated as one that died.
const TOO_SOON: Duration = Duration::from_millis(100);

/// What it takes to run a child.
pub(crate) struct Plan {
    pub(crate) process: Process,
    pub(crate) program: PathBuf,
    pub(crate) listener: UnixListener,
    pub(crate) settings: Settings,
}

/// Keeps a child running until `shutdown`, and stops it then.
pub(crate) async fn keep_running(plan: Plan, mut shutdown: watch::Receiver<bool>) {
    let name = plan.process.name();
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut deaths = 0_u32;
    while !*shutdown.borrow() {
        let started = Instant::now();
        let restart = match start(&plan) {
            Err(error) => {
                warn!(process = name, program = %plan.program.display(), %error, "cannot be started");
                false
            }
            Ok(mut child) => {
                // Waiting is cancel-safe: a status that was not taken is there at the next wait.
                let status = tokio::select! {
                    status = child.wait() => status,
                    () = asked_to_stop(&mut shutdown) => {
                        stop(name, &mut child).await;
                        break;
                    }
                };
                ended(name, status, started.elapsed())
            }
        };
        if restart {
            continue;
        }
        if started.elapsed() >= WELL {
            backoff.reset();
            deaths = 0;
        }
        deaths = deaths.saturating_add(1);
        if deaths > 1 {
            let delay = backoff.next_delay();
            tokio::select! {
                () = sleep(delay) => {}
                () = asked_to_stop(&mut shutdown) => {}
            }
        }
    }
    remove_pid_file(&plan);
}

/// Waits for the stop. A lost sender is one: nobody could ask any more.
async fn asked_to_stop(shutdown: &mut watch::Receiver<bool>) {
    drop(shutdown.wait_for(|stop| *stop).await);
}

/// Says how a child ended, and whether it asked to be started again.
fn ended(name: &str, status: std::io::Result<ExitStatus>, ran: Duration) -> bool {
    match status {
        Ok(status) if status.code() == Some(i32::from(Exit::Restart.code())) => {
            info!(process = name, "asked to be started again");
            ran >= TOO_SOON
        }
        Ok(status) => {
            warn!(process = name, "ended ({status}), and is started again");
            false
        }
        Err(error) => {
            warn!(process = name, %error, "cannot be waited for");
            false
        }
    }
}

fn start(plan: &Plan) -> std::io::Result<Child> {
    let terminal = std::io::stderr().is_terminal();
    let stream = || {
        if terminal {
            Stdio::piped()
        } else {
            Stdio::inherit()
        }
    };
    let mut command = Command::new(&plan.program);
    command
        .envs(plan.settings.to_environment())
        // How far the start is, the supervisor tells.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stream())
        // Ctrl-C at the terminal is for the supervisor alone.
        .process_group(0);
    hand_over(&mut command, &plan.listener, plan.process.name());
    let mut child = command.spawn()?;
    note_pid(plan, &child);
    if let Some(stderr) = child.stderr.take() {
        task::spawn("child output", pass_on(plan.process.name(), stderr));
    }
    Ok(child)
}

fn note_pid(plan: &Plan, child: &Child) {
    let running = child
        .id()
        .and_then(|pid| Running::of(i32::try_from(pid).ok()?));
    let Some(running) = running else {
        return;
    };
    debug!(
        process = plan.process.name(),
        pid = running.pid(),
        "started"
    );
    let file = plan.process.pid_file(&plan.settings);
    if let Err(error) = running.write_pid_file(&file) {
        // Without it the child works, but would not be found after a kill of this process.
        warn!(file = %file.display(), %error, "cannot write the pid file");
    }
}

fn remove_pid_file(plan: &Plan) {
    let file = plan.process.pid_file(&plan.settings);
    if let Err(error) = std::fs::remove_file(&file) {
        debug!(file = %file.display(), %error, "no pid file to remove");
    }
}

/// Passes on what a child writes, with its name before each line.
async fn pass_on(name: &str, stderr: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        output::note(&format!("{name:<18} {line}"));
    }
}

/// Asks a child to end, and makes it when it does not listen.
async fn stop(name: &str, child: &mut Child) {
    let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else {
        return;
    };
    // It cannot have been waited for: the id is still its own.
    if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM) {
        debug!(process = name, %error, "cannot be asked to end");
    }
    if timeout(PATIENCE, child.wait()).await.is_err() {
        warn!(process = name, "did not end in time, and is killed");
        if let Err(error) = child.kill().await {
            warn!(process = name, %error, "cannot be killed");
        }
    }
}
