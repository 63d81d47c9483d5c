//! This host's membership: alone on its embedded store, or in a cluster on etcd.
//!
//! ```text
//!              init                         join                        leave, or fenced and leave
//!   alone -------------> first host     alone ----> member      member ------------------> alone
//!   (embedded store)     (authority,                            first, and the only one --> alone
//!                         etcd, join server)
//! ```
//!
//! A change of state is one file, `cluster.json`, that is written last and deleted first. What a crash
//! leaves before it is there, or after it is gone, is set aside at the next start ([`open`]). After a
//! change the process is started anew (exit code 75), so that nothing keeps the old store.
//!
//! | module | what it does |
//! |---|---|
//! | `home` | the files |
//! | `etcd` | runs the packaged etcd: starts, adopts, watches over it |
//! | `initiate` | `drover init` |
//! | `admission`, `server` | lets hosts in and renews certificates, on the first host |
//! | `client`, `join` | `drover join` |
//! | `fence` | notices that this host was removed |
//! | `removal` | `drover host rm`, `drover leave` |
//! | `renewal` | keeps this host's certificate from ending |
//! | `transfer` | carries what is in one store to another |

mod admission;
mod client;
mod etcd;
mod failure;
mod fence;
mod home;
mod initiate;
mod join;
mod protocol;
mod removal;
mod renewal;
mod server;
#[cfg(test)]
mod tests;
mod transfer;

use std::sync::Arc;

use drover_control_api::coordinator::{Init, Invitation, Join, Joined, RemoveHost, RemovedHost};
use drover_control_api::record::{ClusterRecord, HostRecord, UnixSeconds};
use drover_control_api::{Empty, Failure, FailureKind};
use drover_daemon::{Settings, task};
use drover_pki::{HostKey, Trust};
use drover_store::{Store, Transaction};
use tokio::sync::watch;

use crate::context::{Context, Membership, StoreKind, now};
use crate::host;
use failure::{internal, unavailable};
use home::{AloneFile, ClusterFile, Home};

/// Finds out who this host is, and opens its store: at the start of the process, once. On the first host
/// of a cluster, etcd is running or being started when this returns.
///
/// # Errors
/// When a file of the state directory cannot be read or written, with the file and what to do.
pub async fn open(settings: &Settings) -> Result<Membership, Failure> {
    let home = Home::new(settings);
    drover_pki::file::make_directory(home.state_dir()).map_err(|error| internal(&error))?;
    match home.cluster()? {
        Some(file) => open_cluster(&home, file).await,
        None => open_alone(&home, settings).await,
    }
}

async fn open_alone(home: &Home, settings: &Settings) -> Result<Membership, Failure> {
    home.set_left_overs_aside().await?;
    let store = Store::open_embedded(home.embedded()).map_err(|error| internal(&error))?;
    let alone = match home.alone()? {
        Some(alone) => {
            if settings
                .host_name
                .as_ref()
                .is_some_and(|name| name != &alone.host)
            {
                tracing::warn!(
                    host = %alone.host,
                    "the setting `host_name` has changed; it is taken up at `drover join`, since blocks and \
                     networks here are this host's under its old name"
                );
            }
            alone
        }
        None => {
            let host = settings.host_name().map_err(|error| {
                Failure::new(FailureKind::InvalidInput, crate::mirror::chain(&error))
            })?;
            let alone = AloneFile {
                version: 1,
                host,
                member: random_id()?,
            };
            home.write_alone(&alone)?;
            alone
        }
    };
    let cluster = own_cluster(&store).await?;
    Ok(Membership {
        store,
        kind: StoreKind::Embedded,
        cluster,
        host: alone.host,
        member: alone.member,
        advertise: None,
        certificate_expires_at: None,
    })
}

/// The id of this host's own cluster of one.
async fn own_cluster(store: &Store) -> Result<String, Failure> {
    let found = store.get_record::<ClusterRecord>("cluster").await;
    if let Some((record, _)) = found.map_err(|error| internal(&error))? {
        return Ok(record.id);
    }
    let record = ClusterRecord {
        version: 1,
        id: random_id()?,
        created_at: now(),
    };
    let make = Transaction::new()
        .if_absent("cluster")
        .put_record("cluster", &record);
    let make = make.map_err(|error| internal(&error))?;
    match store
        .commit(make)
        .await
        .map_err(|error| internal(&error))?
        .is_committed()
    {
        true => Ok(record.id),
        false => Err(Failure::new(
            FailureKind::Internal,
            "the store has another user",
        )),
    }
}

async fn open_cluster(home: &Home, file: ClusterFile) -> Result<Membership, Failure> {
    home.set_embedded_aside()?;
    if let Some(plan) = home.etcd_plan(&file) {
        // A first host whose etcd cannot run still serves what it has, and tells.
        if let Err(failure) = plan.ensure_running().await {
            tracing::error!(%failure, "etcd does not run on this host");
        }
        task::spawn("etcd", etcd::supervise(plan, home.cluster_path()));
    }
    let config = home.etcd_config(&file)?;
    let store = Store::connect_etcd(config)
        .await
        .map_err(|error| internal(&error))?;
    Ok(Membership {
        store: store.fenced_by(&member_key(&file.member)),
        kind: StoreKind::Etcd {
            endpoints: file.endpoints,
        },
        cluster: file.cluster,
        host: file.host,
        member: file.member,
        advertise: Some(file.advertise),
        certificate_expires_at: home
            .certificate()?
            .map(|certificate| certificate.expires_at()),
    })
}

