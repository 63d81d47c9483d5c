//! What the nodes of a tree say of files, in the terms of this system.
//!
//! Modes in a repository are those of Go: nine bits as everywhere, and setuid, setgid and sticky elsewhere. Source: Go's package `io/fs`,
//! `FileMode`; restic's design document, "Trees and Data".

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use drover_backup_protocol::FailureKind;
use rustic_core::Id;
use rustic_core::repofile::{Node, NodeType};

use crate::failure::{Result, damaged, failure};
use crate::index::Index;
use crate::repository::Session;

/// Bits of modes, here and in a repository.
const SPECIAL: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];

/// That of a directory, in a repository.
const DIRECTORY: u32 = 1 << 31;

/// The mode of a file, without its kind; `None` where none was kept.
pub(crate) fn mode(node: &Node) -> Option<u32> {
    let kept = node.meta.mode?;
    // The bits of this system mean nothing else there; volumes' own directories were once kept with them.
    let mut mode = kept & 0o7777;
    for (here, there) in SPECIAL {
        if kept & there != 0 {
            mode |= here;
        }
    }
    Some(mode)
}

/// The mode of a directory as a repository has it.
pub(crate) fn directory_mode(mode: u32) -> u32 {
    let special = SPECIAL.iter().filter(|(here, _)| mode & here != 0);
    special.fold(DIRECTORY | (mode & 0o777), |all, (_, there)| all | there)
}

/// Where a node lies beneath a folder; a name that would lead elsewhere is refused.
pub(crate) fn beneath(folder: &Path, node: &Node) -> Result<PathBuf> {
    let name = node.name();
    let mut parts = Path::new(&name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part == &*name => Ok(folder.join(part)),
        _ => {
            let what = format!("`{}` is no name of a file", name.display());
            Err(damaged("data", what))
        }
    }
}

/// What files of the same content that are one file have in common; `None` of one that stands alone.
pub(crate) fn link_key(node: &Node) -> Option<(u64, u64)> {
    let meta = &node.meta;
    let has_links = node.node_type == NodeType::File
        && meta.links > 1
        && meta.device_id != 0
        && meta.inode != 0;
    has_links.then_some((meta.device_id, meta.inode))
}

/// The node at a path of a snapshot.
pub(crate) fn find(session: &Session, index: &Index, root: &Id, path: &Path) -> Result<Node> {
    let none = || {
        let message = format!("there is no `{}` in the backup", path.display());
        failure(FailureKind::NotFound, message)
    };
    let mut tree = Some(*root);
    let mut found = None;
    for part in path.components() {
        let Component::Normal(name) = part else {
            continue;
        };
        let id = tree.ok_or_else(none)?;
        let nodes = index.read_tree(&session.files, &session.codec, &id)?.nodes;
        let has_name = |node: &Node| *node.name() == *OsStr::new(name);
        let node = nodes.into_iter().find(has_name).ok_or_else(none)?;
        tree = node.subtree.as_deref().copied();
        found = Some(node);
    }
    found.ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, mode: u32) -> Node {
        let mut node = Node::new_node(OsStr::new(name), NodeType::File, Default::default());
        node.meta.mode = Some(mode);
        node
    }

    #[test]
    fn modes_are_those_of_go() {
        assert_eq!(directory_mode(0o41777), 1 << 31 | 1 << 20 | 0o777);
        for bits in [0o777, 0o4711, 0o2750, 0o1777, 0] {
            assert_eq!(mode(&node("x", directory_mode(bits))), Some(bits));
        }
        assert_eq!(mode(&node("x", 0o41755)), Some(0o1755));
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let beneath = |name| beneath(Path::new("/srv"), &node(name, 0));
        assert_eq!(beneath("x").unwrap(), Path::new("/srv/x"));
        for name in ["", ".", "..", "/etc", "a/b", "../x", "a/"] {
            assert!(beneath(name).is_err(), "{name}");
        }
    }
}
