//! The command line: what can be said.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use drover_daemon::Overrides;
use drover_model::HostName;

use crate::backup::BackupCommand;
use crate::help;

mod volume;

pub(crate) use volume::{
    ProjectCommand, SnapshotArguments, SnapshotCommand, VolumeArguments, VolumeCommand,
};

/// Networks and volumes for Docker containers across hosts
#[derive(Debug, Parser)]
#[command(name = "drover", version, max_term_width = 100, after_help = help::DROVER)]
pub(crate) struct Arguments {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Where things are")]
struct Places {
    /// Durable state [default: /var/lib/drover]
    #[arg(long, global = true, value_name = "DIR", display_order = 100)]
    state_dir: Option<String>,
    /// Sockets and pid files [default: /run/drover]
    #[arg(long, global = true, value_name = "DIR", display_order = 101)]
    run_dir: Option<String>,
    /// Docker's plugin sockets [default: /run/docker/plugins]
    #[arg(long, global = true, value_name = "DIR", display_order = 102)]
    plugin_dir: Option<String>,
    /// The engine [default: unix:///var/run/docker.sock]
    #[arg(long, global = true, value_name = "URL", display_order = 103)]
    docker_host: Option<String>,
    /// The configuration file [default: /etc/drover/drover.toml]
    #[arg(long, global = true, value_name = "FILE", display_order = 104)]
    config: Option<PathBuf>,
}

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run Drover on this host
    #[command(after_help = help::UP)]
    Up(UpArguments),
    /// Make this host a cluster, or invite another host to it
    #[command(after_help = help::INIT)]
    Init(InitArguments),
    /// Join this host to a cluster
    #[command(after_help = help::JOIN)]
    Join(JoinArguments),
    /// Take this host out of its cluster
    #[command(after_help = help::LEAVE)]
    Leave(Form),
    /// Manage other hosts of the cluster
    #[command(subcommand)]
    Host(HostCommand),
    /// Show this host, its processes and its cluster
    #[command(after_help = help::STATUS)]
    Status(Form),
    /// Show how each other host is reached
    Peers(Form),
    /// Show subnets, who has which part of them, and how full they are
    Ipam(Form),
    /// Show the networks and where they are
    Networks(Form),
    /// Show the names of containers, and what a container is told
    #[command(subcommand)]
    Dns(DnsCommand),
    /// Serve the engine's API at a socket to whoever comes by it, as a role allows
    #[command(after_help = help::AUTHZ, disable_help_flag = true)]
    Authz(PolicyArguments),
    /// Check, test, explain and learn policies of who may call the engine
    #[command(after_help = help::POLICY)]
    Policy(PolicyArguments),
    /// Show and manage volumes, their snapshots and the trash
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Take snapshots of several volumes at one instant
    #[command(subcommand)]
    Snapshot(ProjectCommand),
    /// Back up, restore, and look after backups
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Find faults, their causes and remedies
    #[command(after_help = help::DOCTOR)]
    Doctor(Form),
    /// Remove everything of Drover from this host
    #[command(after_help = help::RESET)]
    Reset(ResetArguments),
    /// List the exit codes
    #[command(hide = true, name = "exit-codes", override_help = help::EXIT_CODES)]
    ExitCodes,
}

/// What is handed to `drover-authz`, which has the policy language.
#[derive(Debug, Args)]
pub(crate) struct PolicyArguments {
    /// A command of those below, and what it takes
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) words: Vec<String>,
}

/// Managing other hosts.
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Remove a host that will not come back: fence it, and release what it held
    #[command(after_help = help::HOST_RM)]
    Rm(HostRmArguments),
}

