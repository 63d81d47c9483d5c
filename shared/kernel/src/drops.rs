//! What was dropped: by IPsec itself, by the guards against clear packets, and for a source that is not its sender's.

use std::collections::BTreeMap;
use std::fs;

use drover_overlay::Place;

use crate::error::Error;
use crate::kernel::Kernel;

/// Where the kernel tells why it has dropped packets, if it was built to (CONFIG_XFRM_STATISTICS).
const DROPS: &str = "/proc/thread-self/net/xfrm_stat";

/// Packets that were dropped, since the host or its tables were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drops {
    /// By IPsec of the root namespace, also those of others, by the kernel's name of the cause (`XfrmInNoStates`).
    /// Causes without a packet are left out, and a kernel that does not count has none.
    pub security: BTreeMap<String, u64>,
    /// Of encrypted networks, that came in clear.
    pub clear_in: u64,
    /// Of encrypted networks, that were about to leave in clear.
    pub clear_out: u64,
    /// From a peer, but not from an address of its own.
    pub foreign: u64,
}

impl Kernel {
    /// What was dropped for the sake of encryption.
    ///
    /// # Errors
    /// When a namespace cannot be entered, or `nft` does not answer.
    pub async fn drops(&self) -> Result<Drops, Error> {
        let read = self.root_namespace.run(|| fs::read_to_string(DROPS)).await;
        let listing = read.map_err(|source| Error::Request {
            action: "read what IPsec has dropped".to_owned(),
            source,
        })?;
        let mut drops = Drops {
            security: listing.as_deref().map(read_drops).unwrap_or_default(),
            ..Drops::default()
        };
        for place in [Place::Overlay, Place::Root] {
            let counted = self.nft.counters(self.namespace(place)).await?;
            let packets = |name: &str| counted.get(name).copied().unwrap_or(0);
            drops.clear_in = drops.clear_in.saturating_add(packets("clear_in"));
            drops.clear_out = drops.clear_out.saturating_add(packets("clear_out"));
            drops.foreign = drops.foreign.saturating_add(packets("foreign"));
        }
        Ok(drops)
    }
}

/// Each line is a name and a number.
fn read_drops(listing: &str) -> BTreeMap<String, u64> {
    let lines = listing.lines().filter_map(|line| {
        let (name, count) = line.split_once(char::is_whitespace)?;
        let count: u64 = count.trim().parse().ok()?;
        (count > 0).then(|| (name.to_owned(), count))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::read_drops;

    #[test]
    fn causes_without_a_packet_are_left_out() {
        let listing = "XfrmInError             \t0\nXfrmInNoStates          \t12\nXfrmOutNoStates\t3\nnothing\n\n";
        let drops: Vec<_> = read_drops(listing).into_iter().collect();
        let named = |name: &str, count| (name.to_owned(), count);
        assert_eq!(
            drops,
            [named("XfrmInNoStates", 12), named("XfrmOutNoStates", 3)]
        );
    }
}
