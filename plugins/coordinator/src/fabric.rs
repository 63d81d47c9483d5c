//! The fabric stream: hosts and blocks, all of them first and then as they change.
//!
//! A stream remembers what it has sent, and after each change of the store it sends the difference: a
//! slow watcher gets fewer changes, never a wrong end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drover_control_api::fabric::FabricEvent;
use drover_control_api::record::{BlockRecord, HostRecord};
use drover_http::Response;
use drover_model::Block;
use drover_store::Entry;
use tokio::sync::{mpsc, watch};

use crate::context::Context;
use crate::mirror::Snapshot;

/// How often an empty line is sent when there is nothing to say.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// How many pieces wait for a slow watcher.
const QUEUE: usize = 16;
/// How long a piece gets before it is sent.
const PIECE: usize = 64 << 10;
/// What the fabric consists of.
const PREFIXES: [&str; 2] = ["hosts/", "blocks/"];

/// Begins a stream.
#[must_use]
pub fn stream(context: &Arc<Context>) -> Response {
    let (sender, response) = Response::stream("application/x-ndjson", QUEUE);
    let context = context.clone();
    // It ends when nobody listens; the response ends with the sender, at a stop.
    drover_daemon::task::spawn("fabric", async move {
        let watcher = Watcher {
            pieces: Pieces {
                sender,
                piece: Vec::new(),
            },
            sent: BTreeMap::new(),
        };
        // Its only failure is that nobody listens any more.
        drop(watcher.follow(&context).await);
    });
    response
}

/// Nobody listens any more.
#[derive(Debug)]
struct Gone;

struct Watcher {
    pieces: Pieces,
    /// The revision of each key as it was sent.
    sent: BTreeMap<String, u64>,
}

impl Watcher {
    async fn follow(mut self, context: &Context) -> Result<(), Gone> {
        let mut cluster = context.cluster.clone();
        let mut fenced = context.fenced.subscribe();
        let mut begun = false;
        loop {
            let is_fenced = *fenced.borrow_and_update();
            let snapshot = cluster.borrow_and_update().clone();
            if snapshot.is_complete() {
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
                }
                self.difference(&snapshot).await?;
                if !begun {
                    self.pieces.event(&FabricEvent::Synced).await?;
                    begun = true;
                }
                self.pieces.flush().await?;
            }
            begun &= !self.wait(&mut cluster, &mut fenced).await?;
        }
    }

    /// Waits for something to look at. Returns whether everything has to be said anew.
    async fn wait(
        &mut self,
        cluster: &mut watch::Receiver<Snapshot>,
        fenced: &mut watch::Receiver<bool>,
    ) -> Result<bool, Gone> {
        loop {
            // Each arm is cancel-safe.
            tokio::select! {
                changed = cluster.changed() => return changed.map(|()| false).map_err(|_closed| Gone),
                changed = fenced.changed() => return changed.map(|()| true).map_err(|_closed| Gone),
                () = self.pieces.sender.closed() => return Err(Gone),
                () = tokio::time::sleep(SIGN_OF_LIFE) => {
                    self.pieces.piece.push(b'\n');
                    self.pieces.flush().await?;
                }
            }
        }
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

/// Lines, gathered into pieces.
struct Pieces {
    sender: mpsc::Sender<bytes::Bytes>,
    piece: Vec<u8>,
}

impl Pieces {
    async fn event(&mut self, event: &FabricEvent) -> Result<(), Gone> {
        if serde_json::to_writer(&mut self.piece, event).is_ok() {
            self.piece.push(b'\n');
        }
        if self.piece.len() >= PIECE {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.sender.send(piece.into()).await.map_err(|_closed| Gone)
    }
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

    #[tokio::test]
    async fn only_the_difference_is_sent() {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let pieces = Pieces {
            sender,
            piece: Vec::new(),
        };
        let mut watcher = Watcher {
            pieces,
            sent: BTreeMap::new(),
        };
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
        assert!(watcher.pieces.piece.is_empty());
    }
}
