//! Who is let in, and who is not.

use std::os::unix::fs::PermissionsExt;

use drover_control_api::FailureKind;
use drover_control_api::coordinator::Invitation;
use drover_control_api::record::{HostRecord, TokenRecord};

use super::cluster::{Host, Running, files, put, text};
use crate::context::{StoreKind, now};
use crate::membership::renewal;

#[tokio::test(flavor = "multi_thread")]
async fn a_host_alone_becomes_a_cluster_and_another_joins_it() {
    let first = Host::new("first", 1);
    let alone = first.open().await;
    assert_eq!(alone.kind, StoreKind::Embedded);
    for number in 0..300 {
        put(
            &alone.store,
            &format!("pools/{number}"),
            &number.to_string(),
        )
        .await;
    }
    let invitation = first.init(&alone, &[]).await.unwrap();
    let refused = alone
        .store
        .commit(drover_store::Transaction::new().put("late", "x"))
        .await;
    assert!(
        refused.unwrap_err().is_unavailable(),
        "what comes after the copy would be lost"
    );
    let (cluster, member) = (alone.cluster.clone(), alone.member.clone());
    drop(alone);

    let membership = first.open().await;
    assert_eq!(membership.store.kind(), "etcd");
    assert_eq!(
        (&membership.cluster, &membership.member),
        (&cluster, &member)
    );
    assert_eq!(membership.advertise, Some(first.address));
    assert!(membership.certificate_expires_at.unwrap() > now() + 29 * 24 * 3600);
    assert_eq!(
        membership.store.list("pools/").await.unwrap().entries.len(),
        300
    );
    let record = membership
        .store
        .get_record::<HostRecord>("hosts/first")
        .await
        .unwrap()
        .unwrap()
        .0;
    assert_eq!(record.member, member);

    let mut running = Running::of(first, membership, invitation);
    running.serve().await;
    let second = Host::new("second", 2);
    let joined = second.join(&running.invitation).await.unwrap();
    assert_eq!(joined.cluster, cluster);
    assert_eq!(
        joined
            .hosts
            .iter()
            .map(|host| host.as_str())
            .collect::<Vec<_>>(),
        ["first", "second"]
    );
    let there = second.open().await;
    assert_eq!(text(&there.store, "pools/7").await.as_deref(), Some("7"));
    let record = there
        .store
        .get_record::<HostRecord>("hosts/second")
        .await
        .unwrap()
        .unwrap()
        .0;
    assert_eq!((record.index.get(), &record.member), (2, &there.member));
    assert_eq!(record.advertise, second.address);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_stay_on_their_host_and_secrets_out_of_the_store() {
    let running = Running::start("first").await;
    let second = Host::new("second", 2);
    second.join(&running.invitation).await.unwrap();
    for host in [&running.host, &second] {
        for (path, _) in files(&host.settings.state_dir) {
            // etcd makes its own files below a directory that only its owner can enter.
            if !path.contains("/etcd/data/") {
                let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{path}");
            }
        }
    }
    assert!(!second.state_file("pki/authority-key.pem"));
    assert!(!second.state_file("join.json"));
    let key = std::fs::read_to_string(second.home.identity_path()).unwrap();
    let key = key
        .split("PRIVATE KEY-----\n")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    for (path, content) in files(&running.host.settings.state_dir) {
        let found = content
            .windows(key.len())
            .any(|part| part == key.as_bytes());
        assert!(!found, "the second host's key is in {path}");
    }
    let listing = running.membership.store.list("").await.unwrap();
    assert!(
        listing
            .entries
            .iter()
            .any(|entry| entry.key.starts_with("tokens/"))
    );
    for entry in &listing.entries {
        let text = format!("{} {}", entry.key, String::from_utf8_lossy(&entry.value));
        assert!(
            !invites(&running.invitation, &text),
            "the store has the token itself"
        );
    }
}

fn invites(invitation: &Invitation, text: &str) -> bool {
    let token: drover_pki::Token = invitation.token.parse().unwrap();
    text.contains(&*token.secret()) || text.contains(&invitation.token)
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_no_good_are_refused_and_change_nothing() {
    let running = Running::start("first").await;
    let second = Host::new("second", 2);
    let before = running.membership.store.list("").await.unwrap().revision;

    let with = |token: &str| Invitation {
        token: token.to_owned(),
        ..running.invitation.clone()
    };
    let refused = second.join(&with("drover1.nonsense")).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::InvalidInput);
    assert!(refused.message.contains("mistyped"), "{refused}");
    let refused = second.join(&with("SWMTKN-1-x")).await.unwrap_err();
    assert!(refused.message.contains("not a join token"), "{refused}");

    let real: drover_pki::Token = running.invitation.token.parse().unwrap();
    let invented =
        drover_pki::Token::generate(&real.cluster(), real.authority(), real.expires_at()).unwrap();
    let refused = second.join(&with(&invented.encode())).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Denied);
    assert!(
        refused.message.contains("does not know the token"),
        "{refused}"
    );

    let other = "0123456789abcdef0123456789abcdef";
    let foreign = drover_pki::Token::generate(other, real.authority(), real.expires_at()).unwrap();
    let refused = second.join(&with(&foreign.encode())).await.unwrap_err();
    assert!(refused.message.contains("another cluster"), "{refused}");
    assert_eq!(
        running.membership.store.list("").await.unwrap().revision,
        before
    );

    let old = running.token_at(now() - 2 * 3600).await;
    let refused = second.join(&old).await.unwrap_err();
    assert!(
        refused.message.contains("expired 60 minutes ago"),
        "{refused}"
    );

    assert_eq!(running.hosts().await, ["first"]);
    assert!(second.cluster().is_none());
    assert!(!second.state_file("pki/host.pem"));

    second.join(&running.invitation).await.unwrap();
    let third = Host::new("third", 3);
    let refused = third.join(&running.invitation).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Denied);
    assert!(
        refused.message.contains("used by host `second`"),
        "{refused}"
    );
    assert_eq!(running.hosts().await, ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_is_not_believed() {
    let ours = Running::start("ours").await;
    let theirs = Running::start("theirs").await;
    let second = Host::new("second", 2);
    let misled = Invitation {
        address: theirs.invitation.address.clone(),
        ..ours.invitation.clone()
    };
    let refused = second.join(&misled).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Denied);
    assert!(refused.message.contains("another fingerprint"), "{refused}");
    // The secret was not shown to the stranger: the token is still good where it belongs.
    second.join(&ours.invitation).await.unwrap();
    assert_eq!(theirs.hosts().await, ["theirs"]);

    let third = Host::new("third", 3);
    let nowhere = Invitation {
        address: "127.0.0.1:1".to_owned(),
        ..ours.token().await
    };
    let refused = third.join(&nowhere).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Unavailable);
    assert!(refused.message.contains("127.0.0.1:1"), "{refused}");
    let odd = Invitation {
        address: "first".to_owned(),
        ..ours.token().await
    };
    let refused = third.join(&odd).await.unwrap_err();
    assert!(refused.message.contains("HOST:PORT"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_a_taken_name_and_a_taken_address_are_refused() {
    let running = Running::start("first").await;
    let second = Host::new("second", 2);
    for (clock, words) in [
        (now() + 3700, "61 minutes ahead"),
        (now() - 3700, "61 minutes behind"),
    ] {
        let refused = second
            .join_at(&running.invitation, clock, &[])
            .await
            .unwrap_err();
        assert_eq!(refused.kind, FailureKind::Denied);
        assert!(refused.message.contains(words), "{refused}");
    }
    let namesake = Host::new("first", 3);
    let refused = namesake.join(&running.invitation).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Conflict);
    assert!(
        refused.message.contains("drover host rm first"),
        "{refused}"
    );
    let neighbour = Host::new("neighbour", 1);
    let refused = neighbour.join(&running.invitation).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Conflict);
    assert!(
        refused.message.contains("is host `first`'s already"),
        "{refused}"
    );
    let busy = ["app".to_owned(), "db".to_owned()];
    let refused = second
        .join_at(&running.invitation, now(), &busy)
        .await
        .unwrap_err();
    assert!(refused.message.contains("(app, db)"), "{refused}");
    // None of them has used the token.
    second
        .join_at(&running.invitation, now() + 200, &[])
        .await
        .unwrap();
    let refused = second.join(&running.token().await).await.unwrap_err();
    assert!(refused.message.contains("drover leave"), "{refused}");
    assert_eq!(running.hosts().await, ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_hosts_at_once_get_different_indices() {
    let running = Running::start("first").await;
    let mut joins = Vec::new();
    for number in 2..10_u8 {
        let invitation = running.token().await;
        joins.push(tokio::spawn(async move {
            let host = Host::new(&format!("host-{number}"), number);
            host.join(&invitation).await.unwrap();
        }));
    }
    for join in joins {
        join.await.unwrap();
    }
    let hosts = crate::membership::hosts(&running.membership.store)
        .await
        .unwrap();
    let indices: std::collections::BTreeSet<_> =
        hosts.iter().map(|host| host.index.get()).collect();
    assert_eq!(indices, (1..=9).collect());
    let tokens = running.membership.store.list("tokens/").await.unwrap();
    let used = tokens
        .entries
        .iter()
        .filter(|entry| entry.decode::<TokenRecord>().unwrap().used_by.is_some());
    assert_eq!(used.count(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_with_a_new_key_before_they_end() {
    // Certificates from the time of the renewal must be valid now, too.
    let lifetime = std::time::Duration::from_secs(3 * 3600);
    let first = Host::new("first", 1).with_certificates_for(lifetime);
    let running = Running::start_on(first).await;
    let second = Host::new("second", 2);
    second.join(&running.invitation).await.unwrap();
    let there = second.open().await;
    for (host, store) in [
        (&running.host, &running.membership.store),
        (&second, &there.store),
    ] {
        let file = host.cluster().unwrap();
        let identity = || files(&host.settings.state_dir.join("pki"));
        let (before, certificate) = (identity(), host.home.certificate().unwrap().unwrap());
        let due = certificate.renew_at();
        let wait = renewal::renew_if_due(&host.home, &file, store, due - 100)
            .await
            .unwrap();
        assert_eq!(wait.as_secs(), 100);
        assert_eq!(identity(), before, "not yet");
        renewal::renew_if_due(&host.home, &file, store, due)
            .await
            .unwrap();
        let renewed = host.home.certificate().unwrap().unwrap();
        assert_ne!(renewed.fingerprint(), certificate.fingerprint());
        assert_eq!(renewed.name(), file.host.as_str());
        assert_eq!(renewed.addresses(), certificate.addresses());
        put(store, &format!("renewed/{}", file.host), "x").await;
        let mode = std::fs::metadata(host.home.identity_path())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // The first host's new certificate is used at the door and by etcd at once.
    let third = Host::new("third", 3);
    third.join(&running.token().await).await.unwrap();
    let there = third.open().await;
    assert_eq!(there.store.list("renewed/").await.unwrap().entries.len(), 2);
}
