//! What the kernel can have against a request. Never with the request itself, which may hold a key.

use std::io;

/// Why a request to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused it, or could not be asked.
    #[error("the kernel's IPsec: cannot {action}")]
    Request {
        /// What was tried.
        action: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel listed something that could not be read.
    #[error(
        "the kernel's IPsec: the list of {what} cannot be read; report it with the version of the kernel"
    )]
    Unreadable {
        /// What was listed.
        what: &'static str,
    },
}

impl Error {
    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Request { source, .. } => source.raw_os_error(),
            Self::Unreadable { .. } => None,
        }
    }

    /// Whether what was to be added is there already.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        self.errno() == Some(nix::errno::Errno::EEXIST as i32)
    }

    /// Whether it was to be removed and is not there: a state is not found, a policy does not exist.
    pub(crate) fn is_gone(&self) -> bool {
        let gone = [nix::errno::Errno::ESRCH, nix::errno::Errno::ENOENT];
        gone.iter().any(|gone| self.errno() == Some(*gone as i32))
    }
}
