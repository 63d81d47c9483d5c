//! On the real kernel: what a transaction says is what `nft` lists.

use std::collections::BTreeMap;

use drover_overlay::{Element, Place, Table};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::nft::Nft;

const TABLES: &str = "
table bridge drover {
    set stations { type ifname . ether_addr; }
    set senders4 { type ifname . ether_addr . ipv4_addr; }
    set senders6 { type ifname . ether_addr . ipv6_addr; }
}
table inet drover {
    set peers4 { type ipv4_addr; }
    set peers6 { type ipv6_addr; }
    map peers { type ether_addr : ipv4_addr; }
    set local { type ipv4_addr; flags interval; }
}
";
const BRIDGE: TableName = TableName {
    place: Place::Overlay,
    family: TableFamily::Bridge,
};
const INET: TableName = TableName {
    place: Place::Overlay,
    family: TableFamily::Inet,
};

fn set<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Set {
    let elements = texts.into_iter().map(|text| {
        let (key, data) = match text.as_ref().split_once(" : ") {
            Some((key, data)) => (key, Some(data.to_owned())),
            None => (text.as_ref(), None),
        };
        let key = key.to_owned();
        Element { key, data }
    });
    elements.collect()
}

fn change(table: TableName, name: &str, delete: Set, add: Set) -> ElementChange {
    let set = name.to_owned();
    ElementChange {
        table,
        set,
        delete,
        add,
    }
}

/// A namespace with our tables.
struct Lab {
    namespace: Namespace,
    nft: Nft,
    elements: Elements,
}

impl Lab {
    /// Puts the test's thread into a namespace of its own; `None` where that is not allowed.
    async fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let (namespace, nft) = (Namespace::own().unwrap(), Nft::find().unwrap());
        let made = nft.run(&namespace, TABLES.to_owned(), || "make tables".to_owned());
        made.await.unwrap();
        let elements = Elements::open(&namespace).unwrap();
        Some(Self {
            namespace,
            nft,
            elements,
        })
    }

    async fn change(&self, changes: &[ElementChange]) -> Result<Outcome, Error> {
        let says = || "change elements".to_owned();
        self.elements.change(changes, says).await
    }

    async fn listed(&self) -> BTreeMap<TableName, Table> {
        let tables = self.nft.tables(&self.namespace, Place::Overlay);
        tables.await.unwrap()
    }

    /// Makes changes, and expects that each set then has what was added to it and no more.
    async fn make(&self, changes: &[ElementChange]) {
        assert_eq!(self.change(changes).await.unwrap(), Outcome::Done);
        let listed = self.listed().await;
        for change in changes {
            assert_eq!(
                listed[&change.table].sets[&change.set], change.add,
                "{}",
                change.set
            );
        }
    }
}

#[tokio::test]
async fn elements_of_every_kind_are_listed_as_they_were_written() {
    let Some(lab) = Lab::new().await else { return };
    let mut changes = vec![
        change(
            BRIDGE,
            "stations",
            set::<&str>([]),
            set(["ep0005eeeeeeee . 02:42:00:00:01:05"]),
        ),
        change(
            BRIDGE,
            "senders4",
            set::<&str>([]),
            set([
                "ep0005eeeeeeee . 02:42:00:00:01:05 . 10.42.1.5",
                "ep0 . 02:42:00:00:01:06 . 10.42.1.6",
            ]),
        ),
        change(
            BRIDGE,
            "senders6",
            set::<&str>([]),
            set([
                "ep0005eeeeeeee . 02:42:00:00:01:05 . fd00:42::1:5",
                "ep0005eeeeeeee . 02:42:00:00:01:05 . fe80::42:ff:fe00:105",
            ]),
        ),
        change(
            INET,
            "peers4",
            set::<&str>([]),
            set(["192.0.2.1", "192.0.2.255"]),
        ),
        change(INET, "peers6", set::<&str>([]), set(["2001:db8::1"])),
        change(
            INET,
            "peers",
            set::<&str>([]),
            set(["02:64:76:00:00:02 : 192.0.2.2"]),
        ),
    ];
    lab.make(&changes).await;
    // The same again is no fault: what is remembered may be less than what is there.
    lab.make(&changes).await;
    for change in &mut changes {
        change.delete = std::mem::take(&mut change.add);
    }
    changes[3].add = set(["198.51.100.7"]);
    lab.make(&changes).await;
}

#[tokio::test]
async fn more_elements_than_a_message_holds_are_one_transaction() {
    let Some(lab) = Lab::new().await else { return };
    let peers =
        |number: usize| set((0..number).map(|it| format!("192.0.{}.{}", it / 256, it % 256)));
    let many = change(INET, "peers4", set::<&str>([]), peers(AT_MOST));
    lab.make(&[many]).await;
    let more = change(INET, "peers4", set::<&str>([]), peers(AT_MOST + 1));
    assert_eq!(lab.change(&[more]).await.unwrap(), Outcome::LeftToNft);
    assert_eq!(lab.listed().await[&INET].sets["peers4"].len(), AT_MOST);
}

#[tokio::test]
async fn a_change_that_is_refused_changes_nothing_and_one_with_intervals_is_left_to_nft() {
    let Some(lab) = Lab::new().await else { return };
    let add = || change(INET, "peers4", set::<&str>([]), set(["192.0.2.1"]));
    let missing = change(
        BRIDGE,
        "stations",
        set(["ep0 . 02:42:00:00:01:05"]),
        set::<&str>([]),
    );
    let refused = lab.change(&[add(), missing]).await.unwrap_err();
    assert_eq!(refused.errno(), Some(nix::libc::ENOENT), "{refused}");
    let interval = change(INET, "local", set::<&str>([]), set(["10.42.1.0/24"]));
    let left = lab.change(&[add(), interval]).await.unwrap();
    assert_eq!(left, Outcome::LeftToNft);
    let unknown = change(INET, "nothing", set::<&str>([]), set(["192.0.2.1"]));
    let refused = lab.change(&[add(), unknown]).await.unwrap_err();
    assert_eq!(refused.errno(), Some(nix::libc::ENOENT), "{refused}");
    assert!(lab.listed().await[&INET].sets["peers4"].is_empty());
    // A refusal leaves nothing behind that the next change would take for its own answer.
    lab.make(&[add()]).await;
}
