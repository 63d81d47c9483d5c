//! A command around a snapshot, and what came of it.

use std::time::{Duration, Instant};

use drover_engine::Engine;
use serde::{Deserialize, Serialize};

/// A command for `sh -c` in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    /// The id of the container.
    pub(crate) container: String,
    /// Its name, for people.
    pub(crate) name: String,
    /// What the shell is given.
    pub(crate) script: String,
    /// How long it may take, seconds.
    pub(crate) limit: u64,
}

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It ended well.
    Done,
    /// It was begun, and why it did not end well.
    Failed(String),
    /// It was not begun, and why not: its container is paused, or the engine away.
    NotBegun(String),
    /// Its container is not there.
    NoContainer(String),
}

impl Outcome {
    /// Why it did not end well.
    pub(crate) fn problem(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::Failed(problem) | Self::NotBegun(problem) | Self::NoContainer(problem) => {
                Some(problem)
            }
        }
    }
}

impl Command {
    pub(crate) async fn run(&self, engine: &Engine) -> Outcome {
        let words = ["sh", "-c", &self.script];
        let prepared = match engine.prepare(&self.container, &words).await {
            Ok(prepared) => prepared,
            Err(error) if error.is_not_found() => return Outcome::NoContainer(error.sentence()),
            Err(error) => return Outcome::NotBegun(error.sentence()),
        };
        let (limit, began) = (Duration::from_secs(self.limit), Instant::now());
        match engine.execute(prepared, limit).await {
            Ok(done) if done.exit_code == 0 => Outcome::Done,
            Ok(done) => {
                let said: String = done.output.chars().take(200).collect();
                Outcome::Failed(format!("exit code {}: {said}", done.exit_code))
            }
            Err(_) if began.elapsed() >= limit => Outcome::Failed(format!(
                "it was not done within {} s; it goes on in the container",
                self.limit
            )),
            // Stopped or paused between the two calls.
            Err(error @ drover_engine::Error::Refused { status: 409, .. }) => {
                Outcome::NotBegun(error.sentence())
            }
            Err(error) => Outcome::Failed(error.sentence()),
        }
    }
}
