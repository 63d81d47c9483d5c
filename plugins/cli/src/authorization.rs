//! Whether this host has an authorization plugin, and whether its engine is told to ask it.

use std::fs;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use drover_daemon::{Exit, Settings};

use crate::output;
use crate::process::{Process, Running};
use crate::up::find_program;

/// The name that the engine knows the plugin by.
pub(crate) const PLUGIN: &str = "drover-authz";
/// The engine's own settings.
const ENGINE_SETTINGS: &str = "/etc/docker/daemon.json";

/// Whether the plugin runs on this host: there are policies, or the engine will not start without it.
pub(crate) fn is_set_up(settings: &Settings) -> bool {
    settings.authorization.policy_dir.is_dir() || engine_names_it(Path::new(ENGINE_SETTINGS))
}

/// Whether the engine's settings name the plugin.
pub(crate) fn engine_is_told() -> bool {
    engine_names_it(Path::new(ENGINE_SETTINGS))
}

fn engine_names_it(file: &Path) -> bool {
    let Ok(text) = fs::read(file) else {
        return false;
    };
    let Ok(settings) = serde_json::from_slice::<serde_json::Value>(&text) else {
        return false;
    };
    let plugins = settings.get("authorization-plugins");
    let names = plugins.and_then(serde_json::Value::as_array);
    names.is_some_and(|names| names.iter().any(|name| name == PLUGIN))
}

/// Whether somebody else runs the plugin: its socket is served, and not by a process that a `drover up` has started.
pub(crate) fn is_run_by_another(settings: &Settings) -> bool {
    let process = Process::Authorization;
    let ours = Running::from_pid_file(&process.pid_file(settings), process.name());
    ours.is_none() && UnixStream::connect(process.socket(settings)).is_ok()
}

/// Has `drover-authz` do a command about policies or roles' sockets, in the place of this process.
pub(crate) fn hand_over(settings: &Settings, command: &str, words: &[String]) -> ExitCode {
    let program = match find_program(Process::Authorization) {
        Ok(program) => program,
        Err(error) => {
            output::problem(&error.to_string());
            return Exit::Unavailable.into();
        }
    };
    let error = Command::new(program)
        .arg(command)
        .args(words)
        .envs(settings.to_environment())
        .exec();
    output::problem(&format!("cannot start `{PLUGIN}`: {error}"));
    Exit::Unavailable.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_settings_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("daemon.json");
        assert!(!engine_names_it(&file));
        for (text, named) in [
            (r#"{"authorization-plugins":["drover-authz"]}"#, true),
            (r#"{"authorization-plugins":["other"]}"#, false),
            ("{}", false),
            ("{", false),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(engine_names_it(&file), named, "{text}");
        }
    }
}
