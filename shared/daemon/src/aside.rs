//! Files that are not usable are kept under another name: somebody may still read what is in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Gives a file a name of its own beside it, such as `owners.damaged-20261130T013000Z`, which is returned. What was set aside before stays, also
/// when that was in the same second.
///
/// # Errors
/// When the file is not there, or its folder cannot be written.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let stamp = now.replace(['-', ':'], "");
    let mut earlier = 0_u32;
    loop {
        let extension = match earlier {
            0 => format!("damaged-{stamp}"),
            number => format!("damaged-{stamp}-{number}"),
        };
        let aside = path.with_extension(extension);
        // Unlike a renaming, a link never takes the place of a file.
        match fs::hard_link(path, &aside).and_then(|()| fs::remove_file(path)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => earlier += 1,
            done => return done.map(|()| aside),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owners.json");
        for content in ["first", "second", "third"] {
            fs::write(&path, content).unwrap();
            let aside = set_aside(&path).unwrap();
            assert_eq!(fs::read_to_string(aside).unwrap(), content);
            assert!(!path.exists());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        assert!(set_aside(&path).is_err());
    }
}
