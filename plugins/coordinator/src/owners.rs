//! Who has made what, on all hosts: written by each host's `drover-authz` for its own, and told to it with what other hosts know of
//! copies of the same networks.
//!
//! This process decides nothing by it, and looks at none of it but networks.

use std::collections::BTreeMap;

use drover_control_api::owners::{
    Owned, OwnedKind, OwnerRecord, OwnersEvent, Ownership, RecordOwners,
};
use drover_control_api::record::{CopyRecord, NetworkRecord};
use drover_control_api::{Empty, Failure};
use drover_http::Response;
use drover_model::HostName;
use drover_store::Transaction;
use tokio::sync::watch;

use crate::context::{Context, store_failure};
use crate::lines::{Gone, Pieces, SIGN_OF_LIFE};
use crate::mirror::Snapshot;

/// Where the records are: `owners/<host>/<kind>/<id>`.
pub(crate) const OWNERS: &str = "owners/";

/// Writes down what a host says of its own.
///
/// # Errors
/// When this host was removed from its cluster, or the store does not answer.
pub async fn record(context: &Context, told: RecordOwners) -> Result<Empty, Failure> {
    context.refuse_when_fenced()?;
    let mut batch = Transaction::new();
    for ownership in told.owned {
        batch = context.with_room(batch).await?;
        let key = key(context.host(), &ownership.owned);
        let record = OwnerRecord {
            version: 1,
            member: context.member().to_owned(),
            ownership,
        };
        let put = batch.put_record(key, &record);
        batch = put.map_err(|error| store_failure(&error))?;
    }
    for owned in told.gone {
        let key = key(context.host(), &owned);
        batch = context.with_room(batch).await?.delete(key);
    }
    context.commit_own(batch).await?;
    Ok(Empty {})
}

fn key(host: &HostName, owned: &Owned) -> String {
    format!("{OWNERS}{host}/{}/{}", owned.kind.name(), owned.id)
}

/// Tells what has owners on this host, and again whenever that is something else.
#[must_use]
pub fn stream(context: &Context) -> Response {
    let (pieces, response) = Pieces::stream();
    let cluster = context.cluster.clone();
    let (host, member) = (context.host().clone(), context.member().to_owned());
    // It ends when nobody listens; the response ends with it, at a stop.
    drover_daemon::task::spawn("owners stream", async move {
        // Its only failure is that nobody listens any more.
        drop(follow(cluster, &host, &member, pieces).await);
    });
    response
}

async fn follow(
    mut cluster: watch::Receiver<Snapshot>,
    host: &HostName,
    member: &str,
    mut pieces: Pieces,
) -> Result<(), Gone> {
    let mut told = None;
    loop {
        let snapshot = cluster.borrow_and_update().clone();
        let now = snapshot
            .is_complete()
            .then(|| owned(&snapshot, host, member));
        if let Some(now) = now
            && told.as_ref() != Some(&now)
        {
            pieces.event(&OwnersEvent::Reset).await?;
            for event in &now {
                pieces.event(event).await?;
            }
            pieces.event(&OwnersEvent::Synced).await?;
            pieces.flush().await?;
            told = Some(now);
        }
        // Each arm is cancel-safe.
        tokio::select! {
            changed = cluster.changed() => changed.map_err(|_closed| Gone)?,
            () = pieces.closed() => return Err(Gone),
            () = tokio::time::sleep(SIGN_OF_LIFE) => pieces.sign_of_life().await?,
        }
    }
}

fn owned(snapshot: &Snapshot, host: &HostName, member: &str) -> Vec<OwnersEvent> {
    let prefix = format!("{OWNERS}{host}/");
    let records = snapshot.records::<OwnerRecord>(&prefix);
    let recorded = records
        .filter(|(_, record)| record.member == member)
        .map(|(_, record)| OwnersEvent::Recorded(record.ownership));
    let copies = copies(snapshot, host);
    recorded
        .chain(copies.into_iter().map(OwnersEvent::Copy))
        .collect()
}

