//! The short forms that people write: `pg@2026-05-01`, `24h 7d 4w 12m`.

use std::fmt;
use std::str::FromStr;

use crate::{Keep, Selector};

/// Why a [`Selector`] could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// There is no volume.
    #[error("`{0}` names no volume: write VOLUME, or VOLUME@WHEN")]
    NoVolume(String),
    /// There is nothing after the `@`.
    #[error("`{0}` has nothing after the `@`: write a time, an id, or `latest`")]
    NoTime(String),
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (volume, when) = match text.split_once('@') {
            Some((_, "")) => return Err(SelectorError::NoTime(text.to_owned())),
            Some((volume, when)) => (volume, Some(when.to_owned())),
            None => (text, None),
        };
        if volume.is_empty() {
            return Err(SelectorError::NoVolume(text.to_owned()));
        }
        Ok(Self {
            volume: volume.to_owned(),
            when,
            host: None,
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.volume)?;
        match &self.when {
            Some(when) => write!(formatter, "@{when}"),
            None => Ok(()),
        }
    }
}

/// Why a [`Keep`] could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// A word is not a number with a unit.
    #[error("`{0}` is not a number with one of h, d, w, m, y (or nothing, for the last so many)")]
    Word(String),
    /// It would keep nothing.
    #[error("it would keep no backup at all: write for example `24h 7d 4w 12m`")]
    Nothing,
}

impl FromStr for Keep {
    type Err = KeepError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut keep = Self::default();
        let words = text.split(|c: char| c == ',' || c.is_whitespace());
        for word in words.filter(|word| !word.is_empty()) {
            let end = word
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(word.len());
            let (number, unit) = word.split_at(end);
            let wrong = || KeepError::Word(word.to_owned());
            let number: u32 = number.parse().ok().ok_or_else(wrong)?;
            *match unit {
                "" => &mut keep.last,
                "h" => &mut keep.hourly,
                "d" => &mut keep.daily,
                "w" => &mut keep.weekly,
                "m" => &mut keep.monthly,
                "y" => &mut keep.yearly,
                _ => return Err(wrong()),
            } = number;
        }
        if keep == Self::default() {
            return Err(KeepError::Nothing);
        }
        Ok(keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_a_volume_and_a_time() {
        let selector: Selector = "pg@2026-05-01".parse().unwrap();
        assert_eq!(selector.volume, "pg");
        assert_eq!(selector.when.as_deref(), Some("2026-05-01"));
        assert_eq!(selector.to_string(), "pg@2026-05-01");
        assert_eq!("pg".parse::<Selector>().unwrap().when, None);
        assert!("@latest".parse::<Selector>().is_err());
        assert!("pg@".parse::<Selector>().is_err());
    }

    #[test]
    fn a_retention_is_numbers_with_units() {
        let keep: Keep = "24h 7d,4w 12m 3".parse().unwrap();
        let wanted = Keep {
            last: 3,
            hourly: 24,
            daily: 7,
            weekly: 4,
            monthly: 12,
            yearly: 0,
        };
        assert_eq!(keep, wanted);
        assert_eq!("7x".parse::<Keep>(), Err(KeepError::Word("7x".to_owned())));
        assert_eq!("0d".parse::<Keep>(), Err(KeepError::Nothing));
        assert_eq!("".parse::<Keep>(), Err(KeepError::Nothing));
    }
}
