//! The folders of a host: made at the start, marked as ours, tidied at the end.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::Context as _;
use drover_daemon::Settings;
use tracing::warn;

use crate::process::Process;

/// The file that says that a state directory is ours as a whole.
pub(crate) const STATE_MARK: &str = ".drover";

/// Makes the state and run directories. A state directory that was empty is marked as ours, so
/// that `drover reset` may empty it.
pub(crate) fn prepare(settings: &Settings) -> anyhow::Result<()> {
    make(&settings.run_dir)?;
    make(&settings.state_dir)?;
    let is_empty =
        fs::read_dir(&settings.state_dir).is_ok_and(|mut entries| entries.next().is_none());
    if is_empty {
        let mark = settings.state_dir.join(STATE_MARK);
        fs::write(
            &mark,
            "This folder is Drover's; `drover reset` empties it.\n",
        )
        .with_context(|| format!("cannot write `{}`", mark.display()))?;
    }
    Ok(())
}

fn make(folder: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make the folder `{}`", folder.display()))
}

/// Removes our sockets: a socket file without a listener stalls the engine for seconds on calls
/// that have nothing to do with it.
pub(crate) fn remove_sockets(settings: &Settings, processes: &[Process]) {
    for process in processes {
        let socket = process.socket(settings);
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(socket = %socket.display(), %error, "a socket file stays");
            }
            _ => {}
        }
    }
}
