//! Pools, blocks and single addresses: what `drover-ipam` of this host asks for, agreed with the other
//! hosts over the store.
//!
//! Every method reads the records, lets `drover_allocation` decide, and writes on the condition that what was
//! read is unchanged; if it is not, it begins anew. A method ends within [`LIMIT`], which is shorter than
//! the asker waits: what was asked is never done after the asker has given up and asked for the opposite.

mod acceptance;
mod block;
mod collect;
mod failure;
mod grant;
mod pool;
mod put_back;
mod registrar;
mod single;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use drover_control_api::coordinator::{
    ClaimAddress, ClaimBlock, ClaimPool, ClaimedBlock, PoolTable, ReleaseAddress, ReleaseBlock,
    ReleasePool, ReserveAddress, ReservedAddress,
};
use drover_control_api::record::PoolRecord;
use drover_control_api::{Empty, Failure, FailureKind};
use tokio::sync::watch;

use crate::context::Context;
use crate::networks::Networks;
use crate::status;
pub use registrar::Registrar;

/// How long a method takes at most.
pub const LIMIT: Duration = Duration::from_secs(3);
/// How long the store has to say which pools and blocks there are.
const READING: Duration = Duration::from_secs(1);

/// See [`ClaimPool`].
///
/// # Errors
/// When there is no such pool to have.
pub async fn claim_pool(context: &Context, request: ClaimPool) -> Result<PoolRecord, Failure> {
    context.refuse_when_fenced()?;
    bounded(Registrar::of(context).claim_pool(&request)).await
}

/// See [`ReleasePool`].
///
/// # Errors
/// When the store does not answer.
pub async fn release_pool(context: &Context, request: ReleasePool) -> Result<Empty, Failure> {
    bounded(Registrar::of(context).release_pool(request.pool)).await
}

/// See [`Pools`](drover_control_api::coordinator::Pools): what the store has now, so that who has just claimed something finds it
/// there, but for changes of blocks that are not believed. While the store does not answer, what was last heard of it.
pub async fn table(context: &Context) -> PoolTable {
    let registrar = Registrar::of(context);
    match tokio::time::timeout(READING, registrar.table()).await {
        Ok(Ok(mut table)) => {
            let snapshot = context.cluster.borrow();
            for takeover in snapshot.takeovers().standing.values() {
                takeover.correct(&mut table.blocks);
            }
            table
        }
        Ok(Err(_)) | Err(_) => status::pools(&context.cluster.borrow()),
    }
}

/// See [`ReserveAddress`].
///
/// # Errors
/// When the address cannot be kept from containers.
pub async fn reserve_address(
    context: &Context,
    request: ReserveAddress,
) -> Result<ReservedAddress, Failure> {
    context.refuse_when_fenced()?;
    bounded(Registrar::of(context).reserve_address(&request)).await
}

/// See [`ClaimBlock`].
///
/// # Errors
/// When no block is free, or the network is about to be replaced.
pub async fn claim_block(
    context: &Context,
    networks: &Networks,
    request: ClaimBlock,
) -> Result<ClaimedBlock, Failure> {
    context.refuse_when_fenced()?;
    bounded(async {
        acceptance::wait(context.cluster.clone(), networks.looks(), request.pool).await?;
        Registrar::of(context).claim_block(request.pool).await
    })
    .await
}

/// See [`ReleaseBlock`].
///
/// # Errors
/// When the store does not answer.
pub async fn release_block(context: &Context, request: ReleaseBlock) -> Result<Empty, Failure> {
    bounded(Registrar::of(context).release_block(request.pool, request.block)).await
}

/// See [`ClaimAddress`].
///
/// # Errors
/// When the address is not to be had, or the network is about to be replaced.
pub async fn claim_address(
    context: &Context,
    networks: &Networks,
    request: ClaimAddress,
) -> Result<Empty, Failure> {
    context.refuse_when_fenced()?;
    let ClaimAddress { pool, address } = request;
    bounded(async {
        acceptance::wait(context.cluster.clone(), networks.looks(), pool).await?;
        Registrar::of(context).claim_address(pool, address).await
    })
    .await
}

/// See [`ReleaseAddress`].
///
/// # Errors
/// When the store does not answer.
pub async fn release_address(context: &Context, request: ReleaseAddress) -> Result<Empty, Failure> {
    bounded(Registrar::of(context).release_address(request.pool, request.address)).await
}

/// Answers other hosts that claim addresses of this host's blocks, puts blocks back where somebody has written over
/// them or deleted them, and removes pools that nothing has, until the shutdown.
pub async fn serve(context: Arc<Context>, shutdown: watch::Receiver<bool>) {
    tokio::join!(
        grant::serve(context.clone(), shutdown.clone()),
        put_back::serve(context.clone(), shutdown.clone()),
        collect::serve(context, shutdown)
    );
}

async fn bounded<T>(method: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(LIMIT, method)
        .await
        .unwrap_or_else(|_| {
            let message = format!("the store did not answer within {LIMIT:?}; try again");
            Err(Failure::new(FailureKind::Unavailable, message))
        })
}

#[cfg(test)]
mod tests;
