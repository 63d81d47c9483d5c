//! Our files: sockets, the run directory, the state directory if it bears our mark.

use std::fs;
use std::io;
use std::path::Path;

use drover_daemon::Settings;

use super::Done;
use crate::process::Process;
use crate::up::{LOCK_FILE, STATE_MARK};

/// What volumes are, below the state directory.
const VOLUMES: [&str; 2] = ["volumes", "volumes.redb"];

/// Removes them; with `volumes_stay` not the volumes, if there are any.
pub(super) fn remove(settings: &Settings, volumes_stay: bool, done: &mut Done) {
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
    remove_state(&settings.state_dir, volumes_stay, done);
}

/// Whether there is anything in the folder of volumes that is worth keeping.
fn has_volumes(state_dir: &Path) -> bool {
    let is_used = |path: &Path| fs::read_dir(path).is_ok_and(|mut it| it.next().is_some());
    let folder = state_dir.join("volumes");
    let on_btrfs = folder.join("btrfs/volumes");
    let on_btrfs = if on_btrfs.exists() {
        is_used(&on_btrfs)
    } else {
        // Not mounted: what is in it nobody knows.
        folder.join("btrfs.img").exists()
    };
    on_btrfs || is_used(&folder.join("directory/volumes"))
}

/// Unmounts what lies below the folder of volumes, for a `drover-vol` that does not do it any more.
fn unmount_volumes(state_dir: &Path) {
    let folder = state_dir.join("volumes");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let places: Vec<&Path> = places.map(Path::new).collect();
    for place in places
        .into_iter()
        .rev()
        .filter(|it| it.starts_with(&folder))
    {
        if let Err(error) = nix::mount::umount(place) {
            tracing::debug!(place = %place.display(), %error, "cannot be unmounted");
        }
    }
}

fn remove_state(state_dir: &Path, volumes_stay: bool, done: &mut Done) {
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
    let volumes_stay = volumes_stay && has_volumes(state_dir);
    unmount_volumes(state_dir);
    let entries = entries.filter(|entry| {
        let name = entry.file_name();
        let is_volumes = VOLUMES.iter().any(|it| name == *it);
        name != STATE_MARK && !(volumes_stay && is_volumes)
    });
    for entry in entries.map(|entry| entry.path()).collect::<Vec<_>>() {
        if entry.is_dir() && !entry.is_symlink() {
            remove_tree(&entry, done);
        } else {
            remove_file(&entry, done);
        }
    }
    if volumes_stay {
        done.removed(format!(
            "the volumes stay in `{}`: `drover reset --volumes` before this would have removed them",
            state_dir.join("volumes").display()
        ));
        return;
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
        remove(&settings, false, &mut done);
        assert!(done.left.is_empty(), "{:?}", done.left);
        assert!(!settings.state_dir.exists() && !settings.run_dir.exists());
        assert!(!settings.plugin_dir.join("drover-net.sock").exists());
        assert!(settings.plugin_dir.join("other.sock").exists());
        let mut again = Done::default();
        remove(&settings, false, &mut again);
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
        remove(&settings, false, &mut done);
        assert!(precious.exists());
        assert!(done.left[0].contains("left alone"));
    }
}
