//! Who may do what in the root directory of a volume.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `UID` or `UID:GID`, as numbers: names mean nothing outside of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner {
    /// The user.
    pub user: u32,
    /// The group; without one that was given, the number of the user.
    pub group: u32,
}

/// Permission bits, octal, at most `7777`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mode(u32);

impl Mode {
    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for Owner {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = "must be UID or UID:GID, as numbers, such as `999:999`";
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = plain.then(|| text.parse().ok()).flatten();
            // The largest number means "leave it" to chown(2).
            number.filter(|number| *number != u32::MAX).ok_or(form)
        };
        let (user, group) = text.split_once(':').unwrap_or((text, text));
        Ok(Self {
            user: number(user)?,
            group: number(group)?,
        })
    }
}

impl FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = "must be permission bits in octal, such as `0750`";
        if !(3..=4).contains(&text.len()) {
            return Err(form);
        }
        u32::from_str_radix(text, 8).map(Self).ok().ok_or(form)
    }
}

impl TryFrom<String> for Owner {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<String> for Mode {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.to_string()
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        mode.to_string()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.user, self.group)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04o}", self.0)
    }
}
