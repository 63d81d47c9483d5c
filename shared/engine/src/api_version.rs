//! Versions of the Engine API, such as `1.41`.

use std::fmt;
use std::str::FromStr;

/// A version of the Engine API; ordered as numbers, so that 1.9 is before 1.41.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    major: u16,
    minor: u16,
}

impl ApiVersion {
    /// The newest version whose answers this crate was checked against.
    pub const NEWEST: Self = Self::new(1, 51);
    /// From this version on the engine always refuses a second network of one name; before, it
    /// does so only when asked with `CheckDuplicate`.
    pub const UNIQUE_NAMES: Self = Self::new(1, 44);

    /// A version by its numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl FromStr for ApiVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an API version such as 1.41");
        let (major, minor) = text.split_once('.').ok_or_else(wrong)?;
        match (major.parse(), minor.parse()) {
            (Ok(major), Ok(minor)) => Ok(Self { major, minor }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let version = |text: &str| text.parse::<ApiVersion>().unwrap();
        assert!(version("1.9") < version("1.41"));
        assert!(version("1.51") < version("2.0"));
        assert_eq!(version("1.41").to_string(), "1.41");
        assert!("1".parse::<ApiVersion>().is_err());
        assert!("1.x".parse::<ApiVersion>().is_err());
    }
}
