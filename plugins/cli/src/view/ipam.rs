//! `drover ipam`: pools, who has which blocks of them, and how full they are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use drover_control_api::coordinator::{NetworkTable, Networks, PoolTable, Pools};
use drover_control_api::plugin::{LeaseTable, Leases, PoolUse};
use drover_control_api::record::PoolRecord;
use drover_daemon::Settings;
use drover_model::{Block, HostName, Pool};
use serde::Serialize;

use super::View;
use crate::ask::{self, CommandError, LIMIT};
use crate::process::Process;
use crate::table::{or_dash, short_list, table};

/// From this share of its blocks on, per cent, a pool is worth a warning.
const FULL: u64 = 80;

/// What `drover ipam --json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct IpamView {
    /// One entry a pool.
    pools: Vec<PoolView>,
}

/// A pool.
#[derive(Debug, Serialize)]
pub(crate) struct PoolView {
    /// The subnet.
    pool: Pool,
    /// The network it belongs to, by name; `null` when no network has it yet.
    network: Option<String>,
    /// How many blocks it has (of its `--ip-range`, if it has one).
    blocks: u64,
    /// How many of them a host has.
    blocks_taken: u64,
    /// The share of the blocks that is taken, per cent.
    use_percent: u64,
    /// Whether that is more than 80.
    nearly_full: bool,
    /// Who has which blocks.
    hosts: Vec<HostBlocks>,
}

/// What a host has of a pool. The counts are `null` for other hosts: only a host itself knows them.
#[derive(Debug, Serialize)]
pub(crate) struct HostBlocks {
    /// The host; `null` for blocks that nobody allocates from.
    host: Option<HostName>,
    /// The blocks.
    blocks: Vec<Block>,
    /// Addresses that containers hold.
    used: Option<u64>,
    /// Addresses that containers can have.
    usable: Option<u64>,
    /// Addresses that rest before they are given again.
    quarantined: Option<u64>,
    /// The addresses that containers hold.
    addresses: Option<Vec<IpAddr>>,
}

/// Asks the coordinator for the pools and `drover-ipam` for the addresses.
pub(crate) async fn gather(settings: &Settings) -> Result<IpamView, CommandError> {
    let (pools, networks, leases, status) = tokio::join!(
        ask::ask(settings, Process::Coordinator, &Pools {}, LIMIT),
        ask::ask(settings, Process::Coordinator, &Networks {}, LIMIT),
        ask::ask(settings, Process::Ipam, &Leases {}, LIMIT),
        ask::status(settings),
    );
    let sources = Sources {
        pools: pools?,
        networks: networks?,
        leases: leases?,
        this_host: status?.host,
    };
    Ok(view(&sources))
}

/// What the view is made of.
struct Sources {
    pools: PoolTable,
    networks: NetworkTable,
    leases: LeaseTable,
    this_host: HostName,
}

fn view(sources: &Sources) -> IpamView {
    let mut pools: Vec<PoolView> = sources
        .pools
        .pools
        .iter()
        .map(|record| pool(sources, record))
        .collect();
    pools.sort_by_key(|pool| pool.pool);
    IpamView { pools }
}

fn pool(sources: &Sources, record: &PoolRecord) -> PoolView {
    let networks = &sources.networks.networks;
    let network = networks
        .iter()
        .find(|network| record.network.as_ref() == Some(&network.network.id));
    let mut owners: BTreeMap<Option<HostName>, Vec<Block>> = BTreeMap::new();
    for block in sources
        .pools
        .blocks
        .iter()
        .filter(|block| block.pool == record.pool)
    {
        owners
            .entry(block.owner.clone())
            .or_default()
            .push(block.block);
    }
    // What nobody allocates from is there only for addresses that were claimed singly.
    let owned = owners.iter().filter(|(owner, _)| owner.is_some());
    let taken: usize = owned.map(|(_, blocks)| blocks.len()).sum();
    let blocks_taken = u64::try_from(taken).unwrap_or(u64::MAX);
    let blocks = block_count(record);
    let use_percent = blocks_taken.saturating_mul(100) / blocks.max(1);
    PoolView {
        pool: record.pool,
        network: network.map(|network| network.network.name.clone()),
        blocks,
        blocks_taken,
        use_percent,
        nearly_full: use_percent > FULL,
        hosts: hosts(sources, record.pool, owners),
    }
}

