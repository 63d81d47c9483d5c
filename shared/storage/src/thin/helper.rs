//! The process that drives LVM for us, started when it is needed and again when it has died.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use drover_lvm_protocol::{Answer, Request};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{info, warn};

use crate::error::{Error, Result};

/// How long a request may take. A driver call must be over within the engine's 120 s.
const LIMIT: Duration = Duration::from_secs(100);
/// How much is read at once.
const CHUNK: usize = 64 * 1024;
/// Where programs are that LVM starts, such as `thin_check`.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// What there is where udev runs and makes the nodes of devices.
const UDEV: &str = "/run/udev/control";

/// The process, and what it is told first.
#[derive(Debug)]
pub(super) struct Helper {
    program: PathBuf,
    /// Held while a request is done, so that a new process waits for the last request of an old one.
    lock: PathBuf,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
    /// What was read after the last answer.
    rest: Vec<u8>,
}

impl Helper {
    pub(super) fn new(program: &Path, lock: PathBuf) -> Self {
        Self {
            program: program.to_owned(),
            lock,
            running: Mutex::new(None),
        }
    }

    /// Does a request. `recover` is done before it when the process is a new one.
    pub(super) fn call(&self, request: &Request, recover: Option<&Request>) -> Result<Answer> {
        // Requests are done one at a time by the process anyhow.
        let mut place = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = match place.take() {
            Some(running) => running,
            None => self.start(recover)?,
        };
        let answer = running.ask(request).map_err(|error| {
            Error::Unavailable(format!(
                "`{}` did not answer ({error}): it is started anew with the next call",
                self.program.display()
            ))
        })?;
        *place = Some(running);
        drop(place);
        match answer {
            Answer::Failed { message, is_damage } => Err(Error::Unavailable(if is_damage {
                format!(
                    "{message}: stop what uses the pool, and repair it with `lvconvert --repair`"
                )
            } else {
                message
            })),
            answer => Ok(answer),
        }
    }

    fn start(&self, recover: Option<&Request>) -> Result<Running> {
        let mut command = Command::new(&self.program);
        command
            .arg(&self.lock)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .env("LVM_SUPPRESS_FD_WARNINGS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if !Path::new(UDEV).exists() {
            // Else the library waits for somebody to make the nodes.
            command.env("DM_DISABLE_UDEV", "1");
        }
        let mut child = command
            .spawn()
            .map_err(Error::system("start", &self.program))?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Unavailable("no pipes to LVM".to_owned()));
        };
        let mut running = Running {
            child,
            requests,
            answers,
            rest: Vec::new(),
        };
        if let Some(recover) = recover {
            match running.ask(recover) {
                Ok(Answer::Recovered { resumed, released }) => {
                    if !resumed.is_empty() || released {
                        info!(?resumed, released, "undid what LVM had left half done");
                    }
                }
                Ok(other) => warn!(answer = ?other, "LVM did not recover"),
                Err(error) => {
                    return Err(Error::Unavailable(format!(
                        "`{}` did not answer ({error})",
                        self.program.display()
                    )));
                }
            }
        }
        Ok(running)
    }
}

/// The answer to another request.
pub(super) fn unexpected(answer: &Answer) -> Error {
    Error::Unavailable(format!(
        "LVM's process gave an answer of another kind: {answer:?}"
    ))
}

impl Running {
    fn ask(&mut self, request: &Request) -> std::io::Result<Answer> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.requests.write_all(&line)?;
        let end = Instant::now() + LIMIT;
        let mut searched = 0;
        loop {
            let unseen = self.rest.get(searched..).unwrap_or_default();
            if let Some(length) = unseen.iter().position(|byte| *byte == b'\n') {
                let after = self.rest.split_off(searched + length + 1);
                let line = std::mem::replace(&mut self.rest, after);
                return Ok(serde_json::from_slice(&line)?);
            }
            searched = self.rest.len();
            self.read_more(end)?;
        }
    }

    fn read_more(&mut self, end: Instant) -> std::io::Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut descriptors = [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)];
        if left.is_zero() || poll(&mut descriptors, timeout)? == 0 {
            return Err(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("no answer within {} s", LIMIT.as_secs()),
            ));
        }
        let mut chunk = vec![0; CHUNK];
        let read = self.answers.read(&mut chunk)?;
        if read == 0 {
            return Err(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                "it has ended",
            ));
        }
        self.rest.extend(chunk.iter().take(read));
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that hangs would keep the lock.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
