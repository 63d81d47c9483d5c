//! Why something could not be done with a volume, and what the asker is told.

use drover_backup_protocol::FailureKind as BackupFailure;
use drover_control_api::{Failure, FailureKind};
use drover_model::{SnapshotName, VolumeName, VolumeNameError};
use drover_plugin_host::DriverError;
use drover_storage::ErrorKind;
use drover_volumes::OptionFaults;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A failure in one sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A name that no volume can have.
    #[error(transparent)]
    Name(#[from] VolumeNameError),
    /// Options that a volume cannot have.
    #[error(transparent)]
    Options(#[from] OptionFaults),
    /// There is no such volume.
    #[error("there is no volume `{0}`")]
    NoVolume(VolumeName),
    /// There is no such snapshot.
    #[error("volume `{0}` has no snapshot `{1}`")]
    NoSnapshot(VolumeName, SnapshotName),
    /// It was asked for something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// Something contradicts it.
    #[error("{0}")]
    Conflict(String),
    /// Something that is needed is not there now.
    #[error("{0}")]
    Unavailable(String),
    /// The backend failed.
    #[error(transparent)]
    Storage(#[from] drover_storage::Error),
    /// The state file cannot be written.
    #[error("the state of volumes cannot be kept")]
    Store(#[from] drover_store::Error),
    /// The backup worker failed.
    #[error("{0}")]
    Backup(#[from] drover_backup_protocol::Failure),
    /// A bug.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// In one sentence with its causes.
    pub(crate) fn sentence(&self) -> String {
        DriverError::chain(self).to_string()
    }

    const fn kind(&self) -> FailureKind {
        match self {
            Self::Name(_) | Self::Options(_) | Self::Invalid(_) => FailureKind::InvalidInput,
            Self::NoVolume(_) | Self::NoSnapshot(..) => FailureKind::NotFound,
            Self::Conflict(_) => FailureKind::Conflict,
            Self::Unavailable(_) => FailureKind::Unavailable,
            Self::Backup(failure) => backup_kind(failure.kind),
            Self::Storage(_) | Self::Store(_) | Self::Internal(_) => FailureKind::Internal,
        }
    }
}

const fn backup_kind(kind: BackupFailure) -> FailureKind {
    match kind {
        BackupFailure::InvalidInput | BackupFailure::WrongPassword => FailureKind::InvalidInput,
        BackupFailure::NoRepository | BackupFailure::NotFound => FailureKind::NotFound,
        BackupFailure::Locked | BackupFailure::Full => FailureKind::Conflict,
        BackupFailure::Unreachable => FailureKind::Unavailable,
        _ => FailureKind::Internal,
    }
}

impl From<Error> for DriverError {
    fn from(error: Error) -> Self {
        Self::new(error.sentence())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Storage(storage) => match storage.kind() {
                ErrorKind::InvalidInput | ErrorKind::Unsupported => FailureKind::InvalidInput,
                ErrorKind::NotFound => FailureKind::NotFound,
                ErrorKind::Conflict | ErrorKind::Full => FailureKind::Conflict,
                ErrorKind::Unavailable => FailureKind::Unavailable,
                ErrorKind::Internal => FailureKind::Internal,
            },
            other => other.kind(),
        };
        Self::new(kind, error.sentence())
    }
}
