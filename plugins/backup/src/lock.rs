//! Locks that restic respects, and restic's, which are respected here.
//!
//! A lock is a file in `locks/`. Any number of processes that only add hold ordinary locks beside each other; one that
//! removes holds an exclusive lock, alone. A lock is stale when it was not renewed for half an hour, or when its
//! process was on this host and is gone; restic's rules, `internal/restic/lock.go`.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use drover_backup_protocol::{Failure, FailureKind};
use rustic_core::Id;
use rustic_core::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::failure::{Result, failure, internal};
use crate::files::Files;

/// A lock that was not renewed for so long is stale.
const STALE: Duration = Duration::from_secs(30 * 60);

/// A lock is renewed so often.
const RENEWAL: Duration = Duration::from_secs(5 * 60);

/// How long we wait for locks that do not go together with ours.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often we look again meanwhile.
const AGAIN: Duration = Duration::from_secs(2);

/// The lock of this process, for when it ends in no good order.
static HELD: Mutex<Option<Arc<Shared>>> = Mutex::new(None);

/// Removes this process's lock at once.
pub(crate) fn abandon() {
    // Whoever panics may hold either of these.
    let Ok(mut held) = HELD.try_lock() else {
        return;
    };
    let Some(shared) = held.take() else {
        return;
    };
    if let Ok(state) = shared.state.try_lock()
        && shared.files.remove_path(&path(&state.id)).is_err()
    {
        // It becomes stale by itself.
    }
}

/// What is in a lock's file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    time: Timestamp,
    exclusive: bool,
    hostname: String,
    #[serde(default)]
    username: String,
    pid: i32,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
}

/// What this process may do beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It only adds, or reads.
    Shared,
    /// It removes.
    Exclusive,
}

/// A lock that is held; dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Lock {
    shared: Arc<Shared>,
    renewer: Option<std::thread::JoinHandle<()>>,
    /// No other lock was there when it was taken.
    alone: bool,
}

#[derive(Debug)]
struct Shared {
    files: Arc<Files>,
    codec: Codec,
    mode: Mode,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    id: Id,
    renewed: Instant,
    ended: bool,
}

impl Lock {
    /// Takes a lock, and waits for others for a while.
    pub(crate) fn take(files: &Arc<Files>, codec: &Codec, mode: Mode) -> Result<Self> {
        Self::take_while(files, codec, mode, || ()).map(|(lock, ())| lock)
    }

