//! Where a path of the host leads: symbolic links are followed as the kernel will follow them.
//!
//! Between this look and the mount somebody who may write to a folder on the way can change it. A policy that names folders
//! should name such as only root can write to.

use std::path::{Component, Path, PathBuf};

/// The path with its links followed. What is not there yet is taken as it is written, below what is there.
///
/// `None` when it is not absolute, or its links have no end.
fn resolve(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    // The engine cleans it as a text first: `/a/../b` is `/b`, wherever `/a` leads.
    let mut rest = clean(Path::new(path));
    let mut behind: Vec<std::ffi::OsString> = Vec::new();
    loop {
        match rest.canonicalize() {
            Ok(mut found) => {
                found.extend(behind.iter().rev());
                return found.to_str().map(str::to_owned);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // A link that leads nowhere would be made by the engine where it leads: that is not known.
                if rest.symlink_metadata().is_ok() {
                    return None;
                }
                behind.push(rest.file_name()?.to_owned());
                rest = rest.parent()?.to_owned();
            }
            Err(_) => return None,
        }
    }
}

/// The path that rules are asked about: one that leads nowhere certain is below no folder.
pub(crate) fn to_decide_on(path: &str) -> String {
    resolve(path).unwrap_or_else(|| format!("?{path}"))
}

/// Whether [`to_decide_on`] has found that a path leads nowhere certain.
pub(crate) fn is_uncertain(path: &str) -> bool {
    path.starts_with('?')
}

fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_and_names_that_are_not_there_stay() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
        std::os::unix::fs::symlink("/nowhere/x", root.join("dangling")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        assert_eq!(resolve(&at("real")), Some(at("real")));
        assert_eq!(resolve(&at("link")), Some("/etc".to_owned()));
        assert_eq!(resolve(&at("link/new/x")), Some("/etc/new/x".to_owned()));
        assert_eq!(resolve(&at("link/../real")), Some(at("real")));
        assert_eq!(resolve(&at("real/new")), Some(at("real/new")));
        assert_eq!(resolve(&at("dangling")), None);
        assert_eq!(resolve(&at("loop")), None);
        assert_eq!(resolve("relative"), None);
        assert_eq!(resolve("/"), Some("/".to_owned()));
    }
}