/// The copies that this host has of networks which have an owner on another.
fn copies(snapshot: &Snapshot, host: &HostName) -> Vec<Ownership> {
    let mut networks: BTreeMap<&str, Vec<(&str, CopyRecord)>> = BTreeMap::new();
    for (rest, copy) in snapshot.records::<CopyRecord>("copies/") {
        if let Some((network, on)) = rest.split_once('/') {
            networks.entry(network).or_default().push((on, copy));
        }
    }
    let owned = networks.into_iter().filter_map(|(network, mut copies)| {
        let (_, ours) = copies.iter().find(|(on, _)| *on == host.as_str())?;
        let owned = Owned {
            kind: OwnedKind::Network,
            id: ours.network.as_str().to_owned(),
        };
        let record = snapshot.record::<NetworkRecord>(&format!("networks/{network}"))?;
        copies.sort_by_key(|(on, _)| *on != record.created_by.as_str());
        let owner = copies.iter().find_map(|(on, copy)| {
            let key = format!("{OWNERS}{on}/network/{}", copy.network.as_str());
            let record = snapshot.record::<OwnerRecord>(&key)?;
            Some(record.ownership.owner)
        });
        owner.map(|owner| Ownership { owned, owner })
    });
    owned.collect()
}

#[cfg(test)]
mod tests {
    use drover_store::Entry;

    use super::*;

    const NETWORK: &str = "0123456789abcdef";

    fn owner(host: &str, member: &str, kind: &str, id: &str, owner: &str) -> (String, String) {
        let value = format!(
            r#"{{"version":1,"member":"{member}","kind":"{kind}","id":"{id}","owner":"{owner}"}}"#
        );
        (format!("owners/{host}/{kind}/{id}"), value)
    }

    fn copy(host: &str, id: &str) -> (String, String) {
        (
            format!("copies/{NETWORK}/{host}"),
            format!(r#"{{"network":"{id}"}}"#),
        )
    }

    fn snapshot(entries: Vec<(String, String)>) -> Snapshot {
        let entries = entries.into_iter().map(|(key, value)| Entry {
            key,
            value: value.into_bytes(),
            revision: 1,
        });
        Snapshot::of(entries.collect())
    }

    fn network() -> (String, String) {
        let value = format!(
            r#"{{"version":1,"id":"{NETWORK}","name":"app","subnets":[],"labels":{{}},"options":{{}},"internal":false,
                "attachable":false,"ipv6":false,"encryption":"off","created_by":"b","created_at":0,"state":{{"is":"active"}}}}"#
        );
        (format!("networks/{NETWORK}"), value)
    }

    #[test]
    fn a_copy_belongs_to_who_owns_the_network() {
        let (ours, theirs, third) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
        let host = "a".parse().unwrap();
        let told = |entries| {
            let events = owned(&snapshot(entries), &host, "m").into_iter();
            let rows = events.map(|event| match event {
                OwnersEvent::Recorded(each) => ("recorded", each.owned.id, each.owner),
                OwnersEvent::Copy(each) => ("copy", each.owned.id, each.owner),
                OwnersEvent::Reset | OwnersEvent::Synced => unreachable!(),
            });
            rows.collect::<Vec<_>>()
        };
        let row = |what, id: &str, owner: &str| (what, id.to_owned(), owner.to_owned());
        let mut entries = vec![
            network(),
            copy("a", &ours),
            copy("b", &theirs),
            copy("c", &third),
            owner("a", "m", "volume", "data", "ann"),
            owner("a", "earlier", "volume", "old", "ann"),
            owner("c", "x", "network", &third, "eve"),
        ];
        let data = row("recorded", "data", "ann");
        assert_eq!(
            told(entries.clone()),
            [data.clone(), row("copy", &ours, "eve")]
        );
        // Who made it comes first.
        entries.push(owner("b", "y", "network", &theirs, "bob"));
        assert_eq!(told(entries), [data, row("copy", &ours, "bob")]);
    }
}
