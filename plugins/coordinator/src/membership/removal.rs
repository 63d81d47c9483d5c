//! `drover host rm` and `drover leave`: fences a host, and releases what it held.

use std::collections::BTreeSet;
use std::time::Duration;

use drover_control_api::coordinator::RemovedHost;
use drover_control_api::record::{BlockRecord, HostRecord, NetworkRecord, UnixSeconds};
use drover_control_api::{Failure, FailureKind};
use drover_model::HostName;
use drover_store::{Entry, Store, Transaction};

use super::failure::{self, conflict, internal, invalid};
use super::home::{AloneFile, ClusterFile, EtcdKind, Home, Role};
use super::{member_key, transfer};

/// How hosts are taken out of a store.
pub(super) struct Removal<'a> {
    pub(super) store: &'a Store,
    /// How long nobody may own a block that the host owned.
    pub(super) quarantine: Duration,
    pub(super) now: UnixSeconds,
}

/// Refuses to remove the hosts that cannot be.
pub(super) fn refuse(
    name: &HostName,
    own: &HostName,
    cluster: Option<&ClusterFile>,
) -> Result<(), Failure> {
    if name == own {
        return Err(invalid(format!(
            "host `{name}` is this one: run `drover leave` to take it out of the cluster"
        )));
    }
    if let Some(Role::Member { first, .. }) = cluster.map(|cluster| &cluster.role)
        && first == name
    {
        return Err(conflict(format!(
            "host `{name}` is the cluster's first: it has the authority and lets hosts in, so it cannot be \
             removed"
        )));
    }
    Ok(())
}

impl Removal<'_> {
    /// Removes a host. Its record goes first: from then on it is fenced, and what it held can be
    /// released. A removal that was cut off is gone on with by asking again.
    pub(super) async fn remove(&self, name: &HostName) -> Result<RemovedHost, Failure> {
        let found = self.fence(name).await?;
        let blocks = self.release_blocks(name).await?;
        let networks = self.networks(name).await?;
        let held = self
            .delete_below(&["copies/", "attachments/", "keys/"], name)
            .await?;
        // Its backups are still where they were sent.
        for kind in ["containers", "owners", "volumes"] {
            self.delete_all(&format!("{kind}/{name}/")).await?;
        }
        if !found && blocks.is_empty() && held == 0 {
            return Err(Failure::new(
                FailureKind::NotFound,
                format!("the cluster has no host `{name}`: `drover peers` lists them"),
            ));
        }
        Ok(RemovedHost { blocks, networks })
    }

    /// Deletes the host's record, and with it its right to change anything; whether there was one.
    async fn fence(&self, name: &HostName) -> Result<bool, Failure> {
        let key = format!("hosts/{name}");
        loop {
            let found = self.store.get_record::<HostRecord>(&key).await;
            let Some((record, revision)) = found.map_err(|error| failure::store(&error))? else {
                return Ok(false);
            };
            let fence = Transaction::new()
                .if_unchanged(&key, revision)
                .delete(&key)
                .delete(member_key(&record.member))
                .delete(format!("alive/{name}"))
                .delete(format!("keys/{name}"));
            let fenced = self
                .store
                .commit(fence)
                .await
                .map_err(|error| failure::store(&error))?;
            if fenced.is_committed() {
                tracing::info!(host = %name, "the host is removed");
                return Ok(true);
            }
        }
    }

    /// Takes the host's name off every block: as its owner, and as the holder of single addresses.
    async fn release_blocks(&self, name: &HostName) -> Result<Vec<drover_model::Block>, Failure> {
        let mut released = BTreeSet::new();
        loop {
            let listing = self
                .store
                .list("blocks/")
                .await
                .map_err(|error| failure::store(&error))?;
            let mut conflicts = false;
            for entry in &listing.entries {
                let Some(change) = self.release_block(entry, name)? else {
                    continue;
                };
                let (record, owned) = change;
                let put = Transaction::new()
                    .if_unchanged(&entry.key, entry.revision)
                    .put_record(&entry.key, &record)
                    .map_err(|error| internal(&error))?;
                let outcome = self
                    .store
                    .commit(put)
                    .await
                    .map_err(|error| failure::store(&error))?;
                conflicts |= !outcome.is_committed();
                if owned && outcome.is_committed() {
                    released.insert(record.block);
                }
            }
            if !conflicts {
                return Ok(released.into_iter().collect());
            }
        }
    }

    /// The block without the host, and whether the host owned it; `None` when it had nothing of it.
    fn release_block(
        &self,
        entry: &Entry,
        name: &HostName,
    ) -> Result<Option<(BlockRecord, bool)>, Failure> {
        let mut record: BlockRecord = entry.decode().map_err(|error| failure::store(&error))?;
        let owned = record.owner.as_ref() == Some(name);
        let claims = record.claims.len();
        record.claims.retain(|_, claim| &claim.host != name);
        if !owned && record.claims.len() == claims {
            return Ok(None);
        }
        if owned {
            record.owner = None;
            record.owner_member = None;
        }
        // Of a block that somebody else owns, that owner hears of it and lets the addresses rest itself.
        if record.owner.is_none() {
            let until = self.now.saturating_add(self.quarantine.as_secs());
            record.quarantined_until = record.quarantined_until.max(until);
        }
        Ok(Some((record, owned)))
    }

    /// The names of the networks that the host has endpoints on.
    async fn networks(&self, name: &HostName) -> Result<Vec<String>, Failure> {
        let mut names = BTreeSet::new();
        for key in self.below("attachments/", name).await? {
            let id = key.split('/').nth(1).unwrap_or_default();
            let network = self
                .store
                .get_record::<NetworkRecord>(&format!("networks/{id}"))
                .await;
            let network = network.map_err(|error| failure::store(&error))?;
            names.insert(network.map_or_else(|| id.to_owned(), |(network, _)| network.name));
        }
        Ok(names.into_iter().collect())
    }

    async fn delete_below(&self, prefixes: &[&str], name: &HostName) -> Result<usize, Failure> {
        let mut keys = Vec::new();
        for prefix in prefixes {
            keys.extend(self.below(prefix, name).await?);
        }
        let count = keys.len();
        transfer::delete(self.store, keys).await?;
        Ok(count)
    }

    async fn delete_all(&self, prefix: &str) -> Result<(), Failure> {
        let listing = self.store.list(prefix).await;
        let listing = listing.map_err(|error| failure::store(&error))?;
        let keys = listing.entries.into_iter().map(|entry| entry.key);
        transfer::delete(self.store, keys).await
    }

    /// The keys below the prefix that end with `/<name>`.
    async fn below(&self, prefix: &str, name: &HostName) -> Result<Vec<String>, Failure> {
        let listing = self
            .store
            .list(prefix)
            .await
            .map_err(|error| failure::store(&error))?;
        let own = |key: &String| key.rsplit('/').next() == Some(name.as_str());
        Ok(listing
            .entries
            .into_iter()
            .map(|entry| entry.key)
            .filter(own)
            .collect())
    }
}

