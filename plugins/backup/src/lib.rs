//! Drover's backup worker: volumes to and from restic repositories.
//!
//! It does one piece of work ([`Request`]), tells how far it is ([`Reporter`]), and ends. What is written is a restic
//! repository of format version 2, so that restic itself can check, list, dump and restore it:
//!
//! ```text
//! directory, btrfs snapshot --> the library's archiver ----+
//!                                                          +--> files --> directory, S3, GCS, Azure, SFTP
//! thin snapshot, changed ranges --> chunks --> own writer -+
//! ```
//!
//! The library, `rustic_core`, is used for repository, keys, the saving of trees, and prune. It reads every byte of a file that has changed, so
//! that block devices have a writer of their own ([`drover_backup_protocol::Source`]); and it holds much in memory when it restores, so that
//! this is done here, too.
//! It takes no locks; they are taken here, as restic takes them. Nothing else of Drover links any of this.

mod adopt;
mod catalog;
mod check;
mod codec;
mod failure;
mod faults;
mod fetch;
mod files;
mod image;
mod index;
mod known;
mod layout;
mod lock;
mod meter;
mod node;
mod pack;
mod report;
mod repository;
mod restore;
mod save;
mod storage;
mod upkeep;
mod verify;

use drover_backup_protocol::{Event, Failure, Operation, Outcome, Request};

use lock::Mode;
pub use report::Reporter;
use repository::{Make, Session};

/// Does a piece of work, and tells what came of it.
///
/// # Errors
///
/// When it could not be done; that was told to the reporter too.
pub fn work(request: &Request, reporter: &Reporter) -> Result<Outcome, Failure> {
    let done = perform(request, reporter);
    match &done {
        Ok(outcome) => reporter.event(&Event::Done {
            outcome: outcome.clone(),
        }),
        Err(failure) => reporter.event(&Event::Failed(failure.clone())),
    }
    done
}

/// Makes a panic the end of the work, told as any other: the library panics when a file that it restores cannot be
/// written, or when data that it reads is damaged.
pub fn end_at_panic(reporter: &Reporter) {
    let reporter = reporter.clone();
    std::panic::set_hook(Box::new(move |panic| {
        lock::abandon();
        reporter.event(&Event::Failed(failure::of_panic(&panic.to_string())));
        #[expect(
            clippy::exit,
            reason = "nothing of the work can go on, and nobody else is in this process"
        )]
        std::process::exit(1);
    }));
}

fn perform(request: &Request, reporter: &Reporter) -> Result<Outcome, Failure> {
    let make = match &request.operation {
        Operation::Init => Make::IfMissing,
        Operation::Create(create) if create.init => Make::IfMissing,
        _ => Make::Never,
    };
    let (session, made) = Session::open(&request.repository, make, reporter)?;
    match &request.operation {
        Operation::Init => Ok(Outcome::Initialised {
            id: session.id(),
            made,
        }),
        Operation::Create(create) => save::create(&session, create).map(Outcome::Created),
        Operation::List { volume } => {
            let lock = session.lock(Mode::Shared)?;
            let backups = catalog::list(&session, volume.as_deref())?;
            drop(lock);
            Ok(Outcome::Listed { backups })
        }
        Operation::Find { backup } => {
            let lock = session.lock(Mode::Shared)?;
            let (found, _) = catalog::select(&session, backup)?;
            drop(lock);
            Ok(Outcome::Found(found))
        }
        Operation::Restore(wish) => restore::restore(&session, wish).map(Outcome::Restored),
        Operation::Verify { backup, against } => {
            verify::verify(&session, backup, against.as_ref()).map(Outcome::Verified)
        }
        Operation::Compare { backup, with } => {
            verify::compare(&session, backup, with).map(Outcome::Verified)
        }
        Operation::Forget {
            volume,
            backups,
            keep,
            dry_run,
        } => {
            let wish = upkeep::Wish {
                volume: volume.as_deref(),
                backups,
                keep: *keep,
                dry_run: *dry_run,
            };
            upkeep::forget(&session, &wish).map(Outcome::Forgotten)
        }
        Operation::Prune => upkeep::prune(&session).map(Outcome::Pruned),
        Operation::Check { read_data } => check::check(&session, *read_data).map(Outcome::Checked),
        Operation::Unlock { all } => {
            let removed = lock::unlock(&session.files, &session.codec, *all)?;
            Ok(Outcome::Unlocked { removed })
        }
    }
}
