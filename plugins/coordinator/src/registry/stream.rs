//! The registry stream: hosts and containers, all of them first and then as they change.
//!
//! A stream remembers what it has sent, and after each change of the store it sends the difference: a
//! slow watcher gets fewer changes, never a wrong end.
//!
//! While the store did not answer no host could give a sign of life, and a store that runs on ends their leases all the
//! same. So hosts that counted as alive before count as alive until they have had the time to give one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drover_control_api::record::{AliveRecord, HostRecord};
use drover_control_api::registry::{ContainerRecord, RegistryEvent};
use drover_http::Response;
use drover_model::HostName;
use tokio::sync::watch;
use tokio::time::Instant;

use super::CONTAINERS;
use crate::context::Context;
use crate::lines::{Gone, Pieces, SIGN_OF_LIFE};
use crate::mirror::Snapshot;

/// Begins a stream.
#[must_use]
pub fn stream(context: &Arc<Context>) -> Response {
    let (pieces, response) = Pieces::stream();
    let lease = context.settings.cluster.host_lease;
    let watcher = Watcher::new(context.host().clone(), lease, pieces);
    let cluster = context.cluster.clone();
    // It ends when nobody listens; the response ends with the watcher, at a stop.
    drover_daemon::task::spawn("registry stream", async move {
        // Its only failure is that nobody listens any more.
        drop(watcher.follow(cluster).await);
    });
    response
}

struct Watcher {
    this_host: HostName,
    pieces: Pieces,
    begun: bool,
    /// Member and life of each host as they were sent.
    hosts: BTreeMap<HostName, (String, bool)>,
    /// The revision of each container's key as it was sent.
    containers: BTreeMap<String, u64>,
    stale_since: Option<u64>,
    /// How long a host has to give a sign of life.
    lease: Duration,
    /// Until when nobody is told to be gone, after the store was away.
    grace: Option<Instant>,
}

impl Watcher {
    const fn new(this_host: HostName, lease: Duration, pieces: Pieces) -> Self {
        Self {
            this_host,
            lease,
            grace: None,
            pieces,
            begun: false,
            hosts: BTreeMap::new(),
            containers: BTreeMap::new(),
            stale_since: None,
        }
    }

    async fn follow(mut self, mut cluster: watch::Receiver<Snapshot>) -> Result<(), Gone> {
        loop {
            let snapshot = cluster.borrow_and_update().clone();
            if snapshot.is_complete() {
                self.tell(&snapshot).await?;
            }
            let grace = self.grace;
            // Each arm is cancel-safe.
            tokio::select! {
                () = ends(grace) => self.grace = None,
                changed = cluster.changed() => changed.map_err(|_closed| Gone)?,
                () = self.pieces.closed() => return Err(Gone),
                () = tokio::time::sleep(SIGN_OF_LIFE) => self.pieces.sign_of_life().await?,
            }
        }
    }

    /// Says what has changed: a container comes after its host.
    async fn tell(&mut self, snapshot: &Snapshot) -> Result<(), Gone> {
        let begins = !self.begun;
        self.begun = true;
        if begins {
            let this_host = self.this_host.clone();
            self.pieces
                .event(&RegistryEvent::Reset { this_host })
                .await?;
        }
        self.staleness(snapshot).await?;
        self.hosts(snapshot).await?;
        self.containers(snapshot).await?;
        if begins {
            self.pieces.event(&RegistryEvent::Synced).await?;
        }
        self.pieces.flush().await
    }

    async fn staleness(&mut self, snapshot: &Snapshot) -> Result<(), Gone> {
        let since = snapshot.problem_since;
        if self.stale_since == since {
            return Ok(());
        }
        self.grace = since.is_none().then(|| Instant::now() + self.lease);
        self.stale_since = since;
        let since = since.unwrap_or(0);
        self.pieces.event(&RegistryEvent::Stale { since }).await
    }

