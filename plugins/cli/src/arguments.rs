//! The command line: what can be said, and what runs then.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use drover_daemon::{Exit, Overrides, Settings};

use crate::{output, up};

/// Networks for Docker containers across hosts.
#[derive(Debug, Parser)]
#[command(name = "drover", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Command,
}

/// Where things are; every command looks for them in the same way.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where things are")]
struct Places {
    /// Durable state [default: /var/lib/drover]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<String>,
    /// Sockets and pid files [default: /run/drover]
    #[arg(long, global = true, value_name = "DIR")]
    run_dir: Option<String>,
    /// Docker's plugin sockets [default: /run/docker/plugins]
    #[arg(long, global = true, value_name = "DIR")]
    plugin_dir: Option<String>,
    /// The engine [default: unix:///var/run/docker.sock]
    #[arg(long, global = true, value_name = "URL")]
    docker_host: Option<String>,
    /// The configuration file [default: /etc/drover/drover.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(UpArguments),
}

/// Run Drover on this host
#[derive(Debug, Args)]
struct UpArguments {
    /// This host's name in the cluster [default: the machine's host name]
    #[arg(long, value_name = "NAME")]
    host_name: Option<String>,
    /// Where other hosts reach this one [default: the address of the default route]
    #[arg(long, value_name = "IP")]
    advertise_addr: Option<String>,
}

/// Reads the command line and does what it says.
pub(crate) fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let shown = error.print().is_ok();
            return if shown && !error.use_stderr() {
                Exit::Success
            } else {
                Exit::Usage
            }
            .into();
        }
    };
    let mut overrides = overrides(arguments.places);
    match arguments.command {
        Command::Up(up) => {
            say(&mut overrides, "host_name", up.host_name);
            say(&mut overrides, "advertise_addr", up.advertise_addr);
            with_settings(&overrides, up::run)
        }
    }
}

fn with_settings(overrides: &Overrides, command: impl FnOnce(Settings) -> ExitCode) -> ExitCode {
    match Settings::load(overrides) {
        Ok(settings) => command(settings),
        Err(error) => {
            output::problem(&error.to_string());
            Exit::Configuration.into()
        }
    }
}

fn overrides(places: Places) -> Overrides {
    let mut overrides = Overrides {
        config: places.config,
        ..Overrides::default()
    };
    say(&mut overrides, "state_dir", places.state_dir);
    say(&mut overrides, "run_dir", places.run_dir);
    say(&mut overrides, "plugin_dir", places.plugin_dir);
    say(&mut overrides, "docker_host", places.docker_host);
    overrides
}

fn say(overrides: &mut Overrides, name: &'static str, text: Option<String>) {
    if let Some(text) = text {
        overrides.values.insert(name, text);
    }
}