fn hosts(
    sources: &Sources,
    pool: Pool,
    mut owners: BTreeMap<Option<HostName>, Vec<Block>>,
) -> Vec<HostBlocks> {
    let here = Some(sources.this_host.clone());
    let use_here = sources.leases.pools.iter().find(|entry| entry.pool == pool);
    // Addresses that were claimed singly are used here without a block.
    if use_here.is_some_and(|entry| !entry.leases.is_empty()) {
        owners.entry(here.clone()).or_default();
    }
    let with_use = |(host, mut blocks): (Option<HostName>, Vec<Block>)| {
        blocks.sort();
        let known = use_here.filter(|_| host == here);
        HostBlocks {
            host,
            blocks,
            used: known.map(|entry| count(entry.leases.len())),
            usable: known.map(usable),
            quarantined: known.map(|entry| count(entry.quarantined.len())),
            addresses: known.map(|entry| entry.leases.iter().map(|lease| lease.address).collect()),
        }
    };
    owners.into_iter().map(with_use).collect()
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn usable(entry: &PoolUse) -> u64 {
    entry
        .blocks
        .iter()
        .map(|block| block.usable)
        .fold(0, u64::saturating_add)
}

/// How many blocks a pool can be cut into.
fn block_count(record: &PoolRecord) -> u64 {
    let range = record.sub_pool.unwrap_or_else(|| record.pool.prefix());
    let bits = record.block_prefix.saturating_sub(range.prefix_len());
    1_u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX)
}

impl View for IpamView {
    fn render(&self) -> String {
        if self.pools.is_empty() {
            return "no pools: they come with the first network".to_owned();
        }
        let headers = [
            "POOL",
            "NETWORK",
            "TAKEN",
            "HOST",
            "BLOCKS",
            "ADDRESSES",
            "RESTING",
        ];
        let rows = self.pools.iter().flat_map(rows).collect();
        let mut parts = vec![table(&headers, &[], rows)];
        let full = self.pools.iter().filter(|pool| pool.nearly_full);
        let full = full.map(|pool| {
            format!(
                "! {} of {} blocks of {} are taken: make another network with a larger `--subnet`, and move to it",
                pool.blocks_taken, pool.blocks, pool.pool
            )
        });
        let full: Vec<String> = full.collect();
        if !full.is_empty() {
            parts.push(full.join("\n"));
        }
        parts.join("\n\n")
    }
}

/// The rows of a pool; what is said of all of it stands in the first alone.
fn rows(pool: &PoolView) -> Vec<Vec<String>> {
    let taken = format!(
        "{} of {} ({} %)",
        pool.blocks_taken, pool.blocks, pool.use_percent
    );
    let mut first = [pool.pool.to_string(), or_dash(pool.network.as_ref()), taken];
    let mut rows = Vec::new();
    for host in &pool.hosts {
        let addresses = host
            .used
            .zip(host.usable)
            .map(|(used, usable)| format!("{used} of {usable}"));
        let name = host
            .host
            .as_ref()
            .map_or_else(|| "nobody".to_owned(), ToString::to_string);
        let mut row = first.to_vec();
        row.extend([
            name,
            short_list(&host.blocks),
            or_dash(addresses),
            or_dash(host.quarantined),
        ]);
        rows.push(row);
        first = Default::default();
    }
    if rows.is_empty() {
        let mut row = first.to_vec();
        row.extend(std::iter::repeat_n(or_dash::<&str>(None), 4));
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::golden::assert_golden;

    fn sources() -> Sources {
        Sources {
            pools: serde_json::from_str(include_str!("../../tests/answers/pools.json")).unwrap(),
            networks: serde_json::from_str(include_str!("../../tests/answers/networks.json"))
                .unwrap(),
            leases: serde_json::from_str(include_str!("../../tests/answers/leases.json")).unwrap(),
            this_host: "web-1".parse().unwrap(),
        }
    }

    #[test]
    fn pools_say_who_has_what_and_how_full_they_are() {
        let view = view(&sources());
        assert_golden("ipam", &view.render());
        assert_golden("ipam-json", &serde_json::to_string_pretty(&view).unwrap());
    }

    #[test]
    fn a_range_limits_the_number_of_blocks() {
        let mut record = sources().pools.pools.remove(0);
        assert_eq!(block_count(&record), 256);
        record.sub_pool = Some("10.64.128.0/18".parse().unwrap());
        assert_eq!(block_count(&record), 64);
        record.sub_pool = Some("10.64.128.0/28".parse().unwrap());
        assert_eq!(block_count(&record), 1);
    }
}
