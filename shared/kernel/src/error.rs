//! What can go wrong between us and the kernel, naming the object.

use std::io;
use std::path::PathBuf;

/// Why something could not be read from the kernel, or done to it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The `drover` namespace could not be made, entered or removed.
    #[error("cannot {action} the network namespace `{path}`")]
    Namespace {
        /// What was tried.
        action: &'static str,
        /// Where it is mounted.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("cannot {action}")]
    Request {
        /// What was tried.
        action: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel cannot encrypt.
    #[error("the kernel lacks {lacks}")]
    Encryption {
        /// What it lacks.
        lacks: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// There is no such link.
    #[error("there is no link `{name}`")]
    NoLink {
        /// Its name.
        name: String,
    },
    /// ESP in UDP cannot be received by such a device.
    #[error(
        "ESP in UDP cannot be received by `{name}`: it is {kind}, and has to be Ethernet or bare IP"
    )]
    LinkType {
        /// Its name.
        name: String,
        /// What it is.
        kind: String,
    },
    /// The kernel refused a program.
    #[error("the kernel refused the program that receives ESP in UDP{}{log}", if log.is_empty() { "" } else { ": " })]
    Program {
        /// What its verifier said.
        log: String,
        /// The refusal.
        #[source]
        source: io::Error,
    },
    /// `nft` is not installed.
    #[error(
        "there is no `nft` in /usr/sbin, /sbin, /usr/bin or /bin; install the package nftables"
    )]
    NftMissing,
    /// `nft` could not be run.
    #[error("cannot run `{program}`")]
    NftRun {
        /// Which.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// `nft` refused its input.
    #[error("nft refused to {action}: {stderr}")]
    Nft {
        /// What was tried.
        action: String,
        /// What it said.
        stderr: String,
    },
    /// `nft` printed something else than its listing.
    #[error("nft printed a listing that is not JSON")]
    Listing(#[source] serde_json::Error),
}

impl Error {
    /// The kernel's error number, if it was the kernel that refused.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Request { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
