//! Claims of several hosts on one store.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use drover_allocation::block::Member;
use drover_control_api::FailureKind;
use drover_control_api::coordinator::{ClaimPool, PoolTable, ReserveAddress};
use drover_control_api::record::{
    AliveRecord, BlockRecord, CopyRecord, HostRecord, NetworkRecord, NetworkState, PoolRecord,
    Subnet,
};
use drover_daemon::PoolSettings;
use drover_model::{Encryption, Family, HostIndex, LogicalNetworkId, Mtu, Pool};
use drover_store::{Store, Transaction};

use super::registrar::{Registrar, block_key, pool_key};
use crate::mirror::{Found, Takeover};

const NETWORK: &str = "0123456789abcdef";

struct Cluster {
    store: Store,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn new(hosts: &[(&str, &[&str])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_embedded(folder.path().join("store")).unwrap();
        let cluster = Self {
            store,
            _folder: folder,
        };
        for (number, (name, prefixes)) in (1..).zip(hosts) {
            let record = HostRecord {
                version: 1,
                name: name.parse().unwrap(),
                member: format!("{name}-1"),
                index: HostIndex::try_from(number).unwrap(),
                advertise: IpAddr::from([192, 0, 2, 1]),
                link: None,
                underlay_mtu: Mtu::ETHERNET,
                prefixes: prefixes
                    .iter()
                    .map(|prefix| prefix.parse().unwrap())
                    .collect(),
                addresses: BTreeSet::new(),
                software: "0".to_owned(),
                joined_at: 0,
            };
            let alive = AliveRecord {
                member: format!("{name}-1"),
                since: 0,
                clock: 0,
            };
            cluster.put(&format!("hosts/{name}"), &record).await;
            cluster.put(&format!("alive/{name}"), &alive).await;
        }
        cluster
    }

    async fn put<T: serde::Serialize>(&self, key: &str, record: &T) {
        let transaction = Transaction::new().put_record(key, record).unwrap();
        assert!(self.store.commit(transaction).await.unwrap().is_committed());
    }

    async fn delete(&self, key: &str) {
        let outcome = self
            .store
            .commit(Transaction::new().delete(key))
            .await
            .unwrap();
        assert!(outcome.is_committed());
    }

    fn registrar(&self, host: &str) -> Registrar {
        Registrar {
            store: self.store.clone(),
            member: Member {
                host: host.parse().unwrap(),
                id: format!("{host}-1"),
            },
            cluster: "00112233445566778899aabbccddeeff".to_owned(),
            pools: PoolSettings::default(),
        }
    }

    /// What the coordinator does when it sees the network.
    async fn create_network(&self, pool: &str, state: NetworkState, copies: &[&str]) {
        let id: LogicalNetworkId = NETWORK.parse().unwrap();
        let pool: Pool = pool.parse().unwrap();
        let subnet = Subnet {
            pool,
            sub_pool: None,
            gateway: None,
            auxiliary: BTreeMap::new(),
        };
        let network = NetworkRecord {
            version: 1,
            id: id.clone(),
            name: "app".to_owned(),
            subnets: vec![subnet],
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            internal: false,
            attachable: false,
            ipv6: false,
            encryption: Encryption::Off,
            created_by: "a".parse().unwrap(),
            created_at: 0,
            state,
        };
        self.put(&format!("networks/{id}"), &network).await;
        for host in copies {
            let copy = CopyRecord {
                network: "f".repeat(64).parse().unwrap(),
            };
            self.put(&format!("copies/{id}/{host}"), &copy).await;
        }
        let (record, _) = self
            .store
            .get_record::<PoolRecord>(&pool_key(pool))
            .await
            .unwrap()
            .unwrap();
        self.put(
            &pool_key(pool),
            &PoolRecord {
                network: Some(id),
                ..record
            },
        )
        .await;
    }

    /// Makes a pool look older than any creation takes.
    async fn age(&self, pool: Pool) {
        let (record, _) = self
            .store
            .get_record::<PoolRecord>(&pool_key(pool))
            .await
            .unwrap()
            .unwrap();
        self.put(
            &pool_key(pool),
            &PoolRecord {
                claimed_at: 0,
                ..record
            },
        )
        .await;
    }
}

fn automatic() -> ClaimPool {
    ClaimPool {
        family: Family::V4,
        pool: None,
        sub_pool: None,
        refused: BTreeSet::new(),
    }
}

fn explicit(pool: &str) -> ClaimPool {
    ClaimPool {
        pool: Some(pool.parse().unwrap()),
        ..automatic()
    }
}

#[tokio::test]
async fn automatic_pools_differ_and_keep_clear_of_every_host() {
    let cluster = Cluster::new(&[("a", &["10.65.0.0/24"]), ("b", &["10.66.0.0/16"])]).await;
    let (a, b) = (cluster.registrar("a"), cluster.registrar("b"));
    assert_eq!(
        a.claim_pool(&automatic()).await.unwrap().pool.to_string(),
        "10.64.0.0/16"
    );
    assert_eq!(
        b.claim_pool(&automatic()).await.unwrap().pool.to_string(),
        "10.67.0.0/16"
    );
    let refused = BTreeSet::from(["10.68.0.0/16".parse().unwrap()]);
    let again = a
        .claim_pool(&ClaimPool {
            refused,
            ..automatic()
        })
        .await
        .unwrap();
    assert_eq!(again.pool.to_string(), "10.69.0.0/16");
    let v6 = a
        .claim_pool(&ClaimPool {
            family: Family::V6,
            ..automatic()
        })
        .await
        .unwrap();
    assert_eq!(v6.pool.to_string(), "fd00:1122:3344::/64");
    assert_eq!(v6.block_prefix, 112);
}

#[tokio::test]
async fn pools_claimed_at_the_same_moment_never_overlap() {
    let cluster = Cluster::new(&[("a", &[]), ("b", &[])]).await;
    let mut claims = tokio::task::JoinSet::new();
    for number in 0..20 {
        let registrar = cluster.registrar(if number % 2 == 0 { "a" } else { "b" });
        claims.spawn(async move {
            // Half of them name a pool that lies across automatic ones.
            let request = if number < 4 {
                explicit(&format!("10.{}.0.0/15", 64 + 2 * number))
            } else {
                automatic()
            };
            registrar.claim_pool(&request).await
        });
    }
    let mut pools: Vec<Pool> = Vec::new();
    while let Some(claimed) = claims.join_next().await {
        if let Ok(record) = claimed.unwrap() {
            assert!(
                !pools.iter().any(|pool| pool.overlaps(record.pool.prefix())),
                "{pools:?}"
            );
            pools.push(record.pool);
        }
    }
    assert!(pools.len() >= 16, "{pools:?}");
}

#[tokio::test]
async fn an_explicit_pool_that_is_in_the_way_is_refused_with_what_it_meets() {
    let cluster = Cluster::new(&[("a", &[]), ("b", &["172.20.0.0/16"])]).await;
    let a = cluster.registrar("a");
    a.claim_pool(&explicit("10.90.0.0/16")).await.unwrap();
    let refused = a.claim_pool(&explicit("10.90.4.0/24")).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Conflict);
    assert!(refused.message.contains("10.90.0.0/16"), "{refused}");
    let refused = a.claim_pool(&explicit("172.20.9.0/24")).await.unwrap_err();
    assert!(refused.message.contains("host `b`"), "{refused}");
    let alone = ClaimPool {
        sub_pool: Some("10.1.0.0/24".parse().unwrap()),
        ..automatic()
    };
    let refused = a.claim_pool(&alone).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::InvalidInput);
    let outside = ClaimPool {
        sub_pool: alone.sub_pool,
        ..explicit("10.2.0.0/16")
    };
    assert!(
        a.claim_pool(&outside)
            .await
            .unwrap_err()
            .message
            .contains("not inside")
    );
}