/// Takes this host out of its cluster; what a crash leaves of it, the next start clears away.
pub(super) async fn leave(
    removal: &Removal<'_>,
    home: &Home,
    cluster: &ClusterFile,
    fenced: bool,
) -> Result<(), Failure> {
    match &cluster.role {
        Role::First => dissolve(removal, home, cluster).await,
        Role::Member { .. } => {
            if !fenced {
                let networks = removal.networks(&cluster.host).await?;
                if !networks.is_empty() {
                    return Err(conflict(format!(
                        "containers of this host are still on networks of the cluster ({}): stop them first",
                        networks.join(", ")
                    )));
                }
                // With the first step it fences itself, and still has the rest to do.
                let store = removal.store.unfenced();
                let own = Removal {
                    store: &store,
                    ..*removal
                };
                match own.remove(&cluster.host).await {
                    Err(failure) if failure.kind != FailureKind::NotFound => return Err(failure),
                    _ => {}
                }
            }
            // Whoever this host is next, it is somebody else.
            home.forget_alone()?;
            home.forget_cluster()?;
            home.clear_left_overs().await
        }
    }
}

/// Ends the cluster of which this is the only host; it takes everything along.
async fn dissolve(
    removal: &Removal<'_>,
    home: &Home,
    cluster: &ClusterFile,
) -> Result<(), Failure> {
    let hosts = super::hosts(removal.store).await?;
    let others: Vec<_> = hosts
        .iter()
        .filter(|host| host.name != cluster.host)
        .map(|host| host.name.as_str())
        .collect();
    if !others.is_empty() {
        return Err(conflict(format!(
            "host `{}` is the cluster's first, and others need it: run `drover leave` on {} first",
            cluster.host,
            others.join(", ")
        )));
    }
    let carried = carry_back(removal.store, home, cluster).await;
    if carried.is_err() {
        removal.store.thaw().await;
        return carried;
    }
    if cluster.etcd == EtcdKind::Given {
        // The store is frozen for this process; what is in the user's etcd goes by a new connection.
        let config = home.given_etcd(&cluster.endpoints)?;
        let store = Store::connect_etcd(config)
            .await
            .map_err(|error| internal(&error))?;
        transfer::wipe(&store, "").await?;
    }
    home.clear_left_overs().await
}

async fn carry_back(store: &Store, home: &Home, cluster: &ClusterFile) -> Result<(), Failure> {
    let frozen = store
        .freeze()
        .await
        .map_err(|error| failure::store(&error))?;
    let entries: Vec<_> = frozen
        .entries
        .into_iter()
        .filter(|entry| {
            let ends = ["tokens/", "members/", "keys/"];
            !ends.iter().any(|prefix| entry.key.starts_with(prefix))
        })
        .collect();
    let partial = home.embedded().with_extension("redb.partial");
    drover_pki::file::remove(&partial).map_err(|error| internal(&error))?;
    {
        let embedded = Store::open_embedded(&partial).map_err(|error| internal(&error))?;
        transfer::copy(&entries, &embedded).await?;
    }
    std::fs::rename(&partial, home.embedded()).map_err(|error| internal(&error))?;
    home.write_alone(&AloneFile {
        version: 1,
        host: cluster.host.clone(),
        member: cluster.member.clone(),
    })?;
    home.forget_cluster()
}
