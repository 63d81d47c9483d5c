//! Refusals of the pure functions as answers of the control API.

use drover_allocation::block::BlockError;
use drover_allocation::claim::ClaimError;
use drover_allocation::pool::PoolClaimError;
use drover_control_api::{Failure, FailureKind};
use drover_model::Pool;

use crate::context::store_failure;

/// Why a method did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClaimFailure {
    #[error(transparent)]
    Pool(#[from] PoolClaimError),
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error(transparent)]
    Single(#[from] ClaimError),
    #[error(transparent)]
    Store(#[from] drover_store::Error),
    #[error("there is no subnet `{0}` in this cluster; create its network again")]
    UnknownPool(Pool),
    #[error(
        "subnet `{pool}` is in use by network `{network}`; choose another --subnet, or leave it out to get a free one"
    )]
    InUse { pool: Pool, network: String },
    #[error(
        "subnet `{0}` is being used for another network at this moment; choose another --subnet"
    )]
    BeingCreated(Pool),
    #[error(
        "the network with subnet `{pool}` is being removed from this host, as {reason}; start the container again"
    )]
    Discarded { pool: Pool, reason: String },
    #[error("--ip-range needs a --subnet that it is a part of; add one")]
    RangeAlone,
    #[error("{0}")]
    OwnerSilent(String),
    #[error("other hosts changed `{0}` again and again; try again")]
    Contended(String),
}

impl From<ClaimFailure> for Failure {
    fn from(failure: ClaimFailure) -> Self {
        let kind = match &failure {
            ClaimFailure::Store(error) => return store_failure(error),
            ClaimFailure::Pool(error) => of_pool(error),
            ClaimFailure::Single(ClaimError::Unusable(_)) | ClaimFailure::RangeAlone => {
                FailureKind::InvalidInput
            }
            ClaimFailure::Single(ClaimError::OwnerAway { .. })
            | ClaimFailure::OwnerSilent(_)
            | ClaimFailure::Contended(_) => FailureKind::Unavailable,
            ClaimFailure::UnknownPool(_) | ClaimFailure::Discarded { .. } => FailureKind::NotFound,
            ClaimFailure::Block(_)
            | ClaimFailure::Single(_)
            | ClaimFailure::InUse { .. }
            | ClaimFailure::BeingCreated(_) => FailureKind::Conflict,
        };
        Self::new(kind, failure.to_string())
    }
}

const fn of_pool(error: &PoolClaimError) -> FailureKind {
    match error {
        PoolClaimError::RangeOutside { .. } | PoolClaimError::RangeTooSmall { .. } => {
            FailureKind::InvalidInput
        }
        PoolClaimError::OverlapsPool { .. }
        | PoolClaimError::OverlapsRoute { .. }
        | PoolClaimError::NoRange { .. }
        | PoolClaimError::Exhausted { .. }
        | PoolClaimError::RangeDiffers { .. } => FailureKind::Conflict,
    }
}
