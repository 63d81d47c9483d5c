//! Cut off in the middle, at any moment, on any side.

use std::time::Duration;

use drover_control_api::FailureKind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cluster::{Host, Running, SOON, put, text, until};
use crate::context::StoreKind;

#[tokio::test(flavor = "multi_thread")]
async fn an_init_that_is_cut_off_leaves_the_host_alone_or_first_and_never_between() {
    let host = Host::new("first", 1);
    let mut moment = Duration::from_millis(1);
    let mut cuts = 0;
    loop {
        let alone = host.open().await;
        assert_eq!(alone.kind, StoreKind::Embedded);
        assert_eq!(host.etcd(), None, "a start clears away what was left");
        put(&alone.store, &format!("cut/{cuts}"), "x").await;
        let done = tokio::time::timeout(moment, host.init(&alone, &[])).await;
        if let Ok(made) = done {
            made.unwrap();
            break;
        }
        assert!(host.cluster().is_none(), "the file is the last thing");
        assert!(moment < SOON);
        cuts += 1;
        moment = moment * 3 / 2;
    }
    assert!(cuts > 3, "{cuts}");
    let there = host.open().await;
    assert_eq!(
        there.store.list("cut/").await.unwrap().entries.len(),
        cuts + 1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_is_cut_off_is_gone_on_with_by_the_same_command() {
    let running = Running::start("first").await;
    let second = Host::new("second", 2);
    let mut moment = Duration::from_micros(500);
    let mut cuts = 0;
    while let Err(_cut) = tokio::time::timeout(moment, second.join(&running.invitation)).await {
        assert!(second.cluster().is_none());
        drop(second.open().await);
        cuts += 1;
        moment = moment * 5 / 4;
    }
    assert!(cuts > 3, "{cuts}");
    assert_eq!(running.hosts().await, ["first", "second"]);
    assert_eq!(second.open().await.cluster, running.membership.cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_cannot_use_the_store_is_undone() {
    let mut running = Running::start("first").await;
    // The first host tells of an etcd that cannot be reached.
    let mut file = running.host.cluster().unwrap();
    let right = file.endpoints.clone();
    file.endpoints = vec!["https://127.0.0.1:1".to_owned()];
    running.host.home.write_cluster(&file).unwrap();
    running.serve().await;
    let second = Host::new("second", 2);
    let refused = second.join(&running.invitation).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Unavailable);
    assert!(refused.message.contains("port is not blocked"), "{refused}");
    assert!(!refused.message.contains("undone"), "{refused}");
    assert_eq!(running.hosts().await, ["first"]);
    assert!(!second.state_file("pki"));
    file.endpoints = right;
    running.host.home.write_cluster(&file).unwrap();
    running.serve().await;
    second
        .join(&running.invitation)
        .await
        .expect("the token is good again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_starts_again_finds_its_etcd_and_lets_hosts_in() {
    let mut running = Running::start("first").await;
    let pid = running.host.etcd().expect("etcd runs");
    let before = running.invitation.clone();
    running.stop_serving().await;
    running.membership = running.host.open().await;
    assert_eq!(running.host.etcd(), Some(pid), "the same process");
    running.serve().await;
    let second = Host::new("second", 2);
    second.join(&before).await.unwrap();
    // The process id file may be lost: the crash came between start and write.
    std::fs::remove_file(running.host.home.etcd_dir().join("etcd.pid")).unwrap();
    running.membership = running.host.open().await;
    assert_eq!(running.host.etcd(), Some(pid), "the same process");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_that_dies_is_started_again_with_its_data() {
    let running = Running::start("first").await;
    let store = &running.membership.store;
    put(store, "kept", "x").await;
    let pid = running.host.etcd().expect("etcd runs");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until("another etcd answers", async || {
        running.host.etcd().is_some_and(|other| other != pid) && store.get("kept").await.is_ok()
    })
    .await;
    assert_eq!(text(store, "kept").await.as_deref(), Some("x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_an_init_says_which_package_is_missing() {
    let mut host = Host::new("first", 1);
    host.home.etcd_program = "/nonexistent/etcd".into();
    let alone = host.open().await;
    let refused = host.init(&alone, &[]).await.err().unwrap();
    assert_eq!(refused.kind, FailureKind::Unavailable);
    assert!(
        refused.message.contains("apt install etcd-server"),
        "{refused}"
    );
    assert!(host.cluster().is_none() && !host.state_file("pki") && !host.state_file("etcd"));
    put(&alone.store, "still", "usable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_whose_ports_are_taken_says_so_and_changes_nothing() {
    let host = Host::new("first", 1);
    let port = host.settings.cluster.etcd_client_port;
    let _taken = std::net::TcpListener::bind((host.address, port)).unwrap();
    let alone = host.open().await;
    let refused = host.init(&alone, &[]).await.err().unwrap();
    assert_eq!(refused.kind, FailureKind::Unavailable);
    assert!(
        refused.message.contains("address already in use"),
        "{refused}"
    );
    assert!(host.cluster().is_none() && host.etcd().is_none());
    put(&alone.store, "still", "usable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_exists_is_used_and_one_of_another_cluster_refused() {
    // Somebody's etcd, without TLS: here, one that another test host would run.
    let given = Given::start().await;
    let endpoints = [given.endpoint.clone()];
    let first = Host::new("first", 1);
    let alone = first.open().await;
    put(&alone.store, "pools/1", "x").await;
    let invitation = first.init(&alone, &endpoints).await.unwrap();
    assert_eq!(first.etcd(), None, "none of ours is started");
    drop(alone);
    let mut running = Running::of(first, Host::new("unused", 9).open().await, invitation);
    running.membership = running.host.open().await;
    running.serve().await;
    assert_eq!(running.membership.store.endpoints(), endpoints);
    let second = Host::new("second", 2);
    second.join(&running.invitation).await.unwrap();
    assert_eq!(
        text(&second.open().await.store, "pools/1").await.as_deref(),
        Some("x")
    );

    let stranger = Host::new("stranger", 4);
    let alone = stranger.open().await;
    let refused = stranger.init(&alone, &endpoints).await.err().unwrap();
    assert_eq!(refused.kind, FailureKind::Conflict);
    assert!(
        refused.message.contains(&running.membership.cluster),
        "{refused}"
    );
    let refused = stranger
        .init(&alone, &["192.0.2.1:2379".to_owned()])
        .await
        .err()
        .unwrap();
    assert!(refused.message.contains("not a URL"), "{refused}");
    let refused = stranger
        .init(&alone, &["https://192.0.2.1:2379".to_owned()])
        .await
        .err()
        .unwrap();
    assert!(refused.message.contains("etcd-tls/ca.pem"), "{refused}");
    assert!(stranger.cluster().is_none());

    second
        .leave(&second.open().await.store, false)
        .await
        .unwrap();
    running
        .host
        .leave(&running.membership.store, false)
        .await
        .unwrap();
    let raw = drover_store::Store::connect_etcd(drover_store::EtcdConfig {
        endpoints: endpoints.to_vec(),
        prefix: String::new(),
        ..Default::default()
    });
    let left = raw.await.unwrap().list("").await.unwrap().entries;
    assert!(left.is_empty(), "{left:?}");
}

/// An etcd that is not Drover's.
struct Given {
    process: std::process::Child,
    endpoint: String,
    _dir: tempfile::TempDir,
}

impl Given {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new("ports", 9);
        let [client, peer] = [
            host.settings.cluster.etcd_client_port,
            host.settings.cluster.etcd_peer_port,
        ]
        .map(|port| format!("http://127.0.0.1:{port}"));
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let process = std::process::Command::new("etcd")
            .arg(format!("--data-dir={}", dir.path().join("data").display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"))
            .stderr(log)
            .spawn()
            .unwrap();
        let given = Self {
            process,
            endpoint: client,
            _dir: dir,
        };
        let config = drover_store::EtcdConfig {
            endpoints: vec![given.endpoint.clone()],
            ..Default::default()
        };
        let store = drover_store::Store::connect_etcd(config).await.unwrap();
        until("the given etcd answers", async || {
            store.get("x").await.is_ok()
        })
        .await;
        given
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
