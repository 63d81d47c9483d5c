//! `drover backup`: asks the worker, `drover-backup`, and shows what it tells.
//!
//! On a terminal it shows a bar and then a sentence or a table. Elsewhere, or with `--json`, the worker's events go to
//! standard output as they come, a line of JSON each.

mod arguments;
mod bar;
mod forgotten;
mod show;

use std::convert::Infallible;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use drover_backup_protocol::{
    Create, Event, Failure, FailureKind, Operation, Outcome, Repository, Request, Restore, Source,
    Target,
};
use drover_control_api::Method;
use drover_control_api::volume::{BackUpVolume, BackupProgress, VerifyBackup};
use drover_daemon::{Exit, Settings};
use drover_model::{ByteSize, VolumeName};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::ask::{CommandError, LIMIT, REFUSED, ask};
use crate::output;
use crate::process::Process;
use crate::up::find_named;
use crate::view::catalogue::EveryBackupView;
use crate::view::show;
use crate::volume::catalogue;
pub(crate) use arguments::BackupCommand;
use arguments::{CreateArguments, RestoreArguments, VerifyArguments, Where};
use bar::Bar;
use forgotten::Listed;

/// The worker.
const PROGRAM: &str = "drover-backup";

/// How long a backup of a volume, or its verification, is waited for; it goes on afterwards.
const LONGEST: Duration = Duration::from_hours(48);

/// How often is asked how far it is.
const ASKING: Duration = Duration::from_millis(500);

/// Does what a `drover backup` command says.
pub(crate) async fn run(settings: &Settings, command: BackupCommand) -> Result<u8, CommandError> {
    let (place, operation) = match command {
        BackupCommand::Init(place) => (place, Operation::Init),
        BackupCommand::Create(mut arguments) => match arguments.source.take() {
            Some(path) => create(settings, arguments, &path)?,
            None => return back_up_volume(settings, arguments).await,
        },
        BackupCommand::Ls(arguments) if arguments.all => {
            let volume = arguments.volume.as_deref().map(volume_name).transpose()?;
            let table = catalogue(settings, volume).await?;
            show(&EveryBackupView::new(table), arguments.place.json);
            return Ok(0);
        }
        BackupCommand::Ls(arguments) => {
            let volume = arguments.volume;
            (arguments.place, Operation::List { volume })
        }
        BackupCommand::Restore(arguments) => restore(arguments)?,
        BackupCommand::Verify(arguments) if arguments.restore => {
            return verify_volume(settings, arguments).await;
        }
        BackupCommand::Verify(arguments) => {
            let backup = arguments.backup.clone();
            let against = arguments.source.as_deref().map(source).transpose()?;
            (arguments.place, Operation::Verify { backup, against })
        }
        BackupCommand::Forget(arguments) => {
            let operation = Operation::Forget {
                volume: arguments.volume,
                backups: arguments.id,
                keep: arguments.keep,
                dry_run: arguments.dry_run,
            };
            (arguments.place, operation)
        }
        BackupCommand::Prune(place) => (place, Operation::Prune),
        BackupCommand::Check(arguments) => {
            let read_data = arguments.read_data;
            (arguments.place, Operation::Check { read_data })
        }
        BackupCommand::Unlock(arguments) => {
            let all = arguments.all;
            (arguments.place, Operation::Unlock { all })
        }
    };
    let events = place.json || !stdout().is_terminal();
    let request = Request {
        repository: repository(place),
        operation,
    };
    let listed = Listed::before(settings, &request.repository.url, &request.operation).await;
    let outcome = work(&request, events).await?;
    if let Some(listed) = listed {
        listed.follow(settings, &outcome).await;
    }
    if !events {
        output::line(&show::outcome(&outcome));
    }
    let found = matches!(&outcome, Outcome::Checked(checked) if !checked.problems.is_empty());
    Ok(if found { REFUSED } else { 0 })
}

fn repository(place: Where) -> Repository {
    Repository {
        // Without them a command line is refused.
        url: place.repository.unwrap_or_default(),
        password_file: place.password_file.unwrap_or_default(),
        options_file: place.options_file,
        cache: place.cache_dir,
        keys: None,
        bandwidth: place.bandwidth.map(ByteSize::bytes),
    }
}

fn create(
    settings: &Settings,
    arguments: CreateArguments,
    path: &Path,
) -> Result<(Where, Operation), CommandError> {
    let host = settings.host_name.as_ref().map(ToString::to_string);
    let create = Create {
        volume: arguments.volume,
        host: host.unwrap_or_else(machine),
        time: None,
        tags: arguments.tag,
        facts: std::collections::BTreeMap::new(),
        source: source(path)?,
        parent: None,
        init: arguments.init,
    };
    Ok((arguments.place, Operation::Create(create)))
}

fn volume_name(text: &str) -> Result<VolumeName, CommandError> {
    let unusable = |error| CommandError::Other {
        sentence: format!("{error}"),
        code: Exit::Usage.code(),
    };
    text.parse::<VolumeName>().map_err(unusable)
}

/// Has drover-vol back up what a snapshot of the volume keeps.
async fn back_up_volume(
    settings: &Settings,
    arguments: CreateArguments,
) -> Result<u8, CommandError> {
    let volume = volume_name(&arguments.volume)?;
    let events = arguments.place.json || !stdout().is_terminal();
    let repository = absolute(repository(arguments.place))?;
    let request = BackUpVolume {
        volume,
        repository,
        tags: arguments.tag,
        init: arguments.init,
    };
    let created = waited_for(settings, &request.volume, &request, events).await?;
    end(Outcome::Created(created), events)
}

