//! Failures: each of a kind that callers branch on, with one sentence that names the object and the remedy.

use std::fmt::Display;
use std::path::Path;

use drover_backup_protocol::{Failure, FailureKind};
use rustic_core::RusticError;

/// What a step of the work gives.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A failure of a kind.
pub(crate) fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure {
        kind,
        message: message.into(),
    }
}

/// The source of a backup could not be read.
pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let path = path.display();
    failure(FailureKind::Source, format!("reading `{path}`: {error}"))
}

/// The target of a restore could not be written.
pub(crate) fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    let path = path.display();
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => failure(
            FailureKind::Full,
            format!("there is no space left to write `{path}`"),
        ),
        _ => failure(FailureKind::Source, format!("writing `{path}`: {error}")),
    }
}

/// What a part of the repository says is not what it should say.
pub(crate) fn damaged(file: &str, what: impl Display) -> Failure {
    failure(
        FailureKind::Damaged,
        format!(
            "`{file}` of the repository is damaged: {what}; `drover backup check` finds what else is"
        ),
    )
}

/// The end of a chain of errors is a bug here.
pub(crate) fn internal(what: impl Display) -> Failure {
    failure(FailureKind::Internal, what.to_string())
}

/// One line of what the library reports in many, without the way that an error has taken through it.
pub(crate) fn told(error: &RusticError) -> String {
    shortened(&error.display_log())
}

/// The same of any text of the library.
pub(crate) fn shortened(text: &str) -> String {
    let end = ["Backtrace:", "backtrace:"]
        .iter()
        .filter_map(|mark| text.find(mark))
        .min();
    let text = end.and_then(|end| text.get(..end)).unwrap_or(text);
    let words: Vec<&str> = text.split_whitespace().take(60).collect();
    words.join(" ")
}

/// What a panic of the library means.
pub(crate) fn of_panic(text: &str) -> Failure {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["StorageFull", "QuotaExceeded"]) {
        return failure(
            FailureKind::Full,
            "there is no space left for what is restored",
        );
    }
    if has(&["Cryptography", "zstd"]) {
        return damaged("data", "something in it is not what was written");
    }
    let kind = if has(&["LocalDestination", "CouldNotWrite"]) {
        FailureKind::Source
    } else {
        FailureKind::Internal
    };
    failure(kind, shortened(text))
}