#[tokio::test]
async fn a_pool_that_is_there_is_given_to_a_host_without_a_copy_and_to_no_other() {
    let cluster = Cluster::new(&[("a", &[]), ("b", &[])]).await;
    let (a, b) = (cluster.registrar("a"), cluster.registrar("b"));
    let record = a.claim_pool(&explicit("10.90.0.0/16")).await.unwrap();
    let refused = a.claim_pool(&explicit("10.90.0.0/16")).await.unwrap_err();
    assert_eq!(
        refused.kind,
        FailureKind::Conflict,
        "a second network on the same host"
    );
    assert_eq!(
        b.claim_pool(&explicit("10.90.0.0/16")).await.unwrap(),
        record
    );
    cluster
        .create_network("10.90.0.0/16", NetworkState::Active, &["a"])
        .await;
    assert_eq!(
        b.claim_pool(&explicit("10.90.0.0/16")).await.unwrap().pool,
        record.pool
    );
    let refused = a.claim_pool(&explicit("10.90.0.0/16")).await.unwrap_err();
    assert!(refused.message.contains("`app`"), "{refused}");
    let ranged = ClaimPool {
        sub_pool: Some("10.90.8.0/24".parse().unwrap()),
        ..explicit("10.90.0.0/16")
    };
    assert!(
        b.claim_pool(&ranged)
            .await
            .unwrap_err()
            .message
            .contains("no ip-range")
    );
}

