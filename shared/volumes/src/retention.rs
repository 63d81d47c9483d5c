//! Which snapshots of a schedule are kept.
//!
//! As restic's `forget` has it: of every hour (day, week, ...) that has snapshots the newest is kept, for as many of
//! the latest such hours as were asked for. The newest of all is always kept. Times are UTC, weeks begin on Monday.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use drover_control_api::record::UnixSeconds;
use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};

/// How many are kept of each kind, such as `24h 7d 4w 12m`. A plain number is that many of the latest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Keep {
    /// The latest.
    pub last: u32,
    /// One an hour.
    pub hours: u32,
    /// One a day.
    pub days: u32,
    /// One a week.
    pub weeks: u32,
    /// One a month.
    pub months: u32,
    /// One a year.
    pub years: u32,
}

/// What is kept of a schedule whose volume does not say: a week of it, and then some.
pub const DEFAULT: Keep = Keep {
    last: 0,
    hours: 24,
    days: 7,
    weeks: 4,
    months: 0,
    years: 0,
};

const FORM: &str = "must be numbers of h, d, w, m or y separated by spaces, such as `24h 7d 4w 12m`, at least one of them";

impl FromStr for Keep {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut keep = Self::default();
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        for word in words {
            let digits = word.bytes().take_while(u8::is_ascii_digit).count();
            let (number, unit) = word.split_at_checked(digits).ok_or(FORM)?;
            let number: u32 = number.parse().ok().ok_or(FORM)?;
            let place = match unit {
                "" => &mut keep.last,
                "h" => &mut keep.hours,
                "d" => &mut keep.days,
                "w" => &mut keep.weeks,
                "m" => &mut keep.months,
                "y" => &mut keep.years,
                _ => return Err(FORM),
            };
            if *place != 0 {
                return Err("names one unit twice");
            }
            *place = number;
        }
        if keep == Self::default() {
            return Err(FORM);
        }
        Ok(keep)
    }
}

impl TryFrom<String> for Keep {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Keep> for String {
    fn from(keep: Keep) -> Self {
        keep.to_string()
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.last, ""),
            (self.hours, "h"),
            (self.days, "d"),
            (self.weeks, "w"),
            (self.months, "m"),
            (self.years, "y"),
        ];
        let words = parts.iter().filter(|(number, _)| *number > 0);
        let words: Vec<String> = words
            .map(|(number, unit)| format!("{number}{unit}"))
            .collect();
        formatter.write_str(&words.join(" "))
    }
}

impl Keep {
    /// Those of `taken` that are not kept, by the times they were taken at.
    #[must_use]
    pub fn expired(&self, taken: &BTreeSet<UnixSeconds>) -> BTreeSet<UnixSeconds> {
        let kept = self.kept(taken);
        taken.difference(&kept).copied().collect()
    }

    fn kept(&self, taken: &BTreeSet<UnixSeconds>) -> BTreeSet<UnixSeconds> {
        let mut kept: BTreeSet<_> = taken.last().copied().into_iter().collect();
        let rules: [(u32, Period); 6] = [
            (self.last, identity),
            (self.hours, hour),
            (self.days, day),
            (self.weeks, week),
            (self.months, month),
            (self.years, year),
        ];
        for (number, period) in rules {
            let mut seen = BTreeSet::new();
            for time in taken.iter().rev() {
                if seen.len() >= number as usize {
                    break;
                }
                if seen.insert(period(*time)) {
                    kept.insert(*time);
                }
            }
        }
        kept
    }
}

/// The number of the hour, day and so on that a time lies in.
type Period = fn(UnixSeconds) -> i64;

/// A time as a signed number; what lies beyond is no time that anything was taken at.
fn identity(time: UnixSeconds) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

fn hour(time: UnixSeconds) -> i64 {
    identity(time) / 3600
}

fn day(time: UnixSeconds) -> i64 {
    identity(time) / 86400
}

/// 1970-01-01 was a Thursday.
fn week(time: UnixSeconds) -> i64 {
    (day(time) + 3) / 7
}

fn month(time: UnixSeconds) -> i64 {
    date(time).map_or(i64::MAX, |date| {
        i64::from(date.year()) * 12 + i64::from(u8::from(date.month()))
    })
}

fn year(time: UnixSeconds) -> i64 {
    date(time).map_or(i64::MAX, |date| i64::from(date.year()))
}

fn date(time: UnixSeconds) -> Option<Date> {
    let moment = OffsetDateTime::from_unix_timestamp(identity(time)).ok()?;
    Some(moment.date())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_is_read_and_written() {
        for text in ["24h 7d 4w 12m", "3", "5 2y", "1d"] {
            assert_eq!(text.parse::<Keep>().unwrap().to_string(), text);
        }
        assert_eq!("7d,4w".parse::<Keep>().unwrap().to_string(), "7d 4w");
        for bad in ["", "0d", "7x", "d", "-1d", "7d 8d", "7 d d", "99999999999h"] {
            assert!(bad.parse::<Keep>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_newest_of_each_period_stays() {
        let keep: Keep = "2h 2d".parse().unwrap();
        let (hour, day) = (3600, 86400);
        // Two in one hour, one an hour before that, and one two days before.
        let taken = [day, 3 * day, 3 * day + hour, 3 * day + hour + 60].into();
        let expired = keep.expired(&taken);
        assert_eq!(expired, [3 * day + hour].into());
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        // 2026-11-29 is a Sunday, 2026-11-30 a Monday, 2026-12-01 a Tuesday.
        let (sunday, monday, tuesday) = (1_795_910_400, 1_795_996_800, 1_796_083_200);
        assert_ne!(week(sunday), week(monday));
        assert_eq!(week(monday), week(tuesday));
        assert_eq!(month(sunday), month(monday));
        assert_ne!(month(monday), month(tuesday));
    }
}
