//! Sizes in bytes, as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// It is no number with a unit.
    #[error(
        "`{0}` is not a size: use a whole number of bytes, or one with K, M, G or T (powers of 1024), such as `10G`"
    )]
    Form(String),
    /// It is nothing.
    #[error("a size of 0 is no size")]
    Zero,
    /// It is more than any file system takes.
    #[error("`{0}` is larger than any file system: at most 8191T")]
    TooLarge(String),
}

/// A size in bytes, 1 to 8191 TiB. Units are powers of 1024, as `docker run --memory` reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct ByteSize(u64);

const UNITS: [(&str, u32); 5] = [("", 0), ("K", 10), ("M", 20), ("G", 30), ("T", 40)];
const LARGEST: u64 = 8191 << 40;

impl ByteSize {
    /// That many bytes.
    ///
    /// # Errors
    /// When it is nothing, or more than any file system takes.
    pub fn new(bytes: u64) -> Result<Self, SizeError> {
        match bytes {
            0 => Err(SizeError::Zero),
            1..=LARGEST => Ok(Self(bytes)),
            _ => Err(SizeError::TooLarge(bytes.to_string())),
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for ByteSize {
    type Error = SizeError;

    fn try_from(bytes: u64) -> Result<Self, SizeError> {
        Self::new(bytes)
    }
}

impl From<ByteSize> for u64 {
    fn from(size: ByteSize) -> Self {
        size.0
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let given = || text.chars().take(40).collect::<String>();
        let form = || SizeError::Form(given());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or_else(form)?;
        if number.is_empty() {
            return Err(form());
        }
        let unit = unit.to_ascii_uppercase();
        let unit = unit
            .strip_suffix("IB")
            .or_else(|| unit.strip_suffix('B'))
            .unwrap_or(&unit);
        let (_, shift) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(form)?;
        let too_large = || SizeError::TooLarge(given());
        let number: u64 = number.parse().ok().ok_or_else(too_large)?;
        let bytes = number.checked_mul(1 << shift).ok_or_else(too_large)?;
        Self::new(bytes).map_err(|error| match error {
            SizeError::TooLarge(_) => too_large(),
            other => other,
        })
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit that leaves a whole number: reads back as the same size.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS
            .iter()
            .rev()
            .find(|(_, shift)| self.0.is_multiple_of(1 << shift));
        let (unit, shift) = whole.unwrap_or(&("", 0));
        write!(formatter, "{}{unit}", self.0 >> shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("1", 1),
            ("512", 512),
            ("10k", 10 << 10),
            ("1M", 1 << 20),
            ("10G", 10 << 30),
            ("2gb", 2 << 30),
            ("3GiB", 3 << 30),
            ("8191T", LARGEST),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
        }
        assert_eq!(
            ByteSize::new(1536 << 20).unwrap().to_string(),
            "1536M".to_owned()
        );
    }

    #[test]
    fn what_is_no_size_is_refused_with_what_would_be_one() {
        for bad in ["", "G", "-1", "1Y", "1.5G", "1 G", "0x10", "ten", "1GG"] {
            let error = bad.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains("such as `10G`"), "{bad}: {error}");
        }
        assert_eq!("0".parse::<ByteSize>(), Err(SizeError::Zero));
        assert_eq!("0G".parse::<ByteSize>(), Err(SizeError::Zero));
        for bad in ["8192T", "99999999999999999999", "18446744073709551615T"] {
            let error = bad.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains("8191T"), "{bad}: {error}");
        }
    }
}
