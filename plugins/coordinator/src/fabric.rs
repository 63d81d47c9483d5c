//! The fabric stream: hosts, blocks and keys, all of them first and then as they change.
//!
//! A stream remembers what it has sent, and after each change of the store it sends the difference: a
//! slow watcher gets fewer changes, never a wrong end.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_control_api::fabric::{FabricEvent, PeerKey};
use drover_control_api::record::{BlockRecord, HostRecord};
use drover_http::Response;
use drover_model::{Block, HostName};
use drover_store::Entry;
use tokio::sync::watch;

use crate::context::Context;
use crate::keys::View;
use crate::lines::{Gone, Pieces, SIGN_OF_LIFE};
use crate::mirror::Snapshot;

/// What the fabric consists of, apart from keys, which are checked first.
const PREFIXES: [&str; 2] = ["hosts/", "blocks/"];

/// Begins a stream.
#[must_use]
pub fn stream(context: &Arc<Context>) -> Response {
    let (pieces, response) = Pieces::stream();
    let context = context.clone();
    // It ends when nobody listens; the response ends with the sender, at a stop.
    drover_daemon::task::spawn("fabric", async move {
        let watcher = Watcher {
            pieces,
            sent: BTreeMap::new(),
            sent_keys: BTreeMap::new(),
        };
        // Its only failure is that nobody listens any more.
        drop(watcher.follow(&context).await);
    });
    response
}

struct Watcher {
    pieces: Pieces,
    /// The revision of each key as it was sent.
    sent: BTreeMap<String, u64>,
    /// The keys as they were sent.
    sent_keys: BTreeMap<HostName, PeerKey>,
}

impl Watcher {
    async fn follow(mut self, context: &Context) -> Result<(), Gone> {
        let mut cluster = context.cluster.clone();
        let mut fenced = context.fenced.subscribe();
        let mut keys = context.keys.view();
        let mut begun = false;
        loop {
            let is_fenced = *fenced.borrow_and_update();
            let snapshot = cluster.borrow_and_update().clone();
            let view = keys.borrow_and_update().clone();
            if snapshot.is_complete() && view.is_complete {
                if !begun {
                    let this_host = context.host().clone();
                    self.pieces
                        .event(&FabricEvent::Reset {
                            this_host,
                            fenced: is_fenced,
                            cluster: context.membership.cluster.clone(),
                        })
                        .await?;
                    self.sent.clear();
                    self.sent_keys.clear();
                }
                self.tell(&snapshot, &view).await?;
                if !begun {
                    self.pieces.event(&FabricEvent::Synced).await?;
                    begun = true;
                }
                self.pieces.flush().await?;
            }
            begun &= !self.wait(&mut cluster, &mut fenced, &mut keys).await?;
        }
    }

    /// Waits for something to look at. Returns whether everything has to be said anew.
    async fn wait(
        &mut self,
        cluster: &mut watch::Receiver<Snapshot>,
        fenced: &mut watch::Receiver<bool>,
        keys: &mut watch::Receiver<Arc<View>>,
    ) -> Result<bool, Gone> {
        loop {
            // Each arm is cancel-safe.
            tokio::select! {
                changed = cluster.changed() => return changed.map(|()| false).map_err(|_closed| Gone),
                changed = keys.changed() => return changed.map(|()| false).map_err(|_closed| Gone),
                changed = fenced.changed() => return changed.map(|()| true).map_err(|_closed| Gone),
                () = self.pieces.closed() => return Err(Gone),
                () = tokio::time::sleep(SIGN_OF_LIFE) => self.pieces.sign_of_life().await?,
            }
        }
    }

    /// Says what has changed: a key comes after its host, and goes before it.
    async fn tell(&mut self, snapshot: &Snapshot, view: &View) -> Result<(), Gone> {
        self.lost_keys(snapshot, view).await?;
        self.difference(snapshot).await?;
        self.new_keys(snapshot, view).await
    }