#[tokio::test]
async fn a_pool_is_given_again_as_soon_as_the_copy_is_known_to_be_gone() {
    let cluster = Cluster::new(&[("a", &[])]).await;
    let a = cluster.registrar("a");
    a.claim_pool(&explicit("10.90.0.0/16")).await.unwrap();
    cluster
        .create_network("10.90.0.0/16", NetworkState::Removing, &["a"])
        .await;
    let claim = tokio::spawn(async move { a.claim_pool(&explicit("10.90.0.0/16")).await });
    cluster.delete(&format!("copies/{NETWORK}/a")).await;
    cluster.delete(&format!("networks/{NETWORK}")).await;
    cluster.delete("pools/10.90.0.0_16").await;
    assert_eq!(claim.await.unwrap().unwrap().network, None);
}

#[tokio::test]
async fn a_pool_whose_network_was_not_created_goes() {
    let cluster = Cluster::new(&[("a", &[]), ("b", &[])]).await;
    let (a, b) = (cluster.registrar("a"), cluster.registrar("b"));
    let first = a.claim_pool(&automatic()).await.unwrap().pool;
    b.release_pool(first).await.unwrap();
    assert_ne!(
        a.claim_pool(&automatic()).await.unwrap().pool,
        first,
        "it was not b's to release"
    );
    a.claim_block(first).await.unwrap();
    a.release_pool(first).await.unwrap();
    a.release_pool(first).await.unwrap();
    assert!(
        cluster
            .store
            .list("blocks/")
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    assert_eq!(a.claim_pool(&automatic()).await.unwrap().pool, first);
    cluster
        .create_network(&first.to_string(), NetworkState::Active, &["a"])
        .await;
    a.release_pool(first).await.unwrap();
    assert!(
        cluster.store.get(&pool_key(first)).await.unwrap().is_some(),
        "its network has it"
    );
}

#[tokio::test]
async fn forgotten_pools_are_collected_and_others_are_not() {
    let cluster = Cluster::new(&[("a", &[]), ("b", &[])]).await;
    let (a, b) = (cluster.registrar("a"), cluster.registrar("b"));
    let mut pools = Vec::new();
    for registrar in [&a, &a, &a, &b] {
        pools.push(registrar.claim_pool(&automatic()).await.unwrap().pool);
    }
    assert_eq!(
        a.collect(&BTreeSet::new()).await.unwrap(),
        [],
        "they are young"
    );
    for pool in &pools {
        cluster.age(*pool).await;
    }
    cluster
        .create_network(&pools[1].to_string(), NetworkState::Active, &[])
        .await;
    let in_use = BTreeSet::from([pools[2]]);
    assert_eq!(a.collect(&in_use).await.unwrap(), [pools[0]]);
    cluster.delete("hosts/b").await;
    assert_eq!(
        a.collect(&in_use).await.unwrap(),
        [pools[3]],
        "its host is gone"
    );
}

#[tokio::test]
async fn addresses_are_reserved_until_containers_may_have_them() {
    let cluster = Cluster::new(&[("a", &[])]).await;
    let a = cluster.registrar("a");
    let pool = a.claim_pool(&explicit("10.90.0.0/24")).await.unwrap().pool;
    let reserve = |address: Option<&str>| {
        let address = address.map(|text| text.parse().unwrap());
        let a = a.clone();
        async move { a.reserve_address(&ReserveAddress { pool, address }).await }
    };
    assert_eq!(
        reserve(None).await.unwrap().address.to_string(),
        "10.90.0.1"
    );
    reserve(Some("10.90.0.1")).await.unwrap();
    reserve(Some("10.90.0.5")).await.unwrap();
    let claimed = a.claim_block(pool).await.unwrap();
    assert_eq!(claimed.pool.reserved.len(), 2);
    reserve(Some("10.90.0.5")).await.unwrap();
    let refused = reserve(Some("10.90.0.6")).await.unwrap_err();
    assert!(refused.message.contains("10.90.0.0/28"), "{refused}");
    assert!(
        reserve(Some("10.91.0.6"))
            .await
            .unwrap_err()
            .message
            .contains("not in subnet")
    );
    assert!(
        reserve(Some("10.90.0.255"))
            .await
            .unwrap_err()
            .message
            .contains("broadcast")
    );
}

#[tokio::test]
async fn every_host_gets_blocks_of_its_own() {
    let cluster = Cluster::new(&[("a", &[]), ("b", &[])]).await;
    let pool = cluster
        .registrar("a")
        .claim_pool(&explicit("10.90.0.0/24"))
        .await
        .unwrap()
        .pool;
    let mut claims = tokio::task::JoinSet::new();
    for number in 0..18 {
        let registrar = cluster.registrar(if number % 2 == 0 { "a" } else { "b" });
        claims.spawn(async move { registrar.claim_block(pool).await });
    }
    let mut blocks = BTreeSet::new();
    let mut refusals = 0;
    while let Some(claimed) = claims.join_next().await {
        match claimed.unwrap() {
            Ok(claimed) => assert!(blocks.insert(claimed.block.block), "given twice"),
            Err(failure) => {
                refusals += 1;
                assert!(failure.message.contains("16 owned"), "{failure}");
            }
        }
    }
    assert_eq!((blocks.len(), refusals), (16, 2));
    let some = *blocks.first().unwrap();
    for host in ["a", "b"] {
        cluster
            .registrar(host)
            .release_block(pool, some)
            .await
            .unwrap();
    }
    let again = cluster.registrar("a").claim_block(pool).await.unwrap();
    assert_eq!(again.block.block, some);
}

/// Nobody waits for a copy of the store to follow: `drover-ipam` takes what is missing here for given back.
#[tokio::test]
async fn what_was_claimed_is_in_the_table_at_once() {
    let cluster = Cluster::new(&[("a", &[])]).await;
    let host = cluster.registrar("a");
    for _ in 0..20 {
        let pool = host.claim_pool(&automatic()).await.unwrap().pool;
        let block = host.claim_block(pool).await.unwrap().block;
        let table = host.table().await.unwrap();
        assert!(table.pools.iter().any(|record| record.pool == pool));
        assert!(table.blocks.contains(&block));
        host.release_block(pool, block.block).await.unwrap();
        host.release_pool(pool).await.unwrap();
        assert_eq!(host.table().await.unwrap(), PoolTable::default());
    }
}

#[tokio::test]
async fn a_single_address_is_the_owners_to_grant() {
    let cluster = Cluster::new(&[("a", &[]), ("b", &[])]).await;
    let (a, b) = (cluster.registrar("a"), cluster.registrar("b"));
    let pool = a.claim_pool(&explicit("10.90.0.0/24")).await.unwrap().pool;
    let block = a.claim_block(pool).await.unwrap().block.block;
    let address = |last: u8| IpAddr::from([10, 90, 0, last]);
    for (last, granted) in [(4, true), (5, false)] {
        let owner = a.clone();
        let answer = async move {
            loop {
                let (record, _) = owner.block(pool, block).await.unwrap().unwrap();
                let asker = "b".parse().unwrap();
                owner
                    .settle(&record, address(last), &asker, granted)
                    .await
                    .unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            claimed = b.claim_address(pool, address(last)) => assert_eq!(claimed.is_ok(), granted),
            () = answer => unreachable!(),
        }
    }
    b.claim_address(pool, address(4)).await.unwrap();
    let (record, _) = a.block(pool, block).await.unwrap().unwrap();
    assert_eq!(record.claims.len(), 1, "a refused claim is withdrawn");
    b.release_address(pool, address(4)).await.unwrap();
    let (record, _) = a.block(pool, block).await.unwrap().unwrap();
    assert!(record.claims.is_empty());
}

#[tokio::test]
async fn an_owner_that_is_away_or_silent_is_named() {
    let cluster = Cluster::new(&[("a", &[]), ("b", &[])]).await;
    let (a, b) = (cluster.registrar("a"), cluster.registrar("b"));
    let pool = a.claim_pool(&explicit("10.90.0.0/24")).await.unwrap().pool;
    let block = a.claim_block(pool).await.unwrap().block.block;
    let began = std::time::Instant::now();
    let silent = b
        .claim_address(pool, IpAddr::from([10, 90, 0, 4]))
        .await
        .unwrap_err();
    assert!(
        silent.message.contains("`a`") && began.elapsed() < super::LIMIT,
        "{silent}"
    );
    let (record, _) = a.block(pool, block).await.unwrap().unwrap();
    assert!(record.claims.is_empty(), "the claim is withdrawn");
    cluster.delete("alive/a").await;
    let away = b
        .claim_address(pool, IpAddr::from([10, 90, 0, 4]))
        .await
        .unwrap_err();
    assert_eq!(away.kind, FailureKind::Unavailable);
    assert!(away.message.contains("drover host rm a"), "{away}");
    // A block of nobody needs no owner.
    b.claim_address(pool, IpAddr::from([10, 90, 0, 40]))
        .await
        .unwrap();
    let held = a
        .claim_address(pool, IpAddr::from([10, 90, 0, 40]))
        .await
        .unwrap_err();
    assert!(held.message.contains("on host `b`"), "{held}");
    b.release_address(pool, IpAddr::from([10, 90, 0, 40]))
        .await
        .unwrap();
    assert_eq!(
        cluster.store.list("blocks/").await.unwrap().entries.len(),
        1
    );
}

/// What a host finds in the store in the place of a block of another one.
fn takeover(found: Found, (owner, believed): (&Registrar, &BlockRecord)) -> Takeover {
    Takeover {
        key: block_key(believed.pool, believed.block),
        found,
        believed: believed.clone(),
        owner: owner.member.clone(),
        at: 0,
    }
}

#[tokio::test]
async fn a_block_is_put_back_over_a_claim_and_over_nothing_else() {
    let cluster = Cluster::new(&[("a", &[]), ("b", &[])]).await;
    let (a, b) = (cluster.registrar("a"), cluster.registrar("b"));
    let pool = a.claim_pool(&explicit("10.90.0.0/16")).await.unwrap().pool;
    let believed = a.claim_block(pool).await.unwrap().block;
    let key = block_key(pool, believed.block);
    let mut claimed = believed.clone();
    claimed.owner = Some(b.member.host.clone());
    claimed.owner_member = Some(b.member.id.clone());
    cluster.put(&key, &claimed).await;
    let listing = cluster.store.list(&key).await.unwrap();
    let found = Found::Claim {
        entry: Arc::new(listing.entries[0].clone()),
        claimant: b.member.host.clone(),
    };
    let takeover = takeover(found, (&a, &believed));
    assert!(a.put_back(&takeover).await.unwrap());
    let (now, _) = a.block(pool, believed.block).await.unwrap().unwrap();
    assert_eq!(now, believed);
    assert!(!a.put_back(&takeover).await.unwrap(), "the claim is gone");
}

#[tokio::test]
async fn a_block_that_was_deleted_is_put_back_unless_it_is_there_or_its_pool_is_not() {
    let cluster = Cluster::new(&[("a", &[]), ("b", &[])]).await;
    let (a, b) = (cluster.registrar("a"), cluster.registrar("b"));
    let pool = a.claim_pool(&explicit("10.90.0.0/16")).await.unwrap().pool;
    let believed = a.claim_block(pool).await.unwrap().block;
    let takeover = takeover(Found::Nothing, (&a, &believed));
    assert!(!a.put_back(&takeover).await.unwrap(), "it is there");
    cluster.delete(&takeover.key).await;
    // The owner may be off: another host does it.
    assert!(b.put_back(&takeover).await.unwrap());
    let (now, _) = a.block(pool, believed.block).await.unwrap().unwrap();
    assert_eq!(now, believed);
    cluster.delete(&takeover.key).await;
    cluster.delete(&pool_key(pool)).await;
    assert!(!a.put_back(&takeover).await.unwrap(), "its pool is gone");
}

#[tokio::test]
async fn a_block_that_is_given_back_is_nobodys_before_its_record_is_deleted() {
    let cluster = Cluster::new(&[("a", &[])]).await;
    let a = cluster.registrar("a");
    let pool = a.claim_pool(&explicit("10.90.0.0/16")).await.unwrap().pool;
    let block = a.claim_block(pool).await.unwrap().block.block;
    let key = block_key(pool, block);
    let from = cluster.store.list(&key).await.unwrap().revision + 1;
    let mut watch = cluster.store.watch(&key, from).await.unwrap();
    a.release_block(pool, block).await.unwrap();
    let free = watch.next().await.unwrap().value.unwrap();
    let free: BlockRecord = serde_json::from_slice(&free).unwrap();
    assert_eq!((free.owner, free.owner_member), (None, None));
    assert_eq!(watch.next().await.unwrap().value, None);
    a.release_block(pool, block).await.unwrap();
}
