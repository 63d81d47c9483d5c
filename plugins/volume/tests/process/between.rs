//! Comes between an engine and the process, and has the process stopped when it is asked for something.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What passes everything on.
pub(crate) struct Between {
    process: Pid,
    /// What a request begins with before which the process is stopped, once.
    met: Arc<Mutex<Option<String>>>,
}

impl Between {
    /// Takes the place of a socket, to which nobody has a connection yet: an engine keeps those that it has made.
    pub(crate) fn begin(socket: &Path, process: u32) -> Self {
        let behind = socket.with_extension("behind");
        fs::rename(socket, &behind).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let process = Pid::from_raw(process.try_into().unwrap());
        let met = Arc::new(Mutex::new(None));
        let waits_for = met.clone();
        spawn(move || {
            for asker in listener.incoming().map_while(Result::ok) {
                let answerer = UnixStream::connect(&behind).unwrap();
                let (back, to) = (answerer.try_clone().unwrap(), asker.try_clone().unwrap());
                spawn(move || pass(back, to, |_| {}));
                let waits_for = waits_for.clone();
                let meet = move |said: &[u8]| {
                    let mut waits_for = waits_for.lock().unwrap();
                    let begins = |line: &mut String| said.starts_with(line.as_bytes());
                    if waits_for.take_if(begins).is_some() {
                        stop(process);
                    }
                };
                spawn(move || pass(asker, answerer, meet));
            }
        });
        Self { process, met }
    }

    /// Has the process stopped before it hears of the next request for `method`.
    pub(crate) fn stop_at(&self, method: &str) {
        *self.met.lock().unwrap() = Some(format!("POST /{method} "));
    }

    /// Whether that has come to pass.
    pub(crate) fn has_stopped(&self) -> bool {
        self.met.lock().unwrap().is_none()
    }

    /// Lets the process go on.
    pub(crate) fn go_on(&self) {
        kill(self.process, Signal::SIGCONT).unwrap();
    }
}

/// Returns when it has stopped: a signal takes a moment.
fn stop(process: Pid) {
    kill(process, Signal::SIGSTOP).unwrap();
    let tasks = || {
        fs::read_dir(format!("/proc/{process}/task"))
            .unwrap()
            .flatten()
    };
    let runs = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat"));
        stat.is_ok_and(|stat| !stat.contains(") T "))
    };
    while tasks().any(runs) {
        sleep(Duration::from_millis(5));
    }
}

/// Passes on what one says to another, once it was looked at.
fn pass(mut from: UnixStream, mut to: UnixStream, look: impl Fn(&[u8])) {
    let mut buffer = [0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let said = buffer.get(..length).unwrap_or_default();
        look(said);
        if to.write_all(said).is_err() {
            break;
        }
    }
    // Whoever has gone already hears nothing.
    drop(to.shutdown(Shutdown::Write));
}