/// When this host's certificate ends, as it is now; `None` on one host alone.
#[must_use]
pub fn certificate_expires_at(settings: &Settings) -> Option<UnixSeconds> {
    let certificate = Home::new(settings).certificate().ok().flatten()?;
    Some(certificate.expires_at())
}

/// What this host signs with, and whom it believes.
#[derive(Debug)]
pub struct Signer {
    /// The key of the certificate.
    pub key: HostKey,
    /// This host's certificate, PEM.
    pub certificate: String,
    /// Believes the hosts of this cluster.
    pub trust: Trust,
}

/// What this host signs with, as it is now; `None` on one host alone.
///
/// # Errors
/// When a file cannot be read.
pub fn signer(settings: &Settings) -> Result<Option<Signer>, Failure> {
    Home::new(settings).signer()
}

/// Makes this host the first of a cluster, or, where it is, issues another token. When the process is to
/// be started anew for it, `context.restart` is set.
///
/// # Errors
/// With the reason and the remedy; then nothing has changed.
pub async fn init(context: &Context, request: Init) -> Result<Invitation, Failure> {
    let home = Home::new(&context.settings);
    if let Some(file) = home.cluster()? {
        context.refuse_when_fenced()?;
        return initiate::another_token(&home, &file, context.store(), now()).await;
    }
    let advertise = request.advertise.or(context.settings.advertise_addr);
    let facts = host::observe().await.map_err(|error| internal(&error))?;
    let facts = facts.facts(advertise).map_err(|error| internal(&error))?;
    let first = initiate::First {
        home: &home,
        embedded: context.store(),
        record: initiate::own_record(&context.membership, facts, now()),
        cluster: context.membership.cluster.clone(),
        now: now(),
    };
    let invitation = first.init(&request.etcd_endpoints).await?;
    context.restart.send_replace(true);
    Ok(invitation)
}

/// Makes this host a member of a cluster; then `context.restart` is set. `networks` are the names of the
/// Drover networks that this host's engine has: there must be none, since another cluster knows nothing
/// of their addresses.
///
/// # Errors
/// With the reason and the remedy; then this host is alone as before.
pub async fn join(
    context: &Context,
    request: Join,
    networks: &[String],
) -> Result<Joined, Failure> {
    let home = Home::new(&context.settings);
    let observed = host::observe().await.map_err(|error| internal(&error))?;
    let chosen = request.advertise.or(context.settings.advertise_addr);
    let joining = join::Joining {
        home: &home,
        host: context
            .settings
            .host_name()
            .unwrap_or_else(|_unset| context.host().clone()),
        networks,
        clock: now(),
        facts: &|reached_from| observed.facts(chosen.or(Some(reached_from))),
    };
    let joined = joining.join(&request).await?;
    context.restart.send_replace(true);
    Ok(joined)
}

/// Takes this host out of its cluster; then `context.restart` is set. The only host of a cluster takes
/// everything along.
///
/// # Errors
/// With the reason and the remedy.
pub async fn leave(context: &Context) -> Result<Empty, Failure> {
    let home = Home::new(&context.settings);
    let Some(file) = home.cluster()? else {
        let message = format!(
            "host `{}` is in no cluster: there is nothing to leave",
            context.host()
        );
        return Err(Failure::new(FailureKind::Conflict, message));
    };
    let removal = removal(context);
    removal::leave(&removal, &home, &file, context.is_fenced()).await?;
    context.restart.send_replace(true);
    Ok(Empty {})
}

/// Removes another host for good: fences it, and releases what it held.
///
/// # Errors
/// With the reason and the remedy.
pub async fn remove_host(context: &Context, request: RemoveHost) -> Result<RemovedHost, Failure> {
    context.refuse_when_fenced()?;
    let home = Home::new(&context.settings);
    let file = home.cluster()?;
    removal::refuse(&request.name, context.host(), file.as_ref())?;
    removal(context).remove(&request.name).await
}

fn removal(context: &Context) -> removal::Removal<'_> {
    let lease = context.settings.cluster.host_lease;
    removal::Removal {
        store: context.store(),
        // A host that cannot be told goes on until it notices by itself.
        quarantine: context
            .settings
            .pools
            .quarantine
            .max(lease.saturating_mul(3)),
        now: now(),
    }
}

/// Lets hosts in where this is the first host, renews this host's certificate, and notices when it is
/// removed, until the shutdown.
pub async fn serve(context: Arc<Context>, mut shutdown: watch::Receiver<bool>) {
    let home = Home::new(&context.settings);
    let file = match home.cluster() {
        Ok(Some(file)) => file,
        Ok(None) => return,
        Err(failure) => {
            tracing::error!(%failure, "this host neither lets hosts in nor renews its certificate");
            return;
        }
    };
    let stop = shutdown.clone();
    let work = async {
        tokio::join!(
            server::serve(&home, &file, context.store(), stop),
            renewal::serve(&home, &file, context.store(), &context.keys),
            fence::watch(
                context.cluster.clone(),
                &context.fenced,
                context.host(),
                context.member()
            ),
        );
    };
    tokio::select! {
        () = work => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

/// The key that a member's every change depends on.
fn member_key(member: &str) -> String {
    format!("members/{member}")
}

/// 32 random hexadecimal digits.
fn random_id() -> Result<String, Failure> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| unavailable(format!("the system gives no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The hosts of the cluster.
async fn hosts(store: &Store) -> Result<Vec<HostRecord>, Failure> {
    let listing = store
        .list("hosts/")
        .await
        .map_err(|error| failure::store(&error))?;
    let records = listing
        .entries
        .iter()
        .map(drover_store::Entry::decode::<HostRecord>);
    records
        .collect::<Result<_, _>>()
        .map_err(|error| failure::store(&error))
}
