//! The cluster as the coordinator has told it: hosts, blocks and keys.

use std::collections::BTreeMap;

use drover_control_api::fabric::{FabricEvent, PeerKey};
use drover_control_api::record::{BlockRecord, HostRecord};
use drover_model::{Block, HostName};
use serde::{Deserialize, Serialize};

/// Who this host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ThisHost {
    /// Its name.
    pub(crate) name: HostName,
    /// Whether it was removed from its cluster.
    pub(crate) fenced: bool,
    /// The cluster's id; empty until a coordinator that knows of keys has told it.
    #[serde(default)]
    pub(crate) cluster: String,
}

/// Hosts, blocks and keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Which of the hosts this is; `None` until it was told once.
    pub(crate) this_host: Option<ThisHost>,
    /// Every host, this one included.
    pub(crate) hosts: BTreeMap<HostName, HostRecord>,
    /// Every block that somebody uses.
    pub(crate) blocks: BTreeMap<Block, BlockRecord>,
    /// The newest key of each host that has one, this one included. The coordinator has checked them.
    pub(crate) keys: BTreeMap<HostName, PeerKey>,
}

impl Cluster {
    /// This host's record.
    pub(crate) fn own(&self) -> Option<&HostRecord> {
        self.hosts.get(&self.this_host.as_ref()?.name)
    }

    /// The other hosts.
    pub(crate) fn others(&self) -> impl Iterator<Item = &HostRecord> {
        let own = self.this_host.as_ref().map(|host| &host.name);
        self.hosts
            .values()
            .filter(move |host| Some(&host.name) != own)
    }

    /// Takes an event in. `Reset` and `Synced` are the follower's business.
    pub(crate) fn take(&mut self, event: FabricEvent) {
        match event {
            FabricEvent::Host(host) => {
                self.hosts.insert(host.name.clone(), host);
            }
            FabricEvent::HostGone { name } => {
                self.hosts.remove(&name);
            }
            FabricEvent::Block(block) => {
                self.blocks.insert(block.block, block);
            }
            FabricEvent::BlockGone { block } => {
                self.blocks.remove(&block);
            }
            FabricEvent::Key(key) => {
                self.keys.insert(key.host.clone(), key);
            }
            FabricEvent::KeyGone { host } => {
                self.keys.remove(&host);
            }
            FabricEvent::Reset { .. } | FabricEvent::Synced => {}
        }
    }
}