    async fn hosts(&mut self, snapshot: &Snapshot) -> Result<(), Gone> {
        let mut now = hosts(snapshot, &self.this_host);
        let is_excused = self.stale_since.is_some() || self.grace.is_some();
        for (name, (member, alive)) in now.iter_mut().filter(|_| is_excused) {
            *alive |= self.hosts.get(name) == Some(&(member.clone(), true));
        }
        for name in self.hosts.keys().filter(|name| !now.contains_key(*name)) {
            let name = name.clone();
            self.pieces.event(&RegistryEvent::HostGone { name }).await?;
        }
        for (name, (member, alive)) in &now {
            let known = self.hosts.get(name);
            if known == Some(&(member.clone(), *alive)) {
                continue;
            }
            let event = RegistryEvent::Host {
                name: name.clone(),
                member: member.clone(),
                alive: *alive,
            };
            self.pieces.event(&event).await?;
        }
        self.hosts = now;
        Ok(())
    }

    async fn containers(&mut self, snapshot: &Snapshot) -> Result<(), Gone> {
        let mut gone = Vec::new();
        self.containers.retain(|rest, _| {
            let is_there = snapshot.entry(&format!("{CONTAINERS}{rest}")).is_some();
            if !is_there {
                gone.push(rest.clone());
            }
            is_there
        });
        for rest in gone {
            if let Some(event) = absence(&rest) {
                self.pieces.event(&event).await?;
            }
        }
        for (rest, entry) in snapshot.under(CONTAINERS) {
            if self.containers.get(rest) == Some(&entry.revision) {
                continue;
            }
            self.containers.insert(rest.to_owned(), entry.revision);
            // What is not what its place says would be somebody else's.
            if let Ok(record) = entry.decode::<ContainerRecord>()
                && rest == format!("{}/{}", record.host, record.id)
            {
                let event = RegistryEvent::Container(Box::new(record));
                self.pieces.event(&event).await?;
            }
        }
        Ok(())
    }
}

