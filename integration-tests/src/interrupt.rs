//! An orderly end when a person or a time limit interrupts a run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::{cache, process};

/// What an interrupted run removes.
static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Has a directory removed on an interrupt.
pub(crate) fn also_remove(path: &Path) {
    DIRECTORIES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(path.to_owned());
}

/// From now on SIGTERM, SIGINT and SIGHUP end every host and remove what the run has made.
///
/// # Errors
/// Fails when the signals cannot be had.
pub fn handle() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = {
        let _entered = runtime.enter();
        [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ]
        .into_iter()
        .map(signal)
        .collect::<std::io::Result<Vec<_>>>()?
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            let Some([terminate, interrupt, hangup]) = signals.get_disjoint_mut([0, 1, 2]).ok()
            else {
                return;
            };
            let signal = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangup.recv() => "SIGHUP",
            };
            // Nobody is left to be told when standard output is closed.
            let _written = writeln!(std::io::stdout().lock(), "interrupted by {signal}");
        });
        end();
    });
    Ok(())
}

/// Ends the run: first the children, among them the hosts' keepers, then the files.
#[expect(
    clippy::exit,
    reason = "the run's own thread may be waiting for a child at this moment"
)]
fn end() {
    let own = std::process::id();
    let script = format!("kill -9 $(cat /proc/{own}/task/*/children) 2>/dev/null; sleep 1");
    // Nothing more can be done about a failure of either: the next run sweeps.
    let _killed = process::machine(&["sh", "-c", &script]);
    for path in DIRECTORIES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
    {
        let _removed = cache::remove(path);
    }
    std::process::exit(143);
}
