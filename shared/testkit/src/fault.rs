//! What a plugin did that an engine, or its user, would not bear.

use std::path::PathBuf;

/// A plugin's fault, or its refusal.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The plugin said no, in the field where this engine reads it.
    #[error("`{method}` was refused: {sentence}")]
    Refused {
        /// What was asked.
        method: String,
        /// Why not.
        sentence: String,
    },
    /// No answer after every retry.
    #[error("`{method}` was not answered on `{}`", socket.display())]
    Transport {
        /// What was asked.
        method: String,
        /// Where.
        socket: PathBuf,
        /// The last failure.
        source: std::io::Error,
    },
    /// An answer that no engine accepts.
    #[error("the answer to `{method}` is unusable: {problem}")]
    Unusable {
        /// What was asked.
        method: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A rule of the protocol is broken.
    #[error("{0}")]
    Broken(String),
    /// A recording cannot be read.
    #[error("recording `{}` is unusable: {problem}", path.display())]
    Recording {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A recorded action asks for something the player does not know.
    #[error("step `{step}` of `{action}` cannot be played: {problem}")]
    Play {
        /// The user's action.
        action: String,
        /// The call.
        step: String,
        /// Why not.
        problem: String,
    },
}

impl Fault {
    /// The sentence of a refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Refused { sentence, .. } => Some(sentence),
            _ => None,
        }
    }

    /// Fails with a sentence where something does not hold.
    pub(crate) fn unless(holds: bool, sentence: impl Into<String>) -> Result<(), Self> {
        if holds {
            Ok(())
        } else {
            Err(Self::Broken(sentence.into()))
        }
    }

    pub(crate) fn unusable(method: &str, problem: impl Into<String>) -> Self {
        Self::Unusable {
            method: method.to_owned(),
            problem: problem.into(),
        }
    }
}
