//! The processes of a host, their sockets, and finding those that run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use drover_daemon::Settings;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::debug;

use crate::authorization;

/// A process of Drover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    /// Cluster state.
    Coordinator,
    /// Addresses.
    Ipam,
    /// Networks.
    Network,
    /// Names.
    Names,
    /// Volumes.
    Volumes,
    /// Who may call the engine. Only where it is set up.
    Authorization,
}

impl Process {
    /// Those that run on every host, in the order in which they are started.
    pub(crate) const ALL: [Self; 5] = [
        Self::Coordinator,
        Self::Ipam,
        Self::Network,
        Self::Names,
        Self::Volumes,
    ];

    /// Those that run on this host, in the order in which they are started.
    pub(crate) fn of(settings: &Settings) -> Vec<Self> {
        let mut all = Self::ALL.to_vec();
        if authorization::is_set_up(settings) {
            // Before the engine needs it, and before anybody calls the engine.
            all.insert(0, Self::Authorization);
        }
        all
    }

    /// Each that there is, whether it runs on this host or not.
    pub(crate) fn every() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().chain([Self::Authorization])
    }

    /// The name of the process and of its program.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "drover-coordinator",
            Self::Ipam => "drover-ipam",
            Self::Network => "drover-net",
            Self::Names => "drover-names",
            Self::Volumes => "drover-vol",
            Self::Authorization => "drover-authz",
        }
    }

    /// Its socket.
    pub(crate) fn socket(self, settings: &Settings) -> PathBuf {
        match self {
            Self::Coordinator => settings.control_socket(),
            Self::Ipam | Self::Network | Self::Volumes | Self::Authorization => {
                settings.plugin_socket(self.name())
            }
            Self::Names => settings.names_socket(),
        }
    }

    /// Where its process id is written while it runs.
    pub(crate) fn pid_file(self, settings: &Settings) -> PathBuf {
        settings
            .run_dir
            .join("pids")
            .join(format!("{}.pid", self.name()))
    }
}

/// A process that runs, told apart from a later one of the same id by its time of start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Running {
    pid: i32,
    started: u64,
}

impl Running {
    /// The process with this id, if it runs.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let started = start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        Some(Self { pid, started })
    }

    /// The process that a pid file speaks of, if it still runs the program of that name.
    pub(crate) fn from_pid_file(file: &Path, program: &str) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let (pid, started) = text.trim().split_once(char::is_whitespace)?;
        let noted = Self {
            pid: pid.parse().ok()?,
            started: started.trim().parse().ok()?,
        };
        (Self::of(noted.pid) == Some(noted) && noted.runs(program)).then_some(noted)
    }

    /// Its id.
    pub(crate) const fn pid(self) -> i32 {
        self.pid
    }

    /// Writes a pid file, whole or not at all.
    pub(crate) fn write_pid_file(self, file: &Path) -> io::Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let under_way = file.with_extension("new");
        fs::write(&under_way, format!("{}\n{}\n", self.pid, self.started))?;
        fs::rename(under_way, file)
    }

    /// Whether it still runs. A zombie does not.
    pub(crate) fn is_there(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        start_time(&stat) == Some(self.started) && state(&stat) != Some('Z')
    }

    /// Sends a signal, unless the process has ended.
    pub(crate) fn signal(self, signal: Signal) {
        if self.is_there()
            && let Err(error) = kill(Pid::from_raw(self.pid), signal)
        {
            debug!(pid = self.pid, %error, "got no signal");
        }
    }

    /// Whether its program has this file name. A program that was replaced on disk has a mark
    /// behind its name.
    fn runs(self, program: &str) -> bool {
        let link = fs::read_link(format!("/proc/{}/exe", self.pid)).unwrap_or_default();
        let name = link.file_name().unwrap_or_default().to_string_lossy();
        name.strip_suffix(" (deleted)").unwrap_or(&name) == program
    }
}

/// What follows the command's name in `/proc/PID/stat`; the name itself may hold anything.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace()
}

fn state(stat: &str) -> Option<char> {
    fields(stat).next()?.chars().next()
}

/// The 22nd field: when the process started, in ticks since boot (proc(5)).
fn start_time(stat: &str) -> Option<u64> {
    fields(stat).nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_command_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(start_time(stat), Some(4711));
        assert_eq!(state(stat), Some('S'));
    }

    #[test]
    fn a_pid_file_speaks_of_this_very_process_or_of_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids/me.pid");
        let own = i32::try_from(std::process::id()).unwrap();
        let me = Running::of(own).unwrap();
        me.write_pid_file(&file).unwrap();
        let program = std::env::current_exe().unwrap();
        let program = program.file_name().unwrap().to_str().unwrap();
        assert_eq!(Running::from_pid_file(&file, program), Some(me));
        assert_eq!(Running::from_pid_file(&file, "drover-net"), None);
        fs::write(&file, format!("{own}\n{}\n", me.started + 1)).unwrap();
        assert_eq!(
            Running::from_pid_file(&file, program),
            None,
            "another process of that id"
        );
    }
}
