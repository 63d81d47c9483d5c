//! Our files: sockets, the run directory, the state directory if it bears our mark.

use std::fs;
use std::io;
use std::path::Path;

use drover_daemon::Settings;

use super::Done;
use crate::process::Process;
use crate::up::{LOCK_FILE, STATE_MARK};

/// Removes them.
pub(super) fn remove(settings: &Settings, done: &mut Done) {
    for process in Process::every() {
        remove_file(&process.socket(settings), done);
    }
    let run_dir = &settings.run_dir;
    for folder in ["pids", "netns"] {
        remove_tree(&run_dir.join(folder), done);
    }
    remove_file(&run_dir.join(LOCK_FILE), done);
    remove_file(&run_dir.join(drover_daemon::AUTHORIZATION_TOKEN), done);
    // What somebody else keeps there keeps the folder.
    if fs::remove_dir(run_dir).is_ok() {
        done.removed(format!("removed `{}`", run_dir.display()));
    }
    remove_state(&settings.state_dir, done);
}

fn remove_state(state_dir: &Path, done: &mut Done) {
    if !state_dir.exists() {
        return;
    }
    if !state_dir.join(STATE_MARK).is_file() {
        done.left(format!(
            "`{}` was not empty when Drover first used it, and is left alone: remove what is Drover's by hand",
            state_dir.display()
        ));
        return;
    }
    // The mark goes last: a reset that was cut short can be done again.
    let entries = fs::read_dir(state_dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let entries = entries.filter(|entry| entry.file_name() != STATE_MARK);
    for entry in entries.map(|entry| entry.path()).collect::<Vec<_>>() {
        if entry.is_dir() && !entry.is_symlink() {
            remove_tree(&entry, done);
        } else {
            remove_file(&entry, done);
        }
    }
    remove_file(&state_dir.join(STATE_MARK), done);
    match fs::remove_dir(state_dir) {
        Ok(()) => done.removed(format!("removed `{}`", state_dir.display())),
        // A mount point stays, empty.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
        Err(error) => done.left(format!("`{}` is still there: {error}", state_dir.display())),
    }
}

fn remove_file(path: &Path, done: &mut Done) {
    report(path, fs::remove_file(path), done);
}

fn remove_tree(path: &Path, done: &mut Done) {
    report(path, fs::remove_dir_all(path), done);
}

fn report(path: &Path, removed: io::Result<()>, done: &mut Done) {
    match removed {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => done.left(format!("`{}` is still there: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &Path) -> Settings {
        Settings {
            state_dir: folder.join("state"),
            run_dir: folder.join("run"),
            plugin_dir: folder.join("plugins"),
            ..Settings::default()
        }
    }

    #[test]
    fn what_is_ours_goes_and_what_is_not_stays() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        for path in ["state/etcd", "run/pids", "run/netns", "plugins"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        for path in [
            "state/.drover",
            "state/etcd/log",
            "plugins/drover-net.sock",
            "plugins/other.sock",
        ] {
            fs::write(folder.path().join(path), "").unwrap();
        }
        let mut done = Done::default();
        remove(&settings, &mut done);
        assert!(done.left.is_empty(), "{:?}", done.left);
        assert!(!settings.state_dir.exists() && !settings.run_dir.exists());
        assert!(!settings.plugin_dir.join("drover-net.sock").exists());
        assert!(settings.plugin_dir.join("other.sock").exists());
        let mut again = Done::default();
        remove(&settings, &mut again);
        assert!(again.removed.is_empty() && again.left.is_empty());
    }

    #[test]
    fn a_folder_without_our_mark_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        fs::create_dir_all(&settings.state_dir).unwrap();
        let precious = settings.state_dir.join("thesis.tex");
        fs::write(&precious, "").unwrap();
        let mut done = Done::default();
        remove(&settings, &mut done);
        assert!(precious.exists());
        assert!(done.left[0].contains("left alone"));
    }
}
