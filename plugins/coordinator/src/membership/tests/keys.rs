//! Keys for encrypted traffic, from one host to the other by a real store.

use std::sync::Arc;
use std::time::Duration;

use drover_control_api::coordinator::PublishKey;
use drover_control_api::fabric::{FabricEvent, PeerKey};
use drover_control_api::record::KeyRecord;
use drover_control_api::{Failure, FailureKind};
use drover_engine::Engine;
use drover_http::{Body, Client};
use drover_pki::{HostKey, Subject};
use drover_store::Transaction;
use drover_store::local::Database;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::cluster::{Host, Running, put, removal_from, until};
use crate::context::{Context, now};
use crate::fabric;
use crate::keys::{self, Keys};
use crate::membership::renewal;
use crate::mirror::{self, Snapshot};

/// A coordinator's keys, with what they need.
struct Coordinator {
    context: Arc<Context>,
    tasks: Vec<JoinHandle<()>>,
    /// What runs stops when it is gone.
    _stop: watch::Sender<bool>,
}

impl Coordinator {
    async fn start(host: &Host) -> Self {
        let membership = host.open().await;
        let database = Database::open(host.settings.state_dir.join("coordinator.redb")).unwrap();
        let cluster = Arc::new(watch::Sender::new(Snapshot::default()));
        let context = Arc::new(Context {
            cluster: cluster.subscribe(),
            engine: Engine::new("unix:///nonexistent").unwrap(),
            ipam: Client::unix("/nonexistent"),
            network: Client::unix("/nonexistent"),
            keys: Keys::open(&database).unwrap(),
            fenced: watch::Sender::new(false),
            restart: watch::Sender::new(false),
            membership,
            settings: host.settings.clone(),
        });
        let (stop, stopped) = watch::channel(false);
        let mirror = mirror::run(context.store().clone(), cluster, stopped.clone());
        let keys = keys::serve(context.clone(), stopped);
        let tasks = vec![tokio::spawn(mirror), tokio::spawn(keys)];
        Self {
            context,
            tasks,
            _stop: stop,
        }
    }

