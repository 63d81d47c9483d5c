//! Any interleaving of packets, probes, rotations, late records, cuts, crashes, reboots, lost associations, and
//! hosts that go and come: no key is used twice with one sequence number, a host that went
//! has no association, and when all is quiet nothing is lost. While no host reboots nothing is ever lost.
//!
//! After a change of this crate run it at length:
//! `PROPTEST_CASES=5000 cargo test --release -p drover-ipsec --test prop_exchange`.
#![cfg(test)]

#[path = "prop_exchange/host.rs"]
mod host;
#[path = "prop_exchange/kernel.rs"]
mod kernel;
#[path = "prop_exchange/world.rs"]
mod world;

use host::HOSTS;
use proptest::prelude::*;
use world::World;

#[derive(Debug, Clone)]
enum Act {
    /// Packets from a host to another, in every lane.
    Packets(usize, usize),
    Probe(usize, usize),
    Answer(usize),
    /// A host does what its exchange says; the answer of the store may be lost.
    Step(usize, bool),
    /// The same, but its process dies after so many changes of the kernel.
    StepAndDie(usize, usize),
    /// A host sees the store as it is now, if it is connected.
    See(usize),
    Cut(usize, bool),
    Crash(usize),
    Start(usize),
    Rotate(usize),
    Tick(u64),
    /// Kernel and process are lost.
    Reboot(usize),
    /// An association is lost.
    Lose(usize, usize),
    Remove(usize),
    Join(usize),
    /// All is quiet for a while.
    Settle,
}

fn host() -> impl Strategy<Value = usize> {
    0..HOSTS
}

fn two() -> impl Strategy<Value = (usize, usize)> {
    (host(), 1..HOSTS).prop_map(|(one, further)| (one, (one + further) % HOSTS))
}

/// What goes on in a cluster that nobody disturbs, but that is slow.
fn gentle() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => two().prop_map(|(from, to)| Act::Packets(from, to)),
        6 => two().prop_map(|(from, to)| Act::Probe(from, to)),
        5 => any::<usize>().prop_map(Act::Answer),
        8 => (host(), prop::bool::weighted(0.1)).prop_map(|(host, lost)| Act::Step(host, lost)),
        1 => (host(), 0usize..20).prop_map(|(host, changes)| Act::StepAndDie(host, changes)),
        6 => host().prop_map(Act::See),
        1 => (host(), any::<bool>()).prop_map(|(host, connected)| Act::Cut(host, connected)),
        1 => host().prop_map(Act::Crash),
        3 => host().prop_map(Act::Start),
        2 => host().prop_map(Act::Rotate),
        4 => prop_oneof![1u64..5, 20u64..90].prop_map(Act::Tick),
    ]
}

fn rough() -> impl Strategy<Value = Act> {
    prop_oneof![
        20 => gentle(),
        2 => host().prop_map(Act::Reboot),
        1 => (host(), any::<usize>()).prop_map(|(host, which)| Act::Lose(host, which)),
        1 => host().prop_map(Act::Remove),
        2 => host().prop_map(Act::Join),
        1 => Just(Act::Settle),
    ]
}

fn act(world: &mut World, act: &Act, lossless: bool) {
    match *act {
        Act::Packets(from, to) => {
            for lane in 0..3 {
                let arrived = world.packet(from, to, lane, false);
                assert!(
                    arrived || !lossless,
                    "lost: from {from} to {to}, lane {lane}"
                );
            }
        }
        Act::Probe(from, to) => {
            world.probe(from, to);
        }
        Act::Answer(which) => world.answer(which),
        Act::Step(host, lost) => world.step(host, usize::MAX, lost),
        Act::StepAndDie(host, changes) => {
            world.step(host, changes, false);
            world.crash(host);
        }
        Act::See(host) => world.see(host),
        Act::Cut(host, connected) => world.cut(host, connected),
        Act::Crash(host) => world.crash(host),
        Act::Start(host) => world.start(host),
        Act::Rotate(host) => world.rotate(host),
        Act::Tick(seconds) => world.tick(seconds),
        Act::Reboot(host) => world.reboot(host),
        Act::Lose(host, which) => world.lose(host, which),
        Act::Remove(host) => world.remove(host),
        Act::Join(host) => world.join(host),
        Act::Settle => world.settle(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_while_no_host_reboots(acts in prop::collection::vec(gentle(), 1..250)) {
        let mut world = World::new();
        for one in &acts {
            act(&mut world, one, true);
        }
        world.settle();
    }

    #[test]
    fn whatever_happens_it_heals(acts in prop::collection::vec(rough(), 1..250)) {
        let mut world = World::new();
        for one in &acts {
            act(&mut world, one, false);
        }
        for host in 0..HOSTS {
            world.join(host);
        }
        world.settle();
    }
}