/// Names.
#[derive(Debug, Subcommand)]
pub(crate) enum DnsCommand {
    /// List the names of containers, who has them, and who is handed out
    #[command(after_help = help::DNS_LS)]
    Ls(DnsLsArguments),
    /// Tell what a container would be told that asks for a name, and why
    #[command(after_help = help::DNS_LOOKUP)]
    Lookup(DnsLookupArguments),
    /// Show what containers of this host have asked, and what became of it
    #[command(after_help = help::DNS_METRICS)]
    Metrics(Form),
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Form {
    /// Write the answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// This host's name in the cluster [default: the machine's host name]
    #[arg(long, value_name = "NAME")]
    host_name: Option<String>,
    /// Where other hosts reach this one [default: the address of the default route]
    #[arg(long, value_name = "IP")]
    advertise_addr: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// Where other hosts reach this one [default: the address of the default route]
    #[arg(long, value_name = "IP")]
    pub(crate) advertise_addr: Option<IpAddr>,
    /// Use this etcd instead of starting one
    #[arg(long, value_name = "URL,...", value_delimiter = ',')]
    pub(crate) etcd_endpoints: Vec<String>,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArguments {
    /// The token that `drover init` printed
    #[arg(
        long,
        value_name = "TOKEN",
        env = "DROVER_JOIN_TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: String,
    /// The address that `drover init` printed
    #[arg(value_name = "HOST:PORT")]
    pub(crate) address: String,
    /// Where other hosts reach this one [default: the address it reaches the cluster from]
    #[arg(long, value_name = "IP")]
    pub(crate) advertise_addr: Option<IpAddr>,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct HostRmArguments {
    /// The host's name in the cluster
    #[arg(value_name = "NAME")]
    pub(crate) name: HostName,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct DnsLsArguments {
    /// Only of this network
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<String>,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct DnsLookupArguments {
    /// The name that is asked for, or an address for its names
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// As a container on this network asks
    #[arg(long, value_name = "NETWORK", required_unless_present = "from")]
    pub(crate) network: Option<String>,
    /// As this container asks, of any host: its name or id
    #[arg(long, value_name = "CONTAINER")]
    pub(crate) from: Option<String>,
    /// What is asked for: A, AAAA, SRV or PTR [default: A and AAAA, or PTR for an address]
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct ResetArguments {
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Remove all volumes and snapshots too; without it they stay for the next `drover up`
    #[arg(long)]
    pub(crate) volumes: bool,
    #[command(flatten)]
    pub(crate) form: Form,
}

impl Arguments {
    /// The settings that were given as options.
    pub(crate) fn overrides(&self) -> Overrides {
        let places = &self.places;
        let mut options = vec![
            ("state_dir", &places.state_dir),
            ("run_dir", &places.run_dir),
            ("plugin_dir", &places.plugin_dir),
            ("docker_host", &places.docker_host),
        ];
        if let Command::Up(up) = &self.command {
            options.push(("host_name", &up.host_name));
            options.push(("advertise_addr", &up.advertise_addr));
        }
        let given = |(name, text): (&'static str, &Option<String>)| Some((name, text.clone()?));
        Overrides {
            config: places.config.clone(),
            values: options.into_iter().filter_map(given).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::view::golden::assert_golden;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_is_as_approved() {
        let help = |words: &[&str]| {
            let words = std::iter::once("drover").chain(words.iter().copied());
            let words = words.chain(["--help"]);
            let command = Arguments::command().term_width(100);
            let shown = command.try_get_matches_from(words).unwrap_err();
            shown.to_string().trim_end().to_owned()
        };
        assert_golden("help", &help(&[]));
        for command in [
            "up", "init", "join", "leave", "status", "peers", "ipam", "networks", "doctor", "reset",
        ] {
            assert_golden(&format!("help-{command}"), &help(&[command]));
        }
        for command in ["ls", "lookup", "metrics"] {
            assert_golden(&format!("help-dns-{command}"), &help(&["dns", command]));
        }
        for command in [
            "ls",
            "inspect",
            "resize",
            "restore-trash",
            "pause",
            "snapshot",
        ] {
            let name = format!("help-volume-{command}");
            assert_golden(&name, &help(&["volume", command]));
        }
        for command in ["create", "ls", "rm", "diff", "mount", "umount", "rollback"] {
            let name = format!("help-volume-snapshot-{command}");
            assert_golden(&name, &help(&["volume", "snapshot", command]));
        }
        assert_golden("help-snapshot-project", &help(&["snapshot", "project"]));
        for command in ["create", "restore", "forget"] {
            assert_golden(
                &format!("help-backup-{command}"),
                &help(&["backup", command]),
            );
        }
        assert_golden("help-backup", &help(&["backup"]));
        assert_golden("help-host-rm", &help(&["host", "rm"]));
        assert_golden("help-exit-codes", &help(&["exit-codes"]));
    }

    #[test]
    fn options_become_settings() {
        let arguments = Arguments::try_parse_from([
            "drover",
            "up",
            "--run-dir",
            "/r",
            "--host-name",
            "h1",
            "--config",
            "/c",
        ]);
        let overrides = arguments.unwrap().overrides();
        assert_eq!(overrides.config, Some("/c".into()));
        assert_eq!(overrides.values.len(), 2);
        assert_eq!(overrides.values["host_name"], "h1");
    }
}
