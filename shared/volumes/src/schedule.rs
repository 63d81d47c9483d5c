//! When something is due again and again.
//!
//! A schedule names moments in UTC. Every volume has a shift of its own (jitter), so that the volumes of a host, and
//! hosts, do not all begin at one moment. Moments that passed while nobody could act are caught up once, not each.

use std::fmt;
use std::str::FromStr;

use drover_control_api::record::UnixSeconds;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// How often: `hourly`, `daily`, `daily 03:30`, `weekly`, `weekly sun 03:30`, `monthly`, `monthly 03:30`, or a period
/// such as `15min`, `6h`, `2d`. For a shell that minds spaces, `@` and `,` separate words too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Schedule {
    /// Every so many seconds, at least 60, counted from 1970.
    Every(u32),
    /// Every day at this minute of it.
    Daily(u16),
    /// Every week on this day, counted from Monday as 0, at this minute of it.
    Weekly(u8, u16),
    /// On the first of every month at this minute of it.
    Monthly(u16),
}

const FORM: &str = "must be `hourly`, `daily`, `daily 03:30`, `weekly sun 03:30`, `monthly`, or a period of at least a \
                    minute such as `15min`, `6h` or `2d`; times are UTC";
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: u64 = 86400;
/// The longest shift.
const LARGEST_JITTER: u64 = 300;

impl Schedule {
    /// The shift of a volume's moments, seconds: the same for the same seed, below a tenth of the period and five
    /// minutes.
    #[must_use]
    pub fn jitter(&self, seed: &str) -> u64 {
        // FNV-1a: a shift has to be spread, not secret.
        let hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let bound = (self.shortest_period() / 10).clamp(1, LARGEST_JITTER);
        hash % bound
    }

    /// Whether it is due at `now`: whether one of its moments lies after `last` and not after `now`. However many
    /// moments passed, it is due once; a `last` that lies in the future is no reason to wait for it longer than one
    /// period.
    #[must_use]
    pub fn is_due(&self, jitter: u64, last: UnixSeconds, now: UnixSeconds) -> bool {
        let latest = self.latest(jitter, now);
        latest
            .is_some_and(|latest| last < latest || last > now.saturating_add(self.longest_period()))
    }

    /// The first moment after `now`.
    #[must_use]
    pub fn next(&self, jitter: u64, now: UnixSeconds) -> UnixSeconds {
        // Every form has a moment within its longest period; they are told apart by the latest one before.
        let (mut low, mut high) = (now, now.saturating_add(self.longest_period()));
        let passed = self.latest(jitter, now);
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if self.latest(jitter, middle) == passed {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }

    /// The latest moment that is not after `now`; `None` when the first is yet to come.
    fn latest(&self, jitter: u64, now: UnixSeconds) -> Option<UnixSeconds> {
        let now = now.checked_sub(jitter)?;
        let begun = |minute: u16| now.checked_sub(u64::from(minute) * 60);
        let moment = match *self {
            Self::Every(period) => {
                let period = u64::from(period.max(60));
                now / period * period
            }
            Self::Daily(minute) => begun(minute)? / DAY * DAY + u64::from(minute) * 60,
            Self::Weekly(day, minute) => {
                // 1970-01-05 was the first Monday.
                let monday = 4 + u64::from(day);
                let days = (begun(minute)? / DAY).checked_sub(monday)? / 7 * 7 + monday;
                days * DAY + u64::from(minute) * 60
            }
            Self::Monthly(minute) => {
                let days = first_of_month(begun(minute)? / DAY)?;
                days * DAY + u64::from(minute) * 60
            }
        };
        Some(moment + jitter)
    }

    const fn shortest_period(&self) -> u64 {
        match self {
            Self::Every(period) => *period as u64,
            Self::Daily(_) => DAY,
            Self::Weekly(..) => 7 * DAY,
            Self::Monthly(_) => 28 * DAY,
        }
    }

    const fn longest_period(&self) -> u64 {
        match self {
            Self::Monthly(_) => 31 * DAY,
            Self::Every(period) if *period < 60 => 60,
            other => other.shortest_period(),
        }
    }
}

/// The first day of the month of a day, both counted from 1970.
fn first_of_month(day: u64) -> Option<u64> {
    let seconds = i64::try_from(day * DAY).ok()?;
    let date = OffsetDateTime::from_unix_timestamp(seconds).ok()?.date();
    day.checked_sub(u64::from(date.day()) - 1)
}

impl FromStr for Schedule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.to_ascii_lowercase();
        let words: Vec<&str> = text
            .split([' ', '@', ','])
            .filter(|word| !word.is_empty())
            .collect();
        match words.as_slice() {
            ["hourly"] => Ok(Self::Every(3600)),
            ["daily"] => Ok(Self::Daily(0)),
            ["daily", time] => Ok(Self::Daily(minute(time)?)),
            ["weekly"] => Ok(Self::Weekly(0, 0)),
            ["weekly", day] => Ok(Self::Weekly(weekday(day)?, 0)),
            ["weekly", day, time] => Ok(Self::Weekly(weekday(day)?, minute(time)?)),
            ["monthly"] => Ok(Self::Monthly(0)),
            ["monthly", time] => Ok(Self::Monthly(minute(time)?)),
            ["every", period] | [period] => Ok(Self::Every(seconds(period)?)),
            _ => Err(FORM),
        }
    }
}

