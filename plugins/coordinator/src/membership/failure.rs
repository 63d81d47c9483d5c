//! Failures as the asker sees them.

use std::error::Error;

use drover_control_api::{Failure, FailureKind};

use crate::mirror::chain;

/// A file, a key or a bug: nothing that the asker could change.
pub(super) fn internal(error: &dyn Error) -> Failure {
    Failure::new(FailureKind::Internal, chain(error))
}

/// The store does not answer, or not as it should.
pub(super) fn store(error: &drover_store::Error) -> Failure {
    let kind = match error {
        error if error.is_unavailable() => FailureKind::Unavailable,
        drover_store::Error::Fenced => FailureKind::Denied,
        _ => FailureKind::Internal,
    };
    Failure::new(kind, chain(error))
}

/// Something that is needed does not answer.
pub(super) fn unavailable(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Unavailable, message)
}

/// The asker may not.
pub(super) fn denied(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Denied, message)
}

/// It contradicts what is there.
pub(super) fn conflict(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Conflict, message)
}

/// The request is wrong.
pub(super) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::InvalidInput, message)
}
