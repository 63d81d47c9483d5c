//! Why a driver could not do what the engine asked.

/// A failure as the user sees it: one sentence with the object, what is wrong, and what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DriverError(String);

impl DriverError {
    /// A failure in one sentence.
    #[must_use]
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// An error and its causes, joined by `: `.
    #[must_use]
    pub fn chain(error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        Self(
            causes
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(": "),
        )
    }
}

impl From<String> for DriverError {
    fn from(sentence: String) -> Self {
        Self(sentence)
    }
}
