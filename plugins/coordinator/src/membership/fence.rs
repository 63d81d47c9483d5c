//! Notices at once that this host was removed from its cluster.

use drover_control_api::record::HostRecord;
use drover_model::HostName;
use tokio::sync::watch;

use crate::mirror::Snapshot;

/// Sets `fenced` when the cluster no longer has this member; returns then, or when nothing comes any
/// more. Only for a host in a cluster: there, its record was made before it had the store.
pub(super) async fn watch(
    mut cluster: watch::Receiver<Snapshot>,
    fenced: &watch::Sender<bool>,
    host: &HostName,
    member: &str,
) {
    loop {
        let removed = is_removed(&cluster.borrow_and_update(), host, member);
        if removed {
            if !fenced.send_replace(true) {
                tracing::error!(
                    %host,
                    "this host was removed from its cluster: it gives out no new addresses; `drover leave` \
                     ends that"
                );
            }
            return;
        }
        if cluster.changed().await.is_err() {
            return;
        }
    }
}

/// Whether the store, which has been read, has no such member. A record that cannot be read proves
/// nothing, and neither does an etcd that has lost the cluster altogether.
fn is_removed(cluster: &Snapshot, host: &HostName, member: &str) -> bool {
    if !cluster.is_complete() || cluster.entry("cluster").is_none() {
        return false;
    }
    let key = format!("hosts/{host}");
    match cluster.entry(&key) {
        None => true,
        Some(entry) => entry
            .decode::<HostRecord>()
            .is_ok_and(|record| record.member != member),
    }
}

#[cfg(test)]
mod tests {
    use drover_store::Entry;

    use super::*;

    const RECORD: &str = r#"{"version":1,"name":"web","member":"mine","index":1,
        "advertise":"192.0.2.1","link":null,"underlay_mtu":1500,"prefixes":[],"software":"",
        "joined_at":0}"#;

    fn snapshot(key: &str, value: &str) -> Snapshot {
        let value = value.as_bytes().to_vec();
        let entry = |key: &str, value| Entry {
            key: key.to_owned(),
            value,
            revision: 1,
        };
        Snapshot::of(vec![entry("cluster", Vec::new()), entry(key, value)])
    }

    #[test]
    fn gone_or_another_means_removed_and_nothing_else_does() {
        let host = "web".parse().unwrap();
        assert!(!is_removed(&snapshot("hosts/web", RECORD), &host, "mine"));
        assert!(is_removed(
            &snapshot("hosts/web", RECORD),
            &host,
            "an earlier one"
        ));
        assert!(is_removed(&snapshot("hosts/web-2", RECORD), &host, "mine"));
        assert!(!is_removed(
            &snapshot("hosts/web", "{\"version\":2}"),
            &host,
            "mine"
        ));
        assert!(
            !is_removed(&Snapshot::default(), &host, "mine"),
            "the store was not read yet"
        );
    }

    #[tokio::test]
    async fn the_flag_is_set_when_the_record_goes() {
        let host = "web".parse().unwrap();
        let (cluster, receiver) = watch::channel(Snapshot::default());
        let fenced = watch::Sender::new(false);
        let mut flag = fenced.subscribe();
        let watching = tokio::spawn(async move { watch(receiver, &fenced, &host, "mine").await });
        cluster.send_replace(snapshot("hosts/web", RECORD));
        tokio::task::yield_now().await;
        assert!(!*flag.borrow());
        cluster.send_replace(snapshot("hosts/other", RECORD));
        let limit = std::time::Duration::from_secs(10);
        tokio::time::timeout(limit, flag.wait_for(|fenced| *fenced))
            .await
            .unwrap()
            .unwrap();
        watching.await.unwrap();
    }
}
