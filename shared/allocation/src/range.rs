//! Addresses as numbers, and sets of numbers as ranges: a block of any size costs what is used of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use drover_model::Family;
use ipnet::IpNet;

/// An address as a number, so that the arithmetic is the same in both families.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address with this number; an IPv4 number that is too large is the largest IPv4 address.
pub(crate) fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        Family::V6 => IpAddr::V6(number.into()),
    }
}

/// The first and the last number of a prefix.
pub(crate) fn bounds(prefix: IpNet) -> (u128, u128) {
    (number(prefix.network()), number(prefix.broadcast()))
}

/// A set of numbers, kept as the ranges between those that were taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FreeRanges {
    /// First number of a range to its last; ranges neither touch nor overlap.
    ranges: BTreeMap<u128, u128>,
    /// How many numbers there are.
    count: u128,
}

impl FreeRanges {
    /// Every number from `first` to `last`; none when `last` is smaller.
    pub(crate) fn new(first: u128, last: u128) -> Self {
        let mut free = Self::default();
        if first <= last {
            free.ranges.insert(first, last);
            free.count = (last - first).saturating_add(1);
        }
        free
    }

    /// How many numbers are free.
    pub(crate) const fn count(&self) -> u128 {
        self.count
    }

    /// Whether a number is free.
    pub(crate) fn contains(&self, number: u128) -> bool {
        self.range_of(number).is_some()
    }

    /// The first free number at or after `cursor`, or else the first of all.
    pub(crate) fn next(&self, cursor: u128) -> Option<u128> {
        if self.contains(cursor) {
            return Some(cursor);
        }
        let after = self.ranges.range(cursor..).next();
        after
            .or_else(|| self.ranges.iter().next())
            .map(|(first, _)| *first)
    }

    /// Takes a number out; `false` when it was not free.
    pub(crate) fn take(&mut self, number: u128) -> bool {
        let Some((first, last)) = self.range_of(number) else {
            return false;
        };
        self.ranges.remove(&first);
        if first < number {
            self.ranges.insert(first, number - 1);
        }
        if number < last {
            self.ranges.insert(number + 1, last);
        }
        self.count -= 1;
        true
    }

    /// Puts a number in; `false` when it was free already.
    pub(crate) fn put(&mut self, number: u128) -> bool {
        if self.contains(number) {
            return false;
        }
        let mut first = number;
        let mut last = number;
        let before = self
            .ranges
            .range(..number)
            .next_back()
            .map(|(first, last)| (*first, *last));
        if let Some((before_first, before_last)) = before
            && before_last.checked_add(1) == Some(number)
        {
            first = before_first;
        }
        if let Some(after) = number.checked_add(1)
            && let Some(after_last) = self.ranges.remove(&after)
        {
            last = after_last;
        }
        self.ranges.insert(first, last);
        self.count += 1;
        true
    }

    fn range_of(&self, number: u128) -> Option<(u128, u128)> {
        let (first, last) = self.ranges.range(..=number).next_back()?;
        (number <= *last).then_some((*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_and_addresses_are_the_same_thing() {
        for text in ["10.64.1.2", "255.255.255.255", "fd00::1", "::"] {
            let given: IpAddr = text.parse().unwrap();
            assert_eq!(address(Family::of(given), number(given)), given);
        }
    }

    proptest! {
        #[test]
        fn ranges_behave_as_a_set(steps in prop::collection::vec((any::<bool>(), 0_u128..40), 0..200)) {
            let mut free = FreeRanges::new(0, 39);
            let mut model: BTreeSet<u128> = (0..40).collect();
            for (put, number) in steps {
                if put {
                    prop_assert_eq!(free.put(number), model.insert(number));
                } else {
                    prop_assert_eq!(free.take(number), model.remove(&number));
                }
                prop_assert_eq!(free.count(), model.len() as u128);
                let next = model.range(number..).next().or_else(|| model.iter().next()).copied();
                prop_assert_eq!(free.next(number), next);
            }
        }
    }
}