    async fn stop(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            drop(task.await);
        }
    }

    async fn publish(&self, generation: u64, public: u8) -> Result<(), Failure> {
        self.publish_with(generation, public, 1).await
    }

    async fn publish_with(&self, generation: u64, public: u8, lanes: u8) -> Result<(), Failure> {
        let request = PublishKey {
            generation,
            public: [public; 32],
            lanes,
            udp_port: None,
        };
        keys::publish(&self.context, request).await.map(drop)
    }

    async fn next(&self) -> u64 {
        let next = keys::next_generation(&self.context).await.unwrap();
        next.generation
    }

    fn key(&self, host: &str) -> Option<PeerKey> {
        let view = self.context.keys.view().borrow().clone();
        view.keys.get(&host.parse().unwrap()).cloned()
    }

    /// Waits until the key of the host is this generation; `None` for no key.
    async fn sees(&self, host: &str, generation: Option<u64>) {
        until(
            &format!("generation {generation:?} of {host}"),
            async || self.key(host).map(|key| key.generation) == generation,
        )
        .await;
    }

    async fn record(&self, host: &str) -> KeyRecord {
        let found = self
            .context
            .store()
            .get_record(&format!("keys/{host}"))
            .await;
        found.unwrap().unwrap().0
    }

    async fn write(&self, host: &str, record: &KeyRecord) {
        let write = Transaction::new().put_record(format!("keys/{host}"), record);
        let written = self.context.store().commit(write.unwrap()).await.unwrap();
        assert!(written.is_committed());
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What the fabric stream says first.
async fn first_lines(coordinator: &Coordinator) -> Vec<FabricEvent> {
    let Body::Stream(mut pieces) = fabric::stream(&coordinator.context).body else {
        panic!("it is no stream");
    };
    let mut text = Vec::new();
    until("all is said", async || {
        text.extend(pieces.recv().await.unwrap());
        text.ends_with(b"{\"event\":\"synced\"}\n")
    })
    .await;
    let text = String::from_utf8(text).unwrap();
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_alone_has_nobody_to_publish_for() {
    let alone = Coordinator::start(&Host::new("alone", 1)).await;
    let refused = alone.publish(1, 1).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::NotFound);
    assert!(refused.message.contains("alone"), "{refused}");
    let refused = keys::next_generation(&alone.context).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::NotFound);
    let mut view = alone.context.keys.view();
    view.wait_for(|view| view.is_complete).await.unwrap();
    assert!(alone.context.keys.findings().is_empty());
    assert!(first_lines(&alone).await.ends_with(&[FabricEvent::Synced]));
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_follow_each_other_and_reach_every_host() {
    let running = Running::start("first").await;
    let second = Host::new("second", 2);
    second.join(&running.invitation).await.unwrap();
    let here = Coordinator::start(&running.host).await;
    let there = Coordinator::start(&second).await;
    assert_eq!(there.next().await, 1);
    for wrong in [0, 2, u64::MAX] {
        let refused = there.publish(wrong, 1).await.unwrap_err();
        assert_eq!(refused.kind, FailureKind::Conflict, "{refused}");
        assert!(refused.message.contains("next one is 1"), "{refused}");
    }
    let refused = there.publish_with(1, 1, 9).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::InvalidInput);

    there.publish(1, 1).await.unwrap();
    here.sees("second", Some(1)).await;
    there.sees("second", Some(1)).await;
    here.publish(1, 7).await.unwrap();
    there.sees("first", Some(1)).await;
    assert_eq!(there.key("first").unwrap().public, [7; 32]);
    there
        .publish(1, 1)
        .await
        .expect("the answer may have been lost");
    let refused = there.publish(1, 2).await.unwrap_err();
    assert_eq!(
        refused.kind,
        FailureKind::Conflict,
        "a generation has one key"
    );
    there
        .publish_with(1, 1, 4)
        .await
        .expect("the same key, more lanes");
    until("four lanes", async || {
        here.key("second").is_some_and(|key| key.lanes == 4)
    })
    .await;
    // A watcher that comes now hears of all keys before `Synced`.
    let mut heard = first_lines(&there).await;
    assert_eq!(heard.pop(), Some(FabricEvent::Synced));
    let FabricEvent::Reset { cluster, .. } = heard.remove(0) else {
        panic!("{heard:?}");
    };
    assert_eq!(cluster, running.membership.cluster);
    for host in ["first", "second"] {
        let key = FabricEvent::Key(there.key(host).unwrap());
        assert!(heard.contains(&key), "{heard:?}");
    }
    assert_eq!(there.next().await, 2);
    there.publish(2, 2).await.unwrap();
    here.sees("second", Some(2)).await;

    // The coordinator starts again, on a store that was put back to an earlier state.
    let old = there.record("second").await;
    there.publish(3, 3).await.unwrap();
    here.sees("second", Some(3)).await;
    there.stop().await;
    here.write("second", &old).await;
    until("the replay is told", async || {
        let findings = here.context.keys.findings();
        findings
            .iter()
            .any(|finding| finding.problem.contains("host `second`"))
    })
    .await;
    assert_eq!(
        here.key("second").unwrap().generation,
        3,
        "the newer one stays"
    );
    let there = Coordinator::start(&second).await;
    assert_eq!(there.next().await, 4);
    there.publish(4, 4).await.unwrap();
    here.sees("second", Some(4)).await;
    assert!(here.context.keys.findings().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_writes_does_not_last() {
    let running = Running::start("first").await;
    let second = Host::new("second", 2);
    second.join(&running.invitation).await.unwrap();
    let here = Coordinator::start(&running.host).await;
    let there = Coordinator::start(&second).await;
    there.publish(1, 1).await.unwrap();
    let old = there.record("second").await;
    there.publish(2, 2).await.unwrap();
    here.publish(1, 7).await.unwrap();
    there.sees("first", Some(1)).await;
    here.sees("second", Some(2)).await;
    let good = there.record("second").await;
    let store = here.context.store();
    let mut forged = here.record("first").await;
    forged.host = "second".parse().unwrap();
    forged.member.clone_from(&good.member);
    forged.generation = 3;
    let writes = [
        serde_json::to_string(&old).unwrap(),
        serde_json::to_string(&forged).unwrap(),
        "{\"version\":1".to_owned(),
        "x".repeat(1 << 19),
    ];
    for written in writes {
        put(store, "keys/second", &written).await;
        until("the host has put it right", async || {
            store
                .get_record::<KeyRecord>("keys/second")
                .await
                .is_ok_and(|found| {
                    found.is_some_and(|(record, _)| {
                        record.generation == 2 && record.public == [2; 32]
                    })
                })
        })
        .await;
        here.sees("second", Some(2)).await;
        assert!(
            !here
                .context
                .keys
                .view()
                .borrow()
                .keys
                .values()
                .any(|key| key.generation == 3)
        );
    }
    let gone = Transaction::new().delete("keys/second");
    assert!(store.commit(gone).await.unwrap().is_committed());
    here.sees("second", Some(2)).await;
    until("nothing is wrong", async || {
        here.context.keys.findings().is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_comes_with_the_same_key() {
    let lifetime = Duration::from_secs(3600);
    let running = Running::start_on(Host::new("first", 1).with_certificates_for(lifetime)).await;
    let second = Host::new("second", 2);
    second.join(&running.invitation).await.unwrap();
    let here = Coordinator::start(&running.host).await;
    let there = Coordinator::start(&second).await;
    there.publish(1, 1).await.unwrap();
    here.sees("second", Some(1)).await;
    let before = there.record("second").await;

    let file = second.cluster().unwrap();
    let due = second.home.certificate().unwrap().unwrap().renew_at();
    renewal::renew_if_due(&second.home, &file, there.context.store(), due)
        .await
        .unwrap();
    there.context.keys.certificate_renewed();
    until("the record has the new certificate", async || {
        there.record("second").await.certificate != before.certificate
    })
    .await;
    let after = there.record("second").await;
    assert_eq!(PeerKey::from(after.clone()), PeerKey::from(before));
    let current = second.home.certificate().unwrap().unwrap();
    assert_eq!(after.certificate, current.pem());
    assert!(!serde_json::to_string(&after).unwrap().contains("PRIVATE"));
    here.sees("second", Some(1)).await;
    assert!(here.context.keys.findings().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_host_publishes_nothing_and_its_namesake_begins_anew() {
    let running = Running::start("first").await;
    let second = Host::new("second", 2);
    second.join(&running.invitation).await.unwrap();
    let here = Coordinator::start(&running.host).await;
    let there = Coordinator::start(&second).await;
    there.publish(1, 1).await.unwrap();
    there.publish(2, 2).await.unwrap();
    here.sees("second", Some(2)).await;
    let old = there.record("second").await;
    removal_from(&running.membership.store)
        .remove(&"second".parse().unwrap())
        .await
        .unwrap();
    here.sees("second", None).await;
    // Before it has noticed anything.
    let refused = there.publish(3, 3).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Denied, "{refused}");
    there.context.fenced.send_replace(true);
    let refused = there.publish(3, 3).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Denied, "{refused}");

    let namesake = Host::new("second", 3);
    // What is left is not the namesake's.
    here.write("second", &old).await;
    namesake.join(&running.token().await).await.unwrap();
    let anew = Coordinator::start(&namesake).await;
    assert_eq!(anew.next().await, 1);
    here.write("second", &old).await;
    assert_eq!(
        anew.next().await,
        1,
        "a record of another member does not count"
    );
    anew.publish(1, 9).await.unwrap();
    here.sees("second", Some(1)).await;
    assert_ne!(here.key("second").unwrap().member, old.member);

    let left = namesake.leave(anew.context.store(), false).await;
    left.unwrap();
    here.sees("second", None).await;
    let listing = running.membership.store.list("keys/").await.unwrap();
    assert!(listing.entries.is_empty(), "{listing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_does_not_name_the_member_is_replaced_at_once() {
    let running = Running::start("first").await;
    let (home, file) = (&running.host.home, running.host.cluster().unwrap());
    let authority = home.authority().unwrap();
    let key = HostKey::generate().unwrap();
    let subject = Subject {
        name: "first".to_owned(),
        member: "not mine".to_owned(),
        aliases: Vec::new(),
        addresses: vec![running.host.address],
    };
    let request = key.request("first").unwrap();
    let lifetime = Duration::from_secs(3600);
    let other = authority.sign(&request, &subject, now(), lifetime).unwrap();
    home.write_identity(other.pem(), &key.pem(), authority.certificate().pem())
        .unwrap();
    let first = Coordinator::start(&running.host).await;
    let refused = first.publish(1, 1).await.unwrap_err();
    assert_eq!(
        refused.kind,
        FailureKind::Unavailable,
        "nobody would believe it"
    );
    renewal::renew_if_due(home, &file, first.context.store(), now())
        .await
        .unwrap();
    let renewed = home.certificate().unwrap().unwrap();
    assert_eq!(renewed.member(), Some(file.member.as_str()));
    first.publish(1, 1).await.unwrap();
    first.sees("first", Some(1)).await;
}
