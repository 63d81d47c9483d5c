//! The log of decisions: a JSON object a line, in files that are rotated. Nothing of a body is in it, and no parameters of a URI.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::Context as _;
use serde::Serialize;
use tracing::warn;

/// The longest file, bytes.
const LONGEST: u64 = 10 << 20;
/// How many older ones are kept.
const KEPT: u32 = 5;
/// How many lines may wait for the disk.
const WAITING: usize = 8192;

/// A line.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    /// When, RFC 3339.
    pub(crate) time: String,
    /// Who.
    pub(crate) user: String,
    /// The method.
    pub(crate) method: String,
    /// The operation; none when the call was not understood.
    pub(crate) operation: Option<&'static str>,
    /// What it was done to: `Container/web`.
    pub(crate) target: String,
    /// `allow`, `deny`, or `monitor`: it would have been denied.
    pub(crate) decision: &'static str,
    /// The rules that decided.
    pub(crate) rules: Vec<String>,
    /// Why it was denied.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    /// The questions that were denied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) denied: Vec<DeniedQuestion>,
    /// How long it took, microseconds.
    pub(crate) micros: u64,
}

/// A question that was denied.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DeniedQuestion {
    /// The action.
    pub(crate) action: &'static str,
    /// The type of its resource.
    pub(crate) kind: &'static str,
    /// Its resource.
    pub(crate) id: String,
    /// Whether that is the user's own.
    pub(crate) own: bool,
}

/// The log.
#[derive(Debug)]
pub(crate) struct DecisionLog {
    lines: SyncSender<Line>,
    lost: AtomicU64,
}

impl DecisionLog {
    /// Opens it, and the thread that writes it.
    pub(crate) fn open(path: PathBuf) -> anyhow::Result<Self> {
        let (lines, received) = sync_channel(WAITING);
        let file =
            open(&path).with_context(|| format!("cannot write the log `{}`", path.display()))?;
        std::thread::Builder::new()
            .name("decisions".to_owned())
            .spawn(move || write(&path, file, &received))
            .context("cannot start a thread")?;
        Ok(Self {
            lines,
            lost: AtomicU64::new(0),
        })
    }

    /// Writes a line, later. A disk that is slower than calls come does not hold them up.
    pub(crate) fn write(&self, line: Line) {
        if self.lines.try_send(line).is_err() {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed);
            if lost.is_power_of_two() {
                warn!(
                    lost,
                    "decisions are not logged: the disk is slower than calls come"
                );
            }
        }
    }

    /// How many lines were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn write(path: &Path, mut file: File, lines: &Receiver<Line>) {
    let mut size = file.metadata().map_or(0, |found| found.len());
    let mut failed = false;
    while let Ok(line) = lines.recv() {
        let written = serde_json::to_vec(&line)
            .map_err(io::Error::from)
            .and_then(|mut text| {
                text.push(b'\n');
                if size + u64::try_from(text.len()).unwrap_or(u64::MAX) > LONGEST {
                    file = rotate(path)?;
                    size = 0;
                }
                file.write_all(&text)?;
                size += u64::try_from(text.len()).unwrap_or_default();
                Ok(())
            });
        match written {
            Err(error) if !failed => {
                warn!(log = %path.display(), %error, "decisions are not logged");
                failed = true;
            }
            Err(_) => {}
            Ok(()) => failed = false,
        }
    }
}

/// Moves `log` to `log.1`, that to `log.2`, and so on; the oldest goes.
fn rotate(path: &Path) -> io::Result<File> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..KEPT).rev() {
        match fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(1))?;
    open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(reason: String) -> Line {
        Line {
            time: String::new(),
            user: "ann".to_owned(),
            method: "GET".to_owned(),
            operation: Some("SystemInfo"),
            target: String::new(),
            decision: "deny",
            rules: Vec::new(),
            reason,
            denied: Vec::new(),
            micros: 1,
        }
    }

    #[test]
    fn files_are_rotated_and_their_number_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.log");
        let log = DecisionLog::open(path.clone()).unwrap();
        // Ten lines a file.
        for _ in 0..85 {
            log.lines.send(line("x".repeat(1 << 20))).unwrap();
        }
        drop(log);
        let count = || fs::read_dir(folder.path()).unwrap().count();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while (count() != 6 || fs::metadata(&path).unwrap().len() < 3 << 20)
            && std::time::Instant::now() < deadline
        {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(count(), 6);
        for entry in fs::read_dir(folder.path()).unwrap() {
            assert!(entry.unwrap().metadata().unwrap().len() <= LONGEST);
        }
    }
}
