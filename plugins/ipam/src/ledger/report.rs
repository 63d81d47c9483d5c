//! The ledger for a person.

use drover_allocation::lease::AddressState;
use drover_control_api::plugin::{BlockUse, LeaseEntry, LeaseTable, PoolUse};
use drover_model::Pool;

use super::{Entry, Ledger};

impl Ledger {
    /// What this host has given out.
    pub(crate) fn report(&self) -> LeaseTable {
        let pools = self.lock();
        LeaseTable {
            pools: pools
                .iter()
                .map(|(pool, entry)| pool_use(*pool, entry))
                .collect(),
        }
    }

    /// What is not as it should be.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.lock()
            .values()
            .flat_map(|entry| entry.complaints.iter().cloned())
            .collect()
    }
}

fn pool_use(pool: Pool, entry: &Entry) -> PoolUse {
    let mut leases = Vec::new();
    let mut quarantined = Vec::new();
    for (address, state) in entry.pool.addresses() {
        match state {
            AddressState::Leased { mac, given_at } | AddressState::Lost { mac, given_at, .. } => {
                leases.push(LeaseEntry {
                    address,
                    mac: *mac,
                    given_at: *given_at,
                });
            }
            AddressState::Resting { .. } | AddressState::Leaving | AddressState::Unconfirmed => {
                quarantined.push(address)
            }
        }
    }
    let blocks = entry.pool.usage();
    let blocks = blocks
        .map(|(block, usable, used)| BlockUse {
            block,
            usable,
            used,
        })
        .collect();
    PoolUse {
        pool,
        blocks,
        leases,
        quarantined,
    }
}
