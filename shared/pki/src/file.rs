//! Files that only their owner can read, and that are never there by half.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::Error;

/// Writes a file (mode 0600) so that at every moment, a power cut included, either the old or the new
/// content is there whole.
///
/// # Errors
/// When the directory cannot be written to.
pub fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    replace(path, content).map_err(|source| failed(path, "written", source))
}

/// Reads a file that may hold a secret.
///
/// # Errors
/// When it cannot be read or is not text.
pub fn read(path: &Path) -> Result<Zeroizing<String>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| failed(path, "read", source))?;
    Ok(Zeroizing::new(text))
}

/// Deletes a file for good; one that is not there is no fault.
///
/// # Errors
/// When it cannot be deleted.
pub fn remove(path: &Path) -> Result<(), Error> {
    let removed = match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(directory(path)).and_then(|directory| directory.sync_all()),
    };
    removed.map_err(|source| failed(path, "deleted", source))
}

/// Makes a directory that only its owner can enter, and those above it.
///
/// # Errors
/// When it cannot be made.
pub fn make_directory(path: &Path) -> Result<(), Error> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|source| failed(path, "written", source))
}

fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let parent = directory(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = parent.join(format!(".{name}.{}.partial", std::process::id()));
    // A left-over of an earlier process with this id could have another mode.
    if let Err(error) = std::fs::remove_file(&partial)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    File::open(parent)?.sync_all()
}

fn directory(path: &Path) -> &Path {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new("."))
}

fn failed(path: &Path, action: &'static str, source: std::io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        action,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(*read(&path).unwrap(), "new");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left behind"
        );
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
        let error = write(&dir.path().join("none/secret"), b"x")
            .unwrap_err()
            .to_string();
        assert!(error.contains("none/secret cannot be written"), "{error}");
    }
}
