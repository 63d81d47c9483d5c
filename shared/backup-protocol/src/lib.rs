//! What the backup worker, `drover-backup`, is asked, and what it answers.
//!
//! A worker does one piece of work: it reads one [`Request`] (JSON) from its standard input until the end, writes
//! [`Event`]s to its standard output, a line of JSON each, and ends. The last line is [`Event::Done`] or
//! [`Event::Failed`]; a worker that ends without either has died, and its work may be asked for again: what it had
//! already written to the repository is found and used.
//!
//! ```text
//! Request --stdin--> drover-backup --stdout--> progress ... progress, done | failed
//!                          |
//!                          v
//!             a restic repository (format version 2) at a URL
//! ```
//!
//! Secrets are in files and are named by their paths: none is in a request, an event, or a command line.

mod event;
mod request;
mod schedule;

pub use event::{
    Backup, Checked, Created, Event, Failure, FailureKind, Forgotten, Outcome, Phase, Problem,
    Progress, Pruned, Restored, Unit,
};
pub use request::{
    ByteRange, Create, Keep, Operation, Repository, Request, Restore, Selector, Source, Target,
};
pub use schedule::{KeepError, SelectorError};
