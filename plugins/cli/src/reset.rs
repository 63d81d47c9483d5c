//! `drover reset`: removes everything of ours from a host, and only that.
//!
//! ```text
//! containers? stop -> leave the cluster -> tear down the data path -> stop the processes
//!   -> remove the networks from the engine -> remove kernel objects, sockets, folders
//! ```
//! It works on a host whose processes run, are half dead, or are gone: what a process does not do
//! any more is done here. The engine's networks go while this command answers in the place of the
//! plugins, so that the engine does not wait for processes that have ended.

mod engine;
mod farewell;
mod files;
mod kernel;

use std::io::{self, BufRead as _, IsTerminal as _};
use std::time::Duration;

use drover_control_api::FailureKind;
use drover_control_api::coordinator::Leave;
use drover_control_api::plugin::TearDown;
use drover_control_api::volume::TearDownVolumes;
use drover_daemon::{Exit, Settings};
use nix::sys::signal::Signal;
use serde::Serialize;

use crate::ask::{CommandError, ask, status, status_when};
use crate::authorization;
use crate::cluster::ETCD;
use crate::output;
use crate::process::{Process, Running};
use crate::up;

/// How long leaving may take.
const LEAVE: Duration = Duration::from_secs(30);
/// How long tearing the data path down may take.
const TEAR_DOWN: Duration = Duration::from_secs(30);
/// How long `drover up` may take to end: it waits for its children.
const SUPERVISOR: Duration = Duration::from_secs(10);

/// What `drover reset --json` writes.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Done {
    /// What was removed, a sentence each.
    pub(crate) removed: Vec<String>,
    /// What was not, and why.
    pub(crate) left: Vec<String>,
}

impl Done {
    fn removed(&mut self, what: impl Into<String>) {
        let what = what.into();
        output::note(&what);
        self.removed.push(what);
    }

    fn left(&mut self, what: impl Into<String>) {
        let what = what.into();
        output::problem(&what);
        self.left.push(what);
    }
}

/// Resets the host.
///
/// Volumes stay unless they are to go too: they are what nobody can make again.
pub(crate) async fn reset(
    settings: &Settings,
    confirmed: bool,
    with_volumes: bool,
) -> Result<Done, CommandError> {
    if authorization::engine_is_told() {
        return Err(CommandError::refused(
            "the engine is told to ask `drover-authz`, and would deny every call: take it out of \
             `authorization-plugins` in /etc/docker/daemon.json, restart the engine, and try again",
        ));
    }
    let networks = engine::idle_networks(settings).await?;
    if !confirmed {
        confirm(settings, networks.len())?;
    }
    let mut done = Done::default();
    leave(settings, &mut done).await?;
    tear_down(settings, &mut done).await;
    let volumes_stay = !close_volumes(settings, with_volumes, &mut done).await;
    stop_processes(settings, &mut done).await;
    if !networks.is_empty() {
        let farewell = farewell::Farewell::say(settings)?;
        engine::remove(settings, &networks, &mut done).await;
        farewell.end().await;
    }
    kernel::remove(settings, &mut done).await;
    files::remove(settings, volumes_stay, &mut done);
    Ok(done)
}

fn confirm(settings: &Settings, networks: usize) -> Result<(), CommandError> {
    let usage = |sentence: &str| CommandError::Other {
        sentence: sentence.to_owned(),
        code: Exit::Usage.code(),
    };
    if !io::stdin().is_terminal() {
        return Err(usage(
            "there is no terminal to ask at: say `drover reset --yes`",
        ));
    }
    output::note(&format!(
        "this removes {networks} Drover networks from the engine, the overlay, and everything in `{}` and `{}`",
        settings.state_dir.display(),
        settings.run_dir.display()
    ));
    output::note("type `yes` to go on:");
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    if read.is_ok() && line.trim() == "yes" {
        Ok(())
    } else {
        Err(CommandError::refused("nothing was changed"))
    }
}

/// Leaves the cluster, so that the other hosts need not wait for this one. A refusal stops the reset: it
/// would hurt the others, as when their store is here. A cluster that does not answer stops
/// nothing: another host can remove this one.
async fn leave(settings: &Settings, done: &mut Done) -> Result<(), CommandError> {
    let Ok(before) = status(settings).await else {
        return Ok(());
    };
    if before.store.kind != ETCD {
        return Ok(());
    }
    let left = match ask(settings, Process::Coordinator, &Leave {}, LEAVE).await {
        Ok(_) => status_when(settings, LEAVE, |status| status.store.kind != ETCD)
            .await
            .map(|_| ()),
        Err(error) => Err(error),
    };
    match left {
        Ok(()) => done.removed(format!(
            "`{}` has left cluster {}",
            before.host, before.cluster
        )),
        Err(CommandError::Refused(failure)) if failure.kind != FailureKind::Unavailable => {
            return Err(CommandError::Refused(failure));
        }
        Err(error) => done.left(format!(
            "cannot leave the cluster: {error}; on another host: drover host rm {}",
            before.host
        )),
    }
    Ok(())
}

/// Has `drover-net` remove what it made in the kernel. When it does not answer, what is known by its
/// name is removed without it.
async fn tear_down(settings: &Settings, done: &mut Done) {
    match ask(settings, Process::Network, &TearDown {}, TEAR_DOWN).await {
        Ok(torn_down) => torn_down
            .removed
            .into_iter()
            .for_each(|what| done.removed(format!("removed {what}"))),
        Err(CommandError::NotRunning { .. }) => {}
        Err(error) => output::note(&format!("`drover-net` did not tear down: {error}")),
    }
}

/// Has `drover-vol` detach all volumes, and remove them if they are to go. Whether none is left.
async fn close_volumes(settings: &Settings, delete: bool, done: &mut Done) -> bool {
    let tear_down = TearDownVolumes { delete };
    match ask(settings, Process::Volumes, &tear_down, TEAR_DOWN).await {
        Ok(torn_down) => {
            let removed = torn_down.removed.into_iter();
            removed.for_each(|what| done.removed(format!("removed {what}")));
            delete
        }
        // What it made is removed with the other files.
        Err(CommandError::NotRunning { .. }) => delete,
        Err(error) if delete => {
            done.left(format!("the volumes are still there: {error}"));
            false
        }
        Err(error) => {
            output::note(&format!("`drover-vol` did not detach the volumes: {error}"));
            false
        }
    }
}

/// Stops the supervisor, which stops its children, and then children of a supervisor that is gone.
async fn stop_processes(settings: &Settings, done: &mut Done) {
    let supervisor = up::holder(&settings.run_dir).and_then(Running::of);
    if let Some(supervisor) = supervisor {
        supervisor.signal(Signal::SIGTERM);
        up::wait_for_end(&[supervisor], SUPERVISOR).await;
        done.removed("stopped `drover up`");
    }
    let orphans = Process::every()
        .filter_map(|process| Running::from_pid_file(&process.pid_file(settings), process.name()));
    let orphans: Vec<Running> = orphans.collect();
    if !orphans.is_empty() {
        let count = orphans.len();
        up::end_processes(orphans).await;
        done.removed(format!(
            "stopped {count} processes that a killed `drover up` had left"
        ));
    }
}