fn weekday(word: &str) -> Result<u8, &'static str> {
    let found = DAYS.iter().position(|day| word.starts_with(day));
    found.and_then(|day| u8::try_from(day).ok()).ok_or(FORM)
}

fn minute(word: &str) -> Result<u16, &'static str> {
    let (hours, minutes) = word.split_once(':').ok_or(FORM)?;
    let (hours, minutes): (u16, u16) = (
        hours.parse().ok().ok_or(FORM)?,
        minutes.parse().ok().ok_or(FORM)?,
    );
    if hours < 24 && minutes < 60 {
        Ok(hours * 60 + minutes)
    } else {
        Err(FORM)
    }
}

fn seconds(word: &str) -> Result<u32, &'static str> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = word.split_at_checked(digits).ok_or(FORM)?;
    let number: u32 = number.parse().ok().ok_or(FORM)?;
    let unit = match unit {
        "min" | "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(FORM),
    };
    let seconds = number.checked_mul(unit).ok_or(FORM)?;
    // A year is the longest: what is rarer is forgotten anyway.
    if (60..=366 * 86400).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(FORM)
    }
}

impl TryFrom<String> for Schedule {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.to_string()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        match *self {
            Self::Every(3600) => formatter.write_str("hourly"),
            Self::Every(period) if period.is_multiple_of(86400) => {
                write!(formatter, "{}d", period / 86400)
            }
            Self::Every(period) if period.is_multiple_of(3600) => {
                write!(formatter, "{}h", period / 3600)
            }
            Self::Every(period) => write!(formatter, "{}min", period / 60),
            Self::Daily(minute) => write!(formatter, "daily {}", clock(minute)),
            Self::Weekly(day, minute) => {
                let day = DAYS.get(usize::from(day)).unwrap_or(&"mon");
                write!(formatter, "weekly {day} {}", clock(minute))
            }
            Self::Monthly(minute) => write!(formatter, "monthly {}", clock(minute)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        let form = time::format_description::well_known::Rfc3339;
        let moment = OffsetDateTime::parse(text, &form).unwrap();
        u64::try_from(moment.unix_timestamp()).unwrap()
    }

    #[test]
    fn schedules_are_read_and_written() {
        for text in [
            "hourly",
            "15min",
            "6h",
            "2d",
            "daily 03:30",
            "weekly sun 23:59",
            "monthly 00:00",
        ] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        assert_eq!("daily@03:30".parse(), Ok(Schedule::Daily(210)));
        assert_eq!("weekly@sunday,03:30".parse(), Ok(Schedule::Weekly(6, 210)));
        for bad in [
            "",
            "sometimes",
            "0h",
            "30s",
            "daily 24:00",
            "weekly 03:00",
            "daily 1:2:3",
            "99999d",
        ] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_are_where_the_calendar_has_them() {
        let now = at("2026-11-30T01:30:00Z");
        for (text, latest, next) in [
            ("hourly", "2026-11-30T01:00:00Z", "2026-11-30T02:00:00Z"),
            (
                "daily 03:30",
                "2026-11-29T03:30:00Z",
                "2026-11-30T03:30:00Z",
            ),
            (
                "weekly mon 01:30",
                "2026-11-30T01:30:00Z",
                "2026-12-07T01:30:00Z",
            ),
            ("weekly sun", "2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z"),
            ("monthly", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
            (
                "monthly 02:00",
                "2026-11-01T02:00:00Z",
                "2026-12-01T02:00:00Z",
            ),
        ] {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.latest(0, now), Some(at(latest)), "{text}");
            assert_eq!(schedule.next(0, now), at(next), "{text}");
        }
    }

    #[test]
    fn what_was_missed_is_caught_up_once() {
        let schedule: Schedule = "hourly".parse().unwrap();
        let (last, now) = (at("2026-11-29T01:00:00Z"), at("2026-11-30T01:30:00Z"));
        assert!(schedule.is_due(0, last, now));
        assert!(!schedule.is_due(0, now, now + 60));
        assert!(schedule.is_due(0, now, now + 1800));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_a_schedule() {
        let schedule: Schedule = "hourly".parse().unwrap();
        let now = at("2026-11-30T01:30:00Z");
        assert!(schedule.is_due(0, at("2036-01-01T00:00:00Z"), now));
        assert!(!schedule.is_due(0, now + 60, now));
    }
}
