//! This host in the cluster: its record, kept true, and its sign of life.
//!
//! On etcd the record is made by whoever let this host join; that it is gone means that the host
//! was removed, and then it is never made again: the host is fenced.

mod facts;
mod observe;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use drover_control_api::record::{AliveRecord, HostRecord};
use drover_model::{HostIndex, Mtu};
use drover_store::{LeaseId, Outcome, Transaction};
use tokio::sync::watch;

pub use facts::{Facts, NoAddress};
pub use observe::{ObserveError, observe};

use crate::context::{Context, StoreKind, now};
use crate::mirror::chain;

/// How often the host's addresses and routes are looked at.
const LOOK: Duration = Duration::from_secs(15);
/// How often the clock in the sign of life is set anew.
const CLOCK: Duration = Duration::from_secs(60);
/// How long to wait after the store has not answered.
const RETRY: Duration = Duration::from_secs(1);
/// How long to wait after it has not answered to a sign of life.
const AGAIN: Duration = Duration::from_millis(200);

/// Why this host has no record yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its own addresses cannot be read.
    #[error("the addresses of this host cannot be read")]
    Observe(#[from] ObserveError),
    /// It has no address.
    #[error(transparent)]
    Address(#[from] NoAddress),
    /// The store does not answer.
    #[error("the record of this host cannot be written")]
    Store(#[from] drover_store::Error),
}

/// The key of a host's record.
#[must_use]
pub fn key(host: &drover_model::HostName) -> String {
    format!("hosts/{host}")
}

/// What this host is now, from its links, addresses and routes.
///
/// # Errors
/// When they cannot be read, or none of its addresses can be reached by other hosts.
pub async fn facts(context: &Context) -> Result<Facts, Error> {
    let chosen = context
        .settings
        .advertise_addr
        .or(context.membership.advertise);
    Ok(observe().await?.facts(chosen)?)
}

/// Writes what this host is now into its record, and fences the host when it was removed.
///
/// # Errors
/// When the facts cannot be learned or the store does not answer.
pub async fn publish(context: &Context) -> Result<(), Error> {
    let facts = match facts(context).await {
        // Alone, it has nobody to be reached by; `init` asks for a real address.
        Err(Error::Address(_)) if context.membership.kind == StoreKind::Embedded => Facts {
            link: None,
            underlay_mtu: Mtu::ETHERNET,
            ..observe().await?.facts(Some(Ipv4Addr::LOCALHOST.into()))?
        },
        known => known?,
    };
    let key = key(context.host());
    loop {
        let transaction = match context.store().get_record::<HostRecord>(&key).await? {
            Some((record, revision)) if record.member == context.member() => {
                let updated = apply(record.clone(), &facts);
                if updated == record {
                    return Ok(());
                }
                Transaction::new()
                    .if_unchanged(&key, revision)
                    .put_record(&key, &updated)?
            }
            None if context.membership.kind == StoreKind::Embedded => {
                let Some(record) = alone(context, &facts) else {
                    return Ok(());
                };
                Transaction::new()
                    .if_absent(&key)
                    .put_record(&key, &record)?
            }
            _ => {
                fence(context);
                return Ok(());
            }
        };
        match context.store().commit(transaction).await? {
            Outcome::Committed { .. } => return Ok(()),
            Outcome::Conflict => {}
        }
    }
}

fn fence(context: &Context) {
    if !context.fenced.send_replace(true) {
        tracing::error!(
            host = %context.host(),
            "this host was removed from its cluster: it gives out no new addresses; `drover leave` ends that"
        );
    }
}

fn apply(mut record: HostRecord, facts: &Facts) -> HostRecord {
    record.advertise = facts.advertise;
    record.link = facts.link;
    record.underlay_mtu = facts.underlay_mtu;
    record.prefixes.clone_from(&facts.prefixes);
    record.addresses.clone_from(&facts.addresses);
    drover_daemon::VERSION.clone_into(&mut record.software);
    record
}

/// The record of a host alone on its embedded store.
fn alone(context: &Context, facts: &Facts) -> Option<HostRecord> {
    let index = lowest_free(&BTreeSet::new())?;
    Some(HostRecord {
        version: 1,
        name: context.host().clone(),
        member: context.member().to_owned(),
        index,
        advertise: facts.advertise,
        link: facts.link,
        underlay_mtu: facts.underlay_mtu,
        prefixes: facts.prefixes.clone(),
        addresses: facts.addresses.clone(),
        software: drover_daemon::VERSION.to_owned(),
        joined_at: now(),
    })
}

/// The lowest index that no host has.
#[must_use]
pub fn lowest_free(taken: &BTreeSet<HostIndex>) -> Option<HostIndex> {
    (1..=HostIndex::MAX)
        .filter_map(|number| HostIndex::try_from(number).ok())
        .find(|index| !taken.contains(index))
}

/// Keeps the record true and the sign of life standing, until the shutdown.
pub async fn serve(context: Arc<Context>, mut shutdown: watch::Receiver<bool>) {
    let work = async {
        tokio::join!(keep_published(&context), keep_alive(&context));
    };
    tokio::select! {
        () = work => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

async fn keep_published(context: &Context) {
    loop {
        if let Err(error) = publish(context).await {
            if matches!(error, Error::Store(drover_store::Error::Fenced)) {
                fence(context);
            }
            tracing::warn!(
                error = chain(&error),
                "the record of this host is not up to date"
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn keep_alive(context: &Context) {
    let since = now();
    loop {
        if context.is_fenced() {
            return;
        }
        match hold_lease(context, since).await {
            Ok(()) => {}
            Err(drover_store::Error::Fenced) => return fence(context),
            Err(drover_store::Error::LeaseGone) => {
                tracing::warn!("this host was silent for longer than its lease: it is back");
                continue;
            }
            Err(error) => tracing::warn!(
                error = chain(&error),
                "this host cannot give a sign of life"
            ),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Holds one lease for as long as it can be kept.
async fn hold_lease(context: &Context, since: u64) -> Result<(), drover_store::Error> {
    let ttl = context.settings.cluster.host_lease;
    let store = context.store();
    let lease = store.grant_lease(ttl).await?;
    let mut written = sign(context, lease, since).await?;
    let pace = ttl / 3;
    let mut pause = pace;
    while !context.is_fenced() {
        tokio::time::sleep(pause).await;
        // A member of etcd that has lost its leader says nothing for longer than the lease is; another one may answer.
        match tokio::time::timeout(pace, store.keep_alive(lease)).await {
            Ok(Ok(())) => pause = pace,
            Ok(Err(error)) if !error.is_unavailable() => return Err(error),
            Ok(Err(_)) | Err(_) => {
                pause = AGAIN;
                continue;
            }
        }
        if written.elapsed() >= CLOCK {
            written = sign(context, lease, since).await?;
        }
    }
    store.revoke(lease).await
}

async fn sign(
    context: &Context,
    lease: LeaseId,
    since: u64,
) -> Result<tokio::time::Instant, drover_store::Error> {
    let key = format!("alive/{}", context.host());
    let record = AliveRecord {
        member: context.member().to_owned(),
        since,
        clock: now(),
    };
    let transaction = Transaction::new().put_record_leased(key, &record, lease)?;
    // There is no condition that could fail.
    context.store().commit(transaction).await.map(drop)?;
    Ok(tokio::time::Instant::now())
}