/// Waits for the end of a time, if there is one.
async fn ends(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Member and life of each host.
fn hosts(snapshot: &Snapshot, this_host: &HostName) -> BTreeMap<HostName, (String, bool)> {
    let records = snapshot.records::<HostRecord>("hosts/");
    let hosts = records.map(|(_, record)| {
        let key = format!("alive/{}", record.name);
        let sign = snapshot.record::<AliveRecord>(&key);
        let signs = sign.is_some_and(|sign| sign.member == record.member);
        let alive = signs || record.name == *this_host;
        (record.name, (record.member, alive))
    });
    hosts.collect()
}

fn absence(rest: &str) -> Option<RegistryEvent> {
    let (host, id) = rest.split_once('/')?;
    Some(RegistryEvent::ContainerGone {
        host: host.parse().ok()?,
        id: id.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use drover_store::Entry;
    use tokio::sync::mpsc;

    use super::*;

    const LEASE: Duration = Duration::from_secs(4);

    fn host(name: &str) -> (String, String) {
        let value = format!(
            r#"{{"version":1,"name":"{name}","member":"m-{name}","index":1,"advertise":"192.0.2.1",
                "link":null,"underlay_mtu":1500,"prefixes":[],"software":"","joined_at":0}}"#
        );
        (format!("hosts/{name}"), value)
    }

    fn alive(name: &str, member: &str) -> (String, String) {
        let value = format!(r#"{{"member":"{member}","since":1,"clock":1}}"#);
        (format!("alive/{name}"), value)
    }

    fn container(host: &str, id: &str) -> (String, String) {
        let value = format!(
            r#"{{"version":1,"id":"{id}","host":"{host}","member":"m-{host}","name":"n","service":null,
                "image":"i","labels":{{}},"state":"running","health":null,"started_at":1,"attachments":{{}},
                "ports":[]}}"#
        );
        (format!("containers/{host}/{id}"), value)
    }

    fn snapshot(entries: &[(String, String)]) -> Snapshot {
        let entry = |(key, value): &(String, String)| Entry {
            key: key.clone(),
            value: value.clone().into_bytes(),
            revision: 1,
        };
        Snapshot::of(entries.iter().map(entry).collect())
    }

    async fn told(
        watcher: &mut Watcher,
        receiver: &mut mpsc::Receiver<bytes::Bytes>,
        snapshot: &Snapshot,
    ) -> Vec<RegistryEvent> {
        watcher.tell(snapshot).await.unwrap();
        let mut text = Vec::new();
        while let Ok(piece) = receiver.try_recv() {
            text.extend_from_slice(&piece);
        }
        let lines = std::str::from_utf8(&text).unwrap().lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn named(name: &str, alive: bool) -> RegistryEvent {
        RegistryEvent::Host {
            name: name.parse().unwrap(),
            member: format!("m-{name}"),
            alive,
        }
    }

    #[tokio::test]
    async fn everything_is_told_first_and_then_the_differences() {
        let (pieces, mut receiver) = Pieces::channel();
        let mut watcher = Watcher::new("a".parse().unwrap(), LEASE, pieces);
        let mut entries = vec![
            host("a"),
            host("b"),
            alive("b", "m-b"),
            container("b", "c1"),
        ];
        let events = told(&mut watcher, &mut receiver, &snapshot(&entries)).await;
        let this_host = "a".parse().unwrap();
        assert_eq!(events[0], RegistryEvent::Reset { this_host });
        // This host counts as alive also while it cannot say so.
        assert_eq!(events[1..3], [named("a", true), named("b", true)]);
        assert!(matches!(&events[3], RegistryEvent::Container(record) if record.id == "c1"));
        assert_eq!(events[4..], [RegistryEvent::Synced]);
        assert_eq!(
            told(&mut watcher, &mut receiver, &snapshot(&entries)).await,
            []
        );

        // The host is silent: its record stays.
        entries.remove(2);
        let events = told(&mut watcher, &mut receiver, &snapshot(&entries)).await;
        assert_eq!(events, [named("b", false)]);
        // A sign of life of an earlier member counts for nothing.
        entries.push(alive("b", "earlier"));
        assert_eq!(
            told(&mut watcher, &mut receiver, &snapshot(&entries)).await,
            []
        );

        let events = told(&mut watcher, &mut receiver, &snapshot(&[host("a")])).await;
        let (name, id): (HostName, _) = ("b".parse().unwrap(), "c1".to_owned());
        let host = name.clone();
        let gone = RegistryEvent::ContainerGone { host, id };
        assert_eq!(events, [RegistryEvent::HostGone { name }, gone]);
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_makes_it_stale_until_it_does() {
        let (pieces, mut receiver) = Pieces::channel();
        let mut watcher = Watcher::new("a".parse().unwrap(), LEASE, pieces);
        let mut now = snapshot(&[host("a")]);
        told(&mut watcher, &mut receiver, &now).await;
        now.problem_since = Some(77);
        let events = told(&mut watcher, &mut receiver, &now).await;
        assert_eq!(events, [RegistryEvent::Stale { since: 77 }]);
        assert_eq!(told(&mut watcher, &mut receiver, &now).await, []);
        now.problem_since = None;
        let events = told(&mut watcher, &mut receiver, &now).await;
        assert_eq!(events, [RegistryEvent::Stale { since: 0 }]);
    }

    #[tokio::test]
    async fn after_the_store_was_away_hosts_have_time_to_give_a_sign_of_life() {
        let (pieces, mut receiver) = Pieces::channel();
        let mut watcher = Watcher::new("a".parse().unwrap(), LEASE, pieces);
        let mut now = snapshot(&[host("a"), host("b"), alive("b", "m-b")]);
        told(&mut watcher, &mut receiver, &now).await;
        now.problem_since = Some(77);
        told(&mut watcher, &mut receiver, &now).await;
        // The store is back, and has ended the lease meanwhile.
        let silent = snapshot(&[host("a"), host("b")]);
        let events = told(&mut watcher, &mut receiver, &silent).await;
        assert_eq!(events, [RegistryEvent::Stale { since: 0 }]);
        assert!(watcher.grace.is_some(), "it has time");
        // It has given none.
        watcher.grace = None;
        let events = told(&mut watcher, &mut receiver, &silent).await;
        assert_eq!(events, [named("b", false)]);
    }

    #[tokio::test]
    async fn a_record_in_the_place_of_another_is_not_told() {
        let (pieces, mut receiver) = Pieces::channel();
        let mut watcher = Watcher::new("a".parse().unwrap(), LEASE, pieces);
        let (_, value) = container("b", "c1");
        let misplaced = ("containers/a/c1".to_owned(), value);
        let events = told(&mut watcher, &mut receiver, &snapshot(&[misplaced])).await;
        assert_eq!(events.len(), 2, "{events:?}");
    }
}