    /// The same, and does something meanwhile, which nobody who holds a lock can spoil.
    pub(crate) fn take_while<T>(
        files: &Arc<Files>,
        codec: &Codec,
        mode: Mode,
        mut meanwhile: impl FnMut() -> T,
    ) -> Result<(Self, T)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::attempt(files, codec, mode, &mut meanwhile) {
                Err(blocked) if blocked.kind == FailureKind::Locked => {
                    if Instant::now() >= deadline {
                        return Err(blocked);
                    }
                    std::thread::sleep(AGAIN);
                }
                other => return other,
            }
        }
    }

    fn attempt<T>(
        files: &Arc<Files>,
        codec: &Codec,
        mode: Mode,
        meanwhile: impl FnOnce() -> T,
    ) -> Result<(Self, T)> {
        check(files, codec, mode, None)?;
        let id = write(files, codec, mode)?;
        let settled = || -> Result<_> {
            // Of two who write and then look, the second sees the first. Looked at only later, one who had begun before
            // and is done by then would not be seen.
            let others = check(files, codec, mode, Some(id))?;
            let begun = Instant::now();
            let done = meanwhile();
            let delay = files.listing_delay();
            if delay.is_zero() {
                return Ok((others, done));
            }
            std::thread::sleep(delay.saturating_sub(begun.elapsed()));
            Ok((others.max(check(files, codec, mode, Some(id))?), done))
        };
        let (others, done) = match settled() {
            Ok(settled) => settled,
            Err(blocked) => {
                files.remove_path(&path(&id))?;
                return Err(blocked);
            }
        };
        let shared = Arc::new(Shared {
            files: Arc::clone(files),
            codec: codec.clone(),
            mode,
            state: Mutex::new(State {
                id,
                renewed: Instant::now(),
                ended: false,
            }),
            ended: Condvar::new(),
        });
        *HELD.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&shared));
        let renewing = Arc::clone(&shared);
        let renewer = std::thread::Builder::new()
            .name("lock".to_owned())
            .spawn(move || renewing.renew())
            .map_err(internal)?;
        let lock = Self {
            shared,
            renewer: Some(renewer),
            alone: others == 0,
        };
        Ok((lock, done))
    }

    /// No other process held a lock when this was taken.
    pub(crate) const fn is_alone(&self) -> bool {
        self.alone
    }

    /// Fails when the lock could not be renewed and so counts for nothing any more.
    pub(crate) fn held(&self) -> Result<()> {
        let renewed = self.shared.lock().renewed;
        if renewed.elapsed() < STALE {
            return Ok(());
        }
        let location = self.shared.files.location();
        Err(failure(
            FailureKind::Unreachable,
            format!(
                "the lock at `{location}` could not be renewed for half an hour: what was being done is given up"
            ),
        ))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.ended.notify_all();
        if let Some(renewer) = self.renewer.take()
            && renewer.join().is_err()
        {
            // It has told on standard error what befell it.
        }
        *HELD.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let id = self.shared.lock().id;
        if self.shared.files.remove_path(&path(&id)).is_err() {
            // The target is gone; the lock becomes stale by itself.
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew(&self) {
        loop {
            let waited = self
                .ended
                .wait_timeout_while(self.lock(), RENEWAL, |state| !state.ended);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.ended {
                return;
            }
            let old = state.id;
            drop(state);
            // What cannot be renewed now is tried again; `held` tells when it is too late.
            let Ok(id) = write(&self.files, &self.codec, self.mode) else {
                continue;
            };
            let mut state = self.lock();
            state.id = id;
            state.renewed = Instant::now();
            drop(state);
            if self.files.remove_path(&path(&old)).is_err() {
                // It becomes stale by itself.
            }
        }
    }
}

fn path(id: &Id) -> String {
    format!("locks/{}", id.to_hex().as_str())
}

/// The name of this host, as restic writes it into its locks.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

fn write(files: &Files, codec: &Codec, mode: Mode) -> Result<Id> {
    let record = Record {
        time: Timestamp::now(),
        exclusive: mode == Mode::Exclusive,
        hostname: hostname(),
        username: "root".to_owned(),
        pid: i32::try_from(std::process::id()).unwrap_or(i32::MAX),
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
    };
    let json = serde_json::to_vec(&record).map_err(internal)?;
    let (id, sealed) = codec.seal_file(&json)?;
    files.write_path(&path(&id), &[sealed.into()], true)?;
    Ok(id)
}

/// Fails when a lock is there that does not go together with ours; removes those which are stale, and tells how many
/// others there are.
fn check(files: &Files, codec: &Codec, mode: Mode, own: Option<Id>) -> Result<usize> {
    let mut others = 0;
    for (id, _) in files.list_folder("locks")? {
        if Some(id) == own {
            continue;
        }
        let Some(sealed) = files.read_path(&path(&id))? else {
            continue;
        };
        let json = codec.unseal_file(&sealed);
        let record = json.and_then(|json| serde_json::from_slice::<Record>(&json).ok());
        // One that cannot be read may be of a newer restic, and counts.
        if record.as_ref().is_some_and(Record::is_stale) {
            files.remove_path(&path(&id))?;
            continue;
        }
        let exclusive = record.as_ref().is_none_or(|record| record.exclusive);
        if exclusive || mode == Mode::Exclusive {
            return Err(blocked(files, &id, record.as_ref()));
        }
        others += 1;
    }
    Ok(others)
}

fn blocked(files: &Files, id: &Id, record: Option<&Record>) -> Failure {
    let location = files.location();
    let who = record.map_or_else(
        || format!("`{}`, which cannot be read", path(id)),
        |record| {
            let kind = if record.exclusive {
                "an exclusive lock"
            } else {
                "a lock"
            };
            format!(
                "{kind} of process {} on `{}` since {}",
                record.pid, record.hostname, record.time
            )
        },
    );
    failure(
        FailureKind::Locked,
        format!(
            "the repository at `{location}` is locked: there is {who}; wait, or remove it with `drover backup unlock`"
        ),
    )
}

/// Removes locks that are stale, or all of them; tells how many.
pub(crate) fn unlock(files: &Files, codec: &Codec, all: bool) -> Result<u64> {
    let mut removed = 0;
    for (id, _) in files.list_folder("locks")? {
        let Some(sealed) = files.read_path(&path(&id))? else {
            continue;
        };
        let json = codec.unseal_file(&sealed);
        let record = json.and_then(|json| serde_json::from_slice::<Record>(&json).ok());
        if all || record.is_some_and(|record| record.is_stale()) {
            files.remove_path(&path(&id))?;
            removed += 1;
        }
    }
    Ok(removed)
}

impl Record {
    fn is_stale(&self) -> bool {
        let age = Timestamp::now().duration_since(self.time);
        let old = Duration::try_from(age).is_ok_and(|age| age > STALE);
        old || (self.hostname == hostname() && !is_alive(self.pid))
    }
}

fn is_alive(pid: i32) -> bool {
    let found = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None);
    found != Err(nix::errno::Errno::ESRCH)
}
