//! A private key lies in the memory of its process until it is wiped, and then no more.
#![cfg(test)]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it looks at its own memory"
)]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use drover_ipsec::{Exchange, Identity, Lane, Moment, Schedule};
use drover_model::HostIndex;
use zeroize::Zeroizing;

/// What is looked for is kept in this disguise, so as not to be found itself.
const MASK: u8 = 0x5a;
/// How much is read at once.
const CHUNK: usize = 1 << 16;

/// The regions of memory that can be written to.
fn regions() -> Vec<(u64, u64, String)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let regions = maps.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let writable = words.next()?.starts_with("rw");
        writable.then_some((number(start)?, number(end)?, line.to_owned()))
    });
    regions.collect()
}

/// Where in this process's memory a secret lies.
fn places(masked: &[u8; 32]) -> Vec<String> {
    let memory = File::open("/proc/self/mem").unwrap();
    let mut chunk = Zeroizing::new(vec![0; CHUNK + masked.len() - 1]);
    let mut found = Vec::new();
    for (start, end, region) in regions() {
        for at in (start..end).step_by(CHUNK) {
            chunk.fill(0);
            // Of a region that has gone, or is the kernel's, nothing is read.
            let read = memory.read_at(&mut chunk, at).unwrap_or(0);
            let windows = chunk.get(..read).unwrap().windows(masked.len());
            let hits = windows.filter(|it| it.iter().zip(masked).all(|(a, b)| a ^ MASK == *b));
            found.extend(hits.map(|_| region.clone()));
        }
    }
    found
}

fn at(seconds: u64) -> Moment {
    Moment::new(Duration::from_secs(seconds))
}

/// A new private key of an exchange, in disguise.
fn generate(exchange: &mut Exchange, number: u64, now: Moment) -> [u8; 32] {
    let mut seed = Zeroizing::new([0; 32]);
    let mut random = File::open("/dev/urandom").unwrap();
    random.read_exact(seed.as_mut_slice()).unwrap();
    exchange.generate(number, &seed, now).unwrap();
    exchange.published(number, now);
    seed.map(|byte| byte ^ MASK)
}

#[test]
fn a_private_key_is_in_no_memory_once_it_is_wiped() {
    let identity = Identity {
        cluster: "00112233445566778899aabbccddeeff".to_owned(),
        member: "member1".to_owned(),
        index: HostIndex::try_from(1).unwrap(),
        lanes: Lane::MAX,
    };
    let schedule = Schedule {
        rotate_after: Duration::from_secs(3600),
        rotate_bytes: u64::MAX,
        wipe_after: Duration::from_secs(60),
        idle_before_removal: Duration::from_secs(30),
        follow_within: Duration::from_secs(5),
    };
    let mut exchange = Exchange::new(identity, schedule);
    let first = generate(&mut exchange, 1, at(0));
    let second = generate(&mut exchange, 2, at(1));
    assert!(!places(&first).is_empty(), "the search finds nothing");
    exchange.wipe(at(61));
    assert_eq!(places(&first), Vec::<String>::new());
    assert!(!places(&second).is_empty(), "the key in use is gone");
}