    /// The keys that count no more; a host is there for as long as its key.
    async fn lost_keys(&mut self, snapshot: &Snapshot, view: &View) -> Result<(), Gone> {
        let sent = std::mem::take(&mut self.sent_keys);
        for (host, key) in sent {
            if view.keys.contains_key(&host) && is_there(snapshot, &host) {
                self.sent_keys.insert(host, key);
            } else {
                self.pieces.event(&FabricEvent::KeyGone { host }).await?;
            }
        }
        Ok(())
    }

    /// The keys that are new or another. The view may be ahead of the snapshot.
    async fn new_keys(&mut self, snapshot: &Snapshot, view: &View) -> Result<(), Gone> {
        for (host, key) in &view.keys {
            if is_there(snapshot, host) && self.sent_keys.get(host) != Some(key) {
                self.sent_keys.insert(host.clone(), key.clone());
                self.pieces.event(&FabricEvent::Key(key.clone())).await?;
            }
        }
        Ok(())
    }

    async fn difference(&mut self, snapshot: &Snapshot) -> Result<(), Gone> {
        let gone: Vec<String> = self
            .sent
            .keys()
            .filter(|key| snapshot.entry(key).is_none())
            .cloned()
            .collect();
        for key in gone {
            self.sent.remove(&key);
            if let Some(event) = absence(&key) {
                self.pieces.event(&event).await?;
            }
        }
        for prefix in PREFIXES {
            for (_, entry) in snapshot.under(prefix) {
                if self.sent.get(&entry.key) == Some(&entry.revision) {
                    continue;
                }
                self.sent.insert(entry.key.clone(), entry.revision);
                if let Some(event) = presence(entry) {
                    self.pieces.event(&event).await?;
                }
            }
        }
        Ok(())
    }
}

fn is_there(snapshot: &Snapshot, host: &HostName) -> bool {
    snapshot.entry(&crate::host::key(host)).is_some()
}

fn presence(entry: &Entry) -> Option<FabricEvent> {
    if entry.key.starts_with("hosts/") {
        entry.decode::<HostRecord>().ok().map(FabricEvent::Host)
    } else {
        entry.decode::<BlockRecord>().ok().map(FabricEvent::Block)
    }
}

