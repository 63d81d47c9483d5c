//! The life of a process: arguments, settings, log, runtime, signals, exit code.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Arg, Command, value_parser};
use nix::sys::prctl;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::{Exit, Overrides, Settings, VERSION, telemetry};

/// How many threads answer calls.
const WORKERS: usize = 2;

/// Runs a process of Drover to its end.
///
/// `main` gets the settings, and a receiver that becomes `true` when the process is asked to stop; it
/// then finishes what it is doing and returns. An [`Exit`] among the causes of its error becomes
/// the exit code.
pub fn run<F, Fut>(name: &'static str, main: F) -> ExitCode
where
    F: FnOnce(Settings, watch::Receiver<bool>) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let overrides = match arguments(name).try_get_matches() {
        Ok(matches) => Overrides {
            config: matches.get_one::<PathBuf>("config").cloned(),
            ..Overrides::default()
        },
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let shown = error.print().is_ok();
            return if shown && !error.use_stderr() {
                Exit::Success
            } else {
                Exit::Usage
            }
            .into();
        }
    };
    let settings = match Settings::load(&overrides) {
        Ok(settings) => settings,
        Err(error) => {
            telemetry::install(&Settings::default().log);
            for fault in error.faults() {
                error!("{fault}");
            }
            return Exit::Configuration.into();
        }
    };
    run_with(name, settings, main)
}

/// Like [`run`], for a program that has read its arguments and settings itself.
pub fn run_with<F, Fut>(name: &'static str, settings: Settings, main: F) -> ExitCode
where
    F: FnOnce(Settings, watch::Receiver<bool>) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    telemetry::install(&settings.log);
    if let Err(error) = keep_memory_private() {
        warn!(%error, "keys would be in a core dump of this process");
    }
    match block_on(name, settings, main) {
        Ok(()) => Exit::Success.into(),
        Err(error) => {
            let exit = Exit::of(&error);
            if exit == Exit::Restart {
                info!(process = name, "asks to be started again");
            } else {
                error!(process = name, "{error:#}");
            }
            exit.into()
        }
    }
}

/// Has the kernel write no core dump of this process, to a file or a pipe, and let nobody but root look into it (prctl(2),
/// `PR_SET_DUMPABLE`): there are keys in its memory.
fn keep_memory_private() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

fn arguments(name: &'static str) -> Command {
    Command::new(name)
        .version(VERSION)
        .about("A process of Drover. `drover up` runs it; it reads drover.toml and DROVER_* variables.")
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .env("DROVER_CONFIG")
                .value_parser(value_parser!(PathBuf))
                .help("The configuration file [default: /etc/drover/drover.toml, if it is there]"),
        )
}

fn block_on<F, Fut>(name: &str, settings: Settings, main: F) -> anyhow::Result<()>
where
    F: FnOnce(Settings, watch::Receiver<bool>) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let shutdown = shutdown_signal()?;
        info!(process = name, version = VERSION, "starts");
        let result = main(settings, shutdown).await;
        info!(process = name, "ends");
        result
    });
    // A blocking call that hangs must not hold the end up.
    runtime.shutdown_background();
    result
}

/// A receiver that becomes `true` at SIGTERM, SIGINT, or when the terminal goes away.
fn shutdown_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    crate::task::spawn("signals", async move {
        // The arms are cancel-safe: a signal that came is seen by the next `recv`.
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
            // Kept alive for ever: a receiver that finds its sender gone could not tell a stop.
            sender.send_replace(true);
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_core_dump_is_written() {
        assert!(
            prctl::get_dumpable().unwrap(),
            "it would not have been anyway"
        );
        keep_memory_private().unwrap();
        assert!(!prctl::get_dumpable().unwrap());
    }
}
