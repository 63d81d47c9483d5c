//! Sockets: whether somebody listens behind a file.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What stands behind the path of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketState {
    /// Nothing.
    Missing,
    /// A file that nobody listens on.
    Dead,
    /// A listener.
    Listening,
    /// A file that we may not use.
    Forbidden,
}

/// Looks behind a path.
pub(crate) fn state(path: &Path) -> SocketState {
    match UnixStream::connect(path) {
        Ok(_) => SocketState::Listening,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => SocketState::Missing,
            io::ErrorKind::PermissionDenied => SocketState::Forbidden,
            // A queue that is full has a listener.
            io::ErrorKind::WouldBlock => SocketState::Listening,
            _ => SocketState::Dead,
        },
    }
}

/// The plugin sockets that nobody listens on, ours or not.
pub(crate) fn dead(plugin_dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(plugin_dir) else {
        return Vec::new();
    };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let mut dead: Vec<PathBuf> = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "sock")
        })
        .filter(|path| state(path) == SocketState::Dead)
        .collect();
    dead.sort();
    dead
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_without_a_listener_is_dead() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.sock");
        assert_eq!(state(&path), SocketState::Missing);
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(state(&path), SocketState::Listening);
        assert!(dead(folder.path()).is_empty());
        drop(listener);
        assert_eq!(state(&path), SocketState::Dead);
        assert_eq!(dead(folder.path()), [path]);
    }
}