fn absence(key: &str) -> Option<FabricEvent> {
    if let Some(name) = key.strip_prefix("hosts/") {
        return Some(FabricEvent::HostGone {
            name: name.parse().ok()?,
        });
    }
    let prefix = key.rsplit('/').next()?.replace('_', "/");
    Some(FabricEvent::BlockGone {
        block: Block::new(prefix.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_gone_says_what_is_gone() {
        let block = absence("blocks/10.42.0.0_16/10.42.1.0_24");
        let expected = Block::new("10.42.1.0/24".parse().unwrap());
        assert_eq!(block, Some(FabricEvent::BlockGone { block: expected }));
        let host = absence("hosts/web-1");
        assert_eq!(
            host,
            Some(FabricEvent::HostGone {
                name: "web-1".parse().unwrap()
            })
        );
        let block = absence("blocks/fd00::_64/fd00::1:0_112");
        let expected = Block::new("fd00::1:0/112".parse().unwrap());
        assert_eq!(block, Some(FabricEvent::BlockGone { block: expected }));
    }

    fn watcher() -> (Watcher, tokio::sync::mpsc::Receiver<bytes::Bytes>) {
        let (pieces, receiver) = Pieces::channel();
        let watcher = Watcher {
            pieces,
            sent: BTreeMap::new(),
            sent_keys: BTreeMap::new(),
        };
        (watcher, receiver)
    }

    #[tokio::test]
    async fn a_key_comes_after_its_host_and_goes_before_it() {
        let (mut watcher, _receiver) = watcher();
        let snapshot = |names: &[&str]| {
            let host = |name: &&str| {
                Entry {
                key: format!("hosts/{name}"),
                value: format!(
                    r#"{{"version":1,"name":"{name}","member":"m","index":1,"advertise":"192.0.2.1",
                        "link":null,"underlay_mtu":1500,"prefixes":[],"software":"","joined_at":0}}"#
                )
                .into_bytes(),
                revision: 1,
            }
            };
            Snapshot::of(names.iter().map(host).collect())
        };
        let view = |keys: &[(&str, u64)]| {
            let key = |(host, generation): &(&str, u64)| PeerKey {
                host: host.parse().unwrap(),
                member: "m".to_owned(),
                generation: *generation,
                public: [7; 32],
                lanes: 1,
                udp_port: None,
                created_at: 0,
            };
            let keys = keys.iter().map(|pair| (pair.0.parse().unwrap(), key(pair)));
            View {
                is_complete: true,
                keys: keys.collect(),
                ..View::default()
            }
        };
        type Step<'a> = (&'a [&'a str], &'a [(&'a str, u64)], &'a [&'a str]);
        let steps: [Step<'_>; 6] = [
            // The key of `b` is known before the snapshot has the host.
            (&["a"], &[("a", 1), ("b", 1)], &["host a", "key a 1"]),
            (&["a", "b"], &[("a", 1), ("b", 1)], &["host b", "key b 1"]),
            (&["a", "b"], &[("a", 2), ("b", 1)], &["key a 2"]),
            (&["a", "b"], &[("b", 1)], &["key_gone a"]),
            (&["a"], &[("b", 1)], &["key_gone b", "host_gone b"]),
            (&["a"], &[], &[]),
        ];
        for (hosts, keys, expected) in steps {
            watcher.tell(&snapshot(hosts), &view(keys)).await.unwrap();
            let piece = String::from_utf8(watcher.pieces.take()).unwrap();
            let said = piece
                .lines()
                .map(|line| match serde_json::from_str(line).unwrap() {
                    FabricEvent::Host(host) => format!("host {}", host.name),
                    FabricEvent::HostGone { name } => format!("host_gone {name}"),
                    FabricEvent::Key(key) => format!("key {} {}", key.host, key.generation),
                    FabricEvent::KeyGone { host } => format!("key_gone {host}"),
                    other => panic!("{other:?}"),
                });
            assert_eq!(said.collect::<Vec<_>>(), expected);
        }
    }

    #[tokio::test]
    async fn only_the_difference_is_sent() {
        let (mut watcher, mut receiver) = watcher();
        let block = |name: &str, revision| {
            Entry {
            key: format!("blocks/10.42.0.0_16/{}", name.replace('/', "_")),
            value: format!(
                r#"{{"version":1,"pool":"10.42.0.0/16","block":"{name}","owner":null,"owner_member":null,"quarantined_until":0,"claims":{{}}}}"#
            )
            .into_bytes(),
            revision,
        }
        };
        let first = Snapshot::of(vec![block("10.42.0.0/24", 1), block("10.42.1.0/24", 1)]);
        watcher.difference(&first).await.unwrap();
        watcher.pieces.flush().await.unwrap();
        let text = String::from_utf8(receiver.recv().await.unwrap().to_vec()).unwrap();
        assert_eq!(text.lines().count(), 2);
        let second = Snapshot::of(vec![block("10.42.1.0/24", 1), block("10.42.2.0/24", 2)]);
        watcher.difference(&second).await.unwrap();
        watcher.pieces.flush().await.unwrap();
        let text = String::from_utf8(receiver.recv().await.unwrap().to_vec()).unwrap();
        let lines: Vec<FabricEvent> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(
            matches!(&lines[0], FabricEvent::BlockGone { block } if block.to_string() == "10.42.0.0/24")
        );
        assert!(
            matches!(&lines[1], FabricEvent::Block(record) if record.block.to_string() == "10.42.2.0/24")
        );
        assert_eq!(lines.len(), 2);
        watcher.difference(&second).await.unwrap();
        assert!(watcher.pieces.take().is_empty());
    }
}
