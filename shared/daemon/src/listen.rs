//! Listening sockets: handed over by whoever outlives this process, or bound here.
//!
//! A socket file never stands without its listener: a socket is bound under another name, gets its
//! mode, and is renamed into place.

use std::env;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use tokio::net::UnixListener;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process answers on the socket.
    #[error("another process serves `{}`: stop it first", .0.display())]
    InUse(PathBuf),
    /// The path is taken by something that is not a socket.
    #[error("`{}` is in the way: it is not a socket; remove it", .0.display())]
    NotASocket(PathBuf),
    /// The folder of the socket cannot be made.
    #[error("cannot make the folder `{}`", .path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket cannot be bound.
    #[error("cannot listen on `{}`", .path.display())]
    Bind {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket that was handed over is not usable.
    #[error("the socket `{name}` that was handed over is not usable")]
    HandedOver {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl ListenError {
    /// Whether a permission is missing.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match self {
            Self::InUse(_) | Self::NotASocket(_) => false,
            Self::Folder { source, .. }
            | Self::Bind { source, .. }
            | Self::HandedOver { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
        }
    }
}

/// The listener called `name`: handed over by systemd or `drover up` (`LISTEN_FDS`, and its name, or
/// the name with `.socket`, in `LISTEN_FDNAMES`), else bound at `path` with mode 0600. A socket file
/// that nobody listens on is replaced.
///
/// # Errors
/// When the socket is in use or cannot be bound.
pub fn listener(name: &str, path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError::HandedOver {
        name: name.to_owned(),
        source,
    };
    let mut handed_over = ListenFd::from_env();
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let standard = match position(name, handed_over.len(), &names) {
        Some(position) => handed_over.take_unix_listener(position).map_err(failed)?,
        None => None,
    };
    let standard = match standard {
        Some(listener) => listener,
        None => {
            refuse_when_served(path)?;
            bind(path)?
        }
    };
    standard.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(standard).map_err(failed)
}

/// Which of `count` descriptors is called `name`. A single one is it, whatever it is called.
fn position(name: &str, count: usize, names: &str) -> Option<usize> {
    let unit = format!("{name}.socket");
    if count == 1 {
        return Some(0);
    }
    names
        .split(':')
        .take(count)
        .position(|given| given == name || given == unit)
}

fn refuse_when_served(path: &Path) -> Result<(), ListenError> {
    match UnixStream::connect(path) {
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
        // Refused or not there: nobody listens, and binding says what else is wrong.
        Err(_) => Ok(()),
    }
}

/// Binds a socket at `path` with mode 0600, in the place of any socket that is there. The folder is
/// made when it is missing.
///
/// # Errors
/// When something that is not a socket is in the way, or the socket cannot be bound.
pub fn bind(path: &Path) -> Result<StdListener, ListenError> {
    let failed = |source| ListenError::Bind {
        path: path.to_owned(),
        source,
    };
    make_folder(path)?;
    if path
        .symlink_metadata()
        .is_ok_and(|found| !found.file_type().is_socket())
    {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    // Not `.sock`: the engine takes every file of that name for a plugin.
    let under_way = path.with_extension("new");
    match std::fs::remove_file(&under_way) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = StdListener::bind(&under_way).map_err(failed)?;
    std::fs::set_permissions(&under_way, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&under_way, path))
        .map_err(failed)?;
    Ok(listener)
}

fn make_folder(path: &Path) -> Result<(), ListenError> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .map_err(|source| ListenError::Folder {
            path: folder.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_found_by_its_name() {
        assert_eq!(position("drover-net", 0, ""), None);
        assert_eq!(position("drover-net", 1, ""), Some(0));
        assert_eq!(position("drover-net", 2, ""), None);
        assert_eq!(position("drover-net", 2, "control:drover-net"), Some(1));
        assert_eq!(position("drover-net", 1, "drover-net.socket"), Some(0));
        assert_eq!(position("drover-net", 1, "unit.socket"), Some(0));
        assert_eq!(position("drover-net", 2, "control:unit.socket"), None);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/control.sock");
        let first = listener("control", &path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let refused = listener("control", &path).unwrap_err();
        assert!(matches!(refused, ListenError::InUse(_)), "{refused}");
        drop(first);
        assert!(path.exists(), "a dropped listener leaves its file");
        let second = listener("control", &path).unwrap();
        let (asked, served) = tokio::join!(tokio::net::UnixStream::connect(&path), second.accept());
        assert!(asked.is_ok() && served.is_ok());
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(
            bind(&path).unwrap_err(),
            ListenError::NotASocket(_)
        ));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
