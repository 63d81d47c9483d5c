//! The one place that writes to the terminal: answers to standard output, everything else to
//! standard error.

use std::io::{self, Write as _};

use serde::Serialize;

/// Writes a line of the answer. A reader that has gone away is no failure.
pub(crate) fn line(text: &str) {
    drop(writeln!(io::stdout().lock(), "{text}").and_then(|()| io::stdout().flush()));
}

/// Writes the answer as JSON.
pub(crate) fn json<T: Serialize>(answer: &T) {
    match serde_json::to_string_pretty(answer) {
        Ok(text) => line(&text),
        Err(error) => problem(&format!("the answer is not representable as JSON: {error}")),
    }
}

/// Says something beside the answer.
pub(crate) fn note(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Says what went wrong.
pub(crate) fn problem(text: &str) {
    note(&format!("drover: {text}"));
}
