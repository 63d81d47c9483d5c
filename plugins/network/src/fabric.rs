//! Follows the coordinator's fabric stream and keeps what it told on the disk, so that a restart
//! without a coordinator takes nothing away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use drover_control_api::fabric::{FabricEvent, PATH, PeerKey};
use drover_control_api::record::{BlockRecord, HostRecord};
use drover_daemon::Backoff;
use drover_http::{Client, Lines, control};
use drover_store::local::{Batch, Database, Table};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::cluster::{Cluster, ThisHost};

const THIS_HOST: &str = "this";

/// The view of the cluster and where it is kept.
#[derive(Debug)]
pub(crate) struct Fabric {
    database: Database,
    hosts: Table<HostRecord>,
    blocks: Table<BlockRecord>,
    keys: Table<PeerKey>,
    this_host: Table<ThisHost>,
    view: watch::Sender<Arc<Cluster>>,
    /// How often the stream was begun anew; even while it is cut, odd while it is followed.
    connected: watch::Sender<u64>,
}

impl Fabric {
    /// Reads what was told last.
    pub(crate) fn open(database: &Database) -> anyhow::Result<Self> {
        const FAILED: &str = "cannot read what is known of the cluster";
        let hosts: Table<HostRecord> = Table::open(database, "fabric-hosts").context(FAILED)?;
        let blocks: Table<BlockRecord> = Table::open(database, "fabric-blocks").context(FAILED)?;
        let keys: Table<PeerKey> = Table::open(database, "fabric-keys").context(FAILED)?;
        let this_host: Table<ThisHost> =
            Table::open(database, "fabric-this-host").context(FAILED)?;
        let known_hosts = hosts.list().context(FAILED)?.into_iter();
        let known_blocks = blocks.list().context(FAILED)?.into_iter();
        let known_keys = keys.list().context(FAILED)?.into_iter();
        let cluster = Cluster {
            this_host: this_host.get(THIS_HOST).context(FAILED)?,
            hosts: known_hosts
                .map(|(_, host)| (host.name.clone(), host))
                .collect(),
            blocks: known_blocks
                .map(|(_, block)| (block.block, block))
                .collect(),
            keys: known_keys.map(|(_, key)| (key.host.clone(), key)).collect(),
        };
        let database = database.clone();
        let (view, _) = watch::channel(Arc::new(cluster));
        let (connected, _) = watch::channel(0);
        Ok(Self {
            database,
            hosts,
            blocks,
            keys,
            this_host,
            view,
            connected,
        })
    }

    /// The view, as it changes.
    pub(crate) fn view(&self) -> watch::Receiver<Arc<Cluster>> {
        self.view.subscribe()
    }

    /// Changes whenever the stream begins or is cut; odd while it is followed.
    pub(crate) fn connected(&self) -> watch::Receiver<u64> {
        self.connected.subscribe()
    }

