//! How a process ends: exit codes after sysexits(3).

use std::fmt;
use std::process::ExitCode;

use crate::{ListenError, SettingsError};

/// How a process ends. As an error, it asks for that end: `Err(Exit::Restart.into())`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Asked to stop, and stopped.
    Success,
    /// Called with arguments it does not know.
    Usage,
    /// Something it needs is not there or does not answer.
    Unavailable,
    /// A bug.
    Bug,
    /// Start me again at once: my place in the world has changed.
    Restart,
    /// It lacks a permission.
    Permission,
    /// The configuration is not usable.
    Configuration,
}

impl Exit {
    /// Every way to end.
    pub const ALL: [Self; 7] = [
        Self::Success,
        Self::Usage,
        Self::Unavailable,
        Self::Bug,
        Self::Restart,
        Self::Permission,
        Self::Configuration,
    ];

    /// The exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Bug => 70,
            Self::Restart => 75,
            Self::Permission => 77,
            Self::Configuration => 78,
        }
    }

    /// What an error means for the exit code: the most telling one in its chain.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        error
            .chain()
            .find_map(classify)
            .unwrap_or(Self::Unavailable)
    }
}

fn classify(error: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return Some(*exit);
    }
    if error.is::<SettingsError>() {
        return Some(Exit::Configuration);
    }
    let denied = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    let is_denied = error.downcast_ref::<std::io::Error>().is_some_and(denied)
        || error
            .downcast_ref::<ListenError>()
            .is_some_and(ListenError::is_permission);
    is_denied.then_some(Exit::Permission)
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Success => "done",
            Self::Usage => "called with arguments it does not know",
            Self::Unavailable => "something that is needed does not answer",
            Self::Bug => "a bug",
            Self::Restart => "asks to be started again",
            Self::Permission => "a permission is missing",
            Self::Configuration => "the configuration is not usable",
        })
    }
}

impl std::error::Error for Exit {}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_chain_decides_the_code() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = Err::<(), _>(denied).context("cannot open it").unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Permission);
        let error = Err::<(), _>(Exit::Restart).context("joined").unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Restart);
        assert_eq!(Exit::of(&anyhow::anyhow!("no answer")), Exit::Unavailable);
    }

    #[test]
    fn codes_are_unique() {
        let codes: std::collections::BTreeSet<u8> =
            Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes.len(), Exit::ALL.len());
    }
}
