//! What a caller hears is on disk, and a restart changes nothing.

use drover_allocation::block::{self, Member};
use drover_control_api::coordinator::PoolTable;
use drover_control_api::record::BlockRecord;
use drover_model::Block;

use super::*;

struct Bench {
    ledger: Ledger,
    folder: tempfile::TempDir,
}

fn record() -> PoolRecord {
    PoolRecord {
        version: 1,
        pool: "10.90.0.0/24".parse().unwrap(),
        sub_pool: None,
        block_prefix: 28,
        reserved: ["10.90.0.1".parse().unwrap()].into(),
        claimed_by: "a".parse().unwrap(),
        claimed_at: 0,
        network: None,
    }
}

fn block_record(prefix: &str) -> BlockRecord {
    block::empty(record().pool, Block::new(prefix.parse().unwrap()))
}

fn mac(last: u8) -> Option<MacAddress> {
    Some(MacAddress::new([2, 0, 0, 0, 0, last]))
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path().join("state")).unwrap();
        let ledger = Ledger::open(&database, 60).unwrap();
        assert!(!ledger.open_pool(&record()).unwrap());
        let block = block_record("10.90.0.0/28");
        ledger
            .add_block(&ClaimedBlock {
                pool: record(),
                block,
            })
            .unwrap();
        Self { ledger, folder }
    }

    fn pool(&self) -> Pool {
        record().pool
    }

    fn restart(self) -> Self {
        drop(self.ledger);
        let database = Database::open(self.folder.path().join("state")).unwrap();
        Self {
            ledger: Ledger::open(&database, 60).unwrap(),
            folder: self.folder,
        }
    }
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let bench = Bench::new();
    let pool = bench.pool();
    let first = bench.ledger.allocate(pool, mac(1)).unwrap().address;
    assert_eq!(first.to_string(), "10.90.0.2/28");
    let second = bench.ledger.allocate(pool, mac(2)).unwrap().address;
    assert!(bench.ledger.release(pool, second.addr()).unwrap());
    assert!(!bench.ledger.release(pool, second.addr()).unwrap());
    assert_eq!(
        bench
            .ledger
            .set_aside(
                pool,
                "10.90.0.9".parse().unwrap(),
                &"other".parse().unwrap()
            )
            .unwrap(),
        Some(true)
    );
    bench
        .ledger
        .begin_claim(pool, "10.90.0.77".parse().unwrap())
        .unwrap();
    let single = bench
        .ledger
        .finish_claim(pool, "10.90.0.77".parse().unwrap(), mac(3))
        .unwrap();
    assert_eq!(single.to_string(), "10.90.0.77/32");
    let before = bench.ledger.report();
    let bench = bench.restart();
    assert_eq!(bench.ledger.report(), before);
    let mut given = Vec::new();
    while let Ok(more) = bench.ledger.allocate(pool, mac(4)) {
        given.push(more.address.addr().to_string());
    }
    assert_eq!(
        given.len(),
        10,
        "13 usable, less one given, one resting, one set aside: {given:?}"
    );
    let again = bench
        .ledger
        .allocate_explicit(pool, first.addr(), mac(1))
        .unwrap();
    assert_eq!(again, ExplicitGiven::Given(first));
}

#[tokio::test]
async fn a_block_near_its_end_asks_for_another() {
    let bench = Bench::new();
    let mut low = Vec::new();
    while let Ok(given) = bench.ledger.allocate(bench.pool(), None) {
        low.push(given.low);
    }
    assert_eq!(
        low.iter().filter(|low| **low).count(),
        2,
        "with one left, and with none"
    );
    bench.ledger.postpone_prefetch(
        bench.pool(),
        Instant::now() + std::time::Duration::from_secs(60),
    );
    assert!(!bench.ledger.wants_block(bench.pool()));
}

#[tokio::test]
async fn a_pool_that_is_given_back_is_forgotten_once_nothing_is_left_of_it() {
    let bench = Bench::new();
    let pool = bench.pool();
    bench.ledger.forget_pool(pool).unwrap();
    assert!(bench.ledger.has_pool(pool), "the engine has it");
    bench.ledger.close_pool(pool);
    let returns = bench.ledger.tidy(pool, 600).unwrap();
    assert_eq!(
        returns.blocks.len(),
        1,
        "at once, not only when idle for long"
    );
    bench.ledger.finish_leave(pool, returns.blocks[0]).unwrap();
    bench.ledger.forget_pool(pool).unwrap();
    assert!(!bench.ledger.has_pool(pool));
    assert!(!bench.restart().ledger.has_pool(pool));
}

#[tokio::test]
async fn a_pool_that_comes_again_in_another_form_is_refused_only_while_it_is_in_use() {
    let bench = Bench::new();
    let given = bench.ledger.allocate(bench.pool(), mac(1)).unwrap();
    let other = PoolRecord {
        sub_pool: Some("10.90.0.64/26".parse().unwrap()),
        ..record()
    };
    let error = bench.ledger.open_pool(&other).unwrap_err().to_string();
    assert!(error.contains("10.90.0.0/24"), "{error}");
    bench
        .ledger
        .release(bench.pool(), given.address.addr())
        .unwrap();
    assert!(!bench.ledger.open_pool(&other).unwrap());
    assert!(
        bench.restart().ledger.report().pools[0]
            .quarantined
            .is_empty()
    );
}

#[tokio::test]
async fn leases_the_engine_does_not_have_are_released() {
    let bench = Bench::new();
    let kept = bench
        .ledger
        .allocate(bench.pool(), mac(1))
        .unwrap()
        .address
        .addr();
    let leaked = bench
        .ledger
        .allocate(bench.pool(), mac(2))
        .unwrap()
        .address
        .addr();
    let young = bench
        .ledger
        .confirm(&[kept].into(), now().saturating_sub(5))
        .unwrap();
    assert!(young.released.is_empty());
    let confirmed = bench.ledger.confirm(&[kept].into(), now() + 1).unwrap();
    assert_eq!(confirmed.released, [leaked]);
    let report = bench.restart().ledger.report();
    assert_eq!(report.pools[0].quarantined, [leaked]);
    assert_eq!(report.pools[0].leases.len(), 1);
}

/// The store was read between a pool's going and its coming again; what it said is heard after that.
#[tokio::test]
async fn a_pool_that_came_again_is_not_forgotten_for_what_was_read_before() {
    let bench = Bench::new();
    let pool = bench.pool();
    let member = Member {
        host: "a".parse().unwrap(),
        id: "m".to_owned(),
    };
    let table = PoolTable::default();
    for (opened_again, stays) in [(true, true), (false, false)] {
        bench.ledger.close_pool(pool);
        let view = View {
            table: &table,
            member: &member,
            mark: bench.ledger.mark(pool),
        };
        if opened_again {
            bench.ledger.open_pool(&record()).unwrap();
        }
        bench.ledger.agree(pool, &view).unwrap();
        bench.ledger.forget_pool(pool).unwrap();
        assert_eq!(bench.ledger.has_pool(pool), stays);
    }
}
