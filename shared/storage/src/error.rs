//! Why a backend could not do something.

use std::io;
use std::path::PathBuf;

/// The outcome of what a backend does.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure: callers branch on this and on nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// It was asked for something that cannot be.
    InvalidInput,
    /// What was named is not there.
    NotFound,
    /// It is in use, or there already.
    Conflict,
    /// This backend cannot do it.
    Unsupported,
    /// There is no room for it.
    Full,
    /// A device, a file or a program that is needed is not there or broken.
    Unavailable,
    /// Anything else.
    Internal,
}

/// A failure: the object, what is wrong, what to change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was named is not there.
    #[error("{0} is not there")]
    NotFound(String),
    /// It is in use.
    #[error("{0} is in use")]
    Busy(String),
    /// This backend cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// It was asked for something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// There is no room.
    #[error("{0}")]
    Full(String),
    /// What the pool lies on is not there or broken.
    #[error("{0}")]
    Unavailable(String),
    /// A call of the system failed.
    #[error("cannot {action} `{}`", path.display())]
    System {
        /// What was tried, as in "cannot mount".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program failed.
    #[error("`{program}` failed: {output}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said, cut.
        output: String,
    },
}

impl Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Busy(_) => ErrorKind::Conflict,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Invalid(_) => ErrorKind::InvalidInput,
            Self::Full(_) => ErrorKind::Full,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::System { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
                io::ErrorKind::ResourceBusy => ErrorKind::Conflict,
                _ => ErrorKind::Internal,
            },
            Self::Program { .. } => ErrorKind::Internal,
        }
    }

    /// A call of the system that failed.
    pub fn system(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::System {
            action,
            path,
            source,
        }
    }
}