/// Has drover-vol restore a backup beside its volume.
async fn verify_volume(
    settings: &Settings,
    arguments: VerifyArguments,
) -> Result<u8, CommandError> {
    let events = arguments.place.json || !stdout().is_terminal();
    let request = VerifyBackup {
        volume: volume_name(&arguments.backup.volume)?,
        backup: arguments.backup,
        repository: absolute(repository(arguments.place))?,
    };
    let verified = waited_for(settings, &request.volume, &request, events).await?;
    end(Outcome::Verified(verified), events)
}

/// Paths are of the directory that the command was given in.
fn absolute(mut repository: Repository) -> Result<Repository, CommandError> {
    for file in std::iter::once(&mut repository.password_file)
        .chain(&mut repository.options_file)
        .chain(&mut repository.cache)
    {
        *file = std::path::absolute(&*file)
            .map_err(|error| CommandError::refused(format!("`{}`: {error}", file.display())))?;
    }
    Ok(repository)
}

/// Has drover-vol do something with a volume, and shows how far it is.
async fn waited_for<M: Method>(
    settings: &Settings,
    volume: &VolumeName,
    request: &M,
    events: bool,
) -> Result<M::Answer, CommandError> {
    tokio::select! {
        done = ask(settings, Process::Volumes, request, LONGEST) => done,
        never = watch(settings, volume, events) => match never {},
    }
}

/// Tells what came of it.
fn end(outcome: Outcome, events: bool) -> Result<u8, CommandError> {
    if events {
        let line = serde_json::to_string(&Event::Done { outcome }).map_err(died)?;
        output::line(&line);
    } else {
        output::line(&show::outcome(&outcome));
    }
    Ok(0)
}

/// Shows how far the backup of a volume is, for as long as it is waited for.
async fn watch(settings: &Settings, volume: &VolumeName, events: bool) -> Infallible {
    let mut bar = Bar::new();
    let mut shown = None;
    let asked = BackupProgress {
        volume: volume.clone(),
    };
    loop {
        tokio::time::sleep(ASKING).await;
        // What is wrong, whoever asked for the backup is told.
        let answer = ask(settings, Process::Volumes, &asked, LIMIT).await;
        let Some(progress) = answer.ok().and_then(|it| it.progress) else {
            continue;
        };
        if !events {
            bar.show(&progress);
        } else if shown != Some(progress)
            && let Ok(line) = serde_json::to_string(&Event::Progress(progress))
        {
            output::line(&line);
        }
        shown = Some(progress);
    }
}

/// The name of this machine.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// What is at a path: a directory, or a device or its image.
fn source(path: &Path) -> Result<Source, CommandError> {
    let unusable = |fault: &dyn std::fmt::Display| {
        CommandError::refused(format!("`{}` cannot be backed up: {fault}", path.display()))
    };
    let path = path.canonicalize().map_err(|error| unusable(&error))?;
    let metadata = path.metadata().map_err(|error| unusable(&error))?;
    if metadata.is_dir() {
        return Ok(Source::Tree { path });
    }
    let mut file = std::fs::File::open(&path).map_err(|error| unusable(&error))?;
    // A device's size is where it ends.
    let end = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0));
    let size = end.map_err(|error| unusable(&error))?;
    Ok(Source::Block {
        path,
        size,
        changed: None,
    })
}

fn restore(arguments: RestoreArguments) -> Result<(Where, Operation), CommandError> {
    let path = std::path::absolute(&arguments.target).map_err(|error| {
        CommandError::refused(format!("`{}`: {error}", arguments.target.display()))
    })?;
    let target = match (arguments.path, arguments.image) {
        (Some(inner), _) => Target::Part { inner, path },
        (None, true) => Target::Block { path, blank: false },
        (None, false) => Target::Directory { path },
    };
    let operation = Operation::Restore(Restore {
        backup: arguments.backup,
        target,
    });
    Ok((arguments.place, operation))
}

/// Runs the worker until it has ended.
async fn work(request: &Request, events: bool) -> Result<Outcome, CommandError> {
    let mut child = Command::new(program()?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| CommandError::unavailable(format!("starting `{PROGRAM}`: {error}")))?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(died("it has no standard input and output"));
    };
    let asked = serde_json::to_vec(request).map_err(died)?;
    stdin.write_all(&asked).await.map_err(died)?;
    drop(stdin);
    let mut lines = BufReader::new(stdout).lines();
    let mut bar = Bar::new();
    let mut ended = None;
    while let Some(line) = lines.next_line().await.map_err(died)? {
        if events {
            output::line(&line);
        }
        match serde_json::from_str(&line).map_err(died)? {
            Event::Progress(progress) if !events => bar.show(&progress),
            Event::Warning { message } if !events => bar.beside(&message),
            Event::Progress(_) | Event::Warning { .. } => {}
            Event::Done { outcome } => ended = Some(Ok(outcome)),
            Event::Failed(failure) => ended = Some(Err(failure)),
        }
    }
    bar.end();
    child.wait().await.map_err(died)?;
    ended
        .ok_or_else(|| died("it did not say how its work ended"))?
        .map_err(|failure| refused(&failure))
}

fn died(reason: impl std::fmt::Display) -> CommandError {
    CommandError::Other {
        sentence: format!(
            "`{PROGRAM}` died ({reason}); ask again: what it had sent is found and used"
        ),
        code: Exit::Bug.code(),
    }
}

fn refused(failure: &Failure) -> CommandError {
    let code = match failure.kind {
        FailureKind::InvalidInput => Exit::Usage.code(),
        FailureKind::Unreachable => Exit::Unavailable.code(),
        FailureKind::Internal => Exit::Bug.code(),
        _ => REFUSED,
    };
    CommandError::Other {
        sentence: failure.message.clone(),
        code,
    }
}

fn program() -> Result<PathBuf, CommandError> {
    find_named(PROGRAM).map_err(|missing| CommandError::unavailable(missing.to_string()))
}