    /// Follows the stream for ever.
    pub(crate) async fn follow(self, coordinator: Client) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            match coordinator.lines(PATH).await {
                Ok(lines) => {
                    info!("follows the coordinator");
                    self.connected
                        .send_modify(|count| *count = count.wrapping_add(1));
                    let cut = self.follow_once(lines).await;
                    self.connected
                        .send_modify(|count| *count = count.wrapping_add(1));
                    backoff.reset();
                    if let Err(error) = cut {
                        warn!("the fabric stream was cut: {error:#}");
                    }
                }
                Err(error) => debug!(%error, "the coordinator does not answer"),
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    async fn follow_once(&self, mut lines: Lines) -> anyhow::Result<()> {
        // What is being told since the last `Reset`, until it is complete.
        let mut telling: Option<Cluster> = None;
        while let Some(event) = control::next_event(&mut lines).await? {
            match (event, &mut telling) {
                (
                    FabricEvent::Reset {
                        this_host: name,
                        fenced,
                        cluster,
                    },
                    _,
                ) => {
                    let this_host = Some(ThisHost {
                        name,
                        fenced,
                        cluster,
                    });
                    telling = Some(Cluster {
                        this_host,
                        ..Cluster::default()
                    });
                }
                (FabricEvent::Synced, told) => match told.take() {
                    Some(cluster) => self.publish(cluster),
                    None => bail!("it is complete without having begun"),
                },
                (event, Some(cluster)) => cluster.take(event),
                (event, None) => {
                    let mut cluster = Cluster::clone(&self.view.borrow());
                    cluster.take(event);
                    self.publish(cluster);
                }
            }
        }
        Ok(())
    }

    fn publish(&self, cluster: Cluster) {
        let before = self.view.borrow().clone();
        if *before == cluster {
            return;
        }
        if let Err(error) = self.keep(&before, &cluster) {
            // The data path is worth more than remembering it.
            warn!("cannot record what is known of the cluster: {error:#}");
        }
        self.view.send_replace(Arc::new(cluster));
    }

    fn keep(&self, before: &Cluster, after: &Cluster) -> anyhow::Result<()> {
        let mut batch = Batch::new();
        batch = changes(batch, &self.hosts, &before.hosts, &after.hosts, |name| {
            name.to_string()
        })?;
        batch = changes(
            batch,
            &self.blocks,
            &before.blocks,
            &after.blocks,
            |block| block.key(),
        )?;
        batch = changes(batch, &self.keys, &before.keys, &after.keys, |name| {
            name.to_string()
        })?;
        if let Some(this_host) = &after.this_host {
            batch = batch.put(&self.this_host, THIS_HOST, this_host)?;
        }
        self.database.commit(batch)?;
        Ok(())
    }
}

fn changes<K: Ord, V: PartialEq + Serialize + DeserializeOwned>(
    mut batch: Batch,
    table: &Table<V>,
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    key: impl Fn(&K) -> String,
) -> anyhow::Result<Batch> {
    for gone in before.keys().filter(|it| !after.contains_key(it)) {
        batch = batch.delete(table, &key(gone));
    }
    for (it, value) in after
        .iter()
        .filter(|(it, value)| before.get(it) != Some(value))
    {
        batch = batch.put(table, &key(it), value)?;
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use drover_control_api::fabric::PeerKey;

    use super::*;

    fn told(lines: &[&str]) -> Cluster {
        let mut cluster = Cluster {
            this_host: Some(ThisHost {
                name: "a".parse().unwrap(),
                fenced: false,
                cluster: "00112233445566778899aabbccddeeff".to_owned(),
            }),
            ..Cluster::default()
        };
        for line in lines {
            cluster.take(serde_json::from_str(line).unwrap());
        }
        cluster
    }

    fn key(host: &str, generation: u64) -> String {
        let key = PeerKey {
            host: host.parse().unwrap(),
            member: "m".to_owned(),
            generation,
            public: [7; 32],
            lanes: 2,
            udp_port: Some(4788),
            created_at: 1,
        };
        serde_json::to_string(&FabricEvent::Key(key)).unwrap()
    }

    #[test]
    fn what_was_told_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("network.redb");
        let gone = r#"{"event":"key_gone","host":"b"}"#;
        let steps = [
            told(&[&key("a", 1), &key("b", 1)]),
            told(&[&key("a", 1), &key("b", 1), &key("a", 2)]),
            told(&[&key("a", 2), &key("b", 1), gone]),
            Cluster {
                this_host: told(&[]).this_host,
                ..Cluster::default()
            },
        ];
        assert_eq!(
            steps[1]
                .keys
                .values()
                .map(|key| key.generation)
                .sum::<u64>(),
            3
        );
        assert_eq!(steps[2].keys.len(), 1);
        for step in steps {
            let database = Database::open(&path).unwrap();
            Fabric::open(&database).unwrap().publish(step.clone());
            drop(database);
            let again = Fabric::open(&Database::open(&path).unwrap()).unwrap();
            assert_eq!(**again.view().borrow(), step);
        }
    }

    #[test]
    fn a_host_that_was_recorded_without_a_cluster_is_read() {
        let old = r#"{"name":"a","fenced":true}"#;
        let read: ThisHost = serde_json::from_str(old).unwrap();
        assert_eq!((read.fenced, read.cluster.as_str()), (true, ""));
    }
}
