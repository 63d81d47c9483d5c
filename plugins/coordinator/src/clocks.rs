//! How far the clocks of other hosts are from this one's.
//!
//! Each host writes its clock into its sign of life once a minute. The difference to our clock when the
//! change arrives is right to about a second, which is enough: certificates and quarantines go by
//! minutes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use drover_control_api::record::AliveRecord;
use drover_model::HostName;
use tokio::sync::watch;

use crate::context::now;
use crate::mirror::Snapshot;

/// The clocks as they were heard last.
#[derive(Debug, Default)]
pub struct Clocks(Mutex<BTreeMap<HostName, i64>>);

impl Clocks {
    /// Seconds that each host's clock is ahead of ours; hosts that were not heard yet are missing.
    #[must_use]
    pub fn offsets(&self) -> BTreeMap<HostName, i64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, host: HostName, offset: i64) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(host, offset);
    }
}

/// Listens until the shutdown.
pub async fn serve(
    clocks: Arc<Clocks>,
    mut cluster: watch::Receiver<Snapshot>,
    mut shutdown: watch::Receiver<bool>,
) {
    let listen = async {
        let mut heard: Option<BTreeMap<HostName, u64>> = None;
        loop {
            let snapshot = cluster.borrow_and_update().clone();
            if snapshot.is_complete() {
                heard = Some(listen(&clocks, &snapshot, heard.as_ref()));
            }
            if cluster.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = listen => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

/// Takes what was written since `heard`. What was there at first has an unknown age.
fn listen(
    clocks: &Clocks,
    snapshot: &Snapshot,
    heard: Option<&BTreeMap<HostName, u64>>,
) -> BTreeMap<HostName, u64> {
    let mut seen = BTreeMap::new();
    for (name, entry) in snapshot.under("alive/") {
        let Ok(host) = name.parse::<HostName>() else {
            continue;
        };
        let is_news = heard.is_some_and(|heard| heard.get(&host) != Some(&entry.revision));
        if let (true, Ok(record)) = (is_news, entry.decode::<AliveRecord>())
            && record.clock > 0
        {
            clocks.set(host.clone(), offset(record.clock, now()));
        }
        seen.insert(host, entry.revision);
    }
    seen
}

fn offset(theirs: u64, ours: u64) -> i64 {
    let (theirs, ours) = (i64::try_from(theirs), i64::try_from(ours));
    let offset = theirs.unwrap_or(i64::MAX).saturating_sub(ours.unwrap_or(0));
    // Both are cut to whole seconds, and the change has travelled.
    if offset.abs() <= 1 { 0 } else { offset }
}

#[cfg(test)]
mod tests {
    use drover_store::Entry;

    use super::*;

    fn alive(clock: u64, revision: u64) -> Snapshot {
        Snapshot::of(vec![Entry {
            key: "alive/b".to_owned(),
            value: format!(r#"{{"member":"m","since":1,"clock":{clock}}}"#).into_bytes(),
            revision,
        }])
    }

    #[test]
    fn a_clock_counts_when_it_was_just_written() {
        let clocks = Clocks::default();
        let heard = listen(&clocks, &alive(now() - 3600, 1), None);
        assert!(clocks.offsets().is_empty());
        let heard = listen(&clocks, &alive(now() - 3600, 1), Some(&heard));
        assert!(clocks.offsets().is_empty());
        listen(&clocks, &alive(now() + 600, 2), Some(&heard));
        let offset = clocks.offsets()[&"b".parse().unwrap()];
        assert!((599..=600).contains(&offset), "{offset}");
    }
}
