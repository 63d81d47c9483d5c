//! `drover-authz authz ...`: what `drover authz` starts. A socket is a file in the policy folder; the process that serves it looks there.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use drover_daemon::{Exit, Overrides, Settings};
use drover_policy::Policy;

use crate::in_force;
use crate::role_socket::configuration::{self, SocketSettings};

/// How long the process may take to serve a new socket.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is written where there is no setup yet: as without the plugin, root's socket may do everything.
const FIRST_SETUP: &str = "mode = \"enforce\"\n\n[roles]\nadmin = [\"local\"]   # whoever is at the engine's own socket\n";

/// Sockets of the engine's API for one role each.
#[derive(Debug, Parser)]
#[command(name = "drover authz", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the engine's API at PATH to whoever comes by it, as ROLE allows; or stop serving it
    Socket(SocketArguments),
    /// List the sockets of roles, and whether they are served
    Sockets,
}

#[derive(Debug, Args)]
struct SocketArguments {
    /// The path of the socket; give it a folder of its own, which containers mount
    path: PathBuf,
    /// The role of whoever comes by it: a ready one, or one that your rules name
    #[arg(long, required_unless_present = "remove", conflicts_with = "remove")]
    role: Option<String>,
    /// The name of whoever comes by it, who owns what is made [default: socket:ROLE]
    #[arg(long, conflicts_with = "remove")]
    user: Option<String>,
    /// The owner of the file: a name or a number [default: root]
    #[arg(long, conflicts_with = "remove")]
    owner: Option<String>,
    /// The group of the file: a name or a number [default: root]
    #[arg(long, conflicts_with = "remove")]
    group: Option<String>,
    /// The mode of the file [default: 0660 with --group, else 0600]
    #[arg(long, conflicts_with = "remove")]
    mode: Option<String>,
    /// Log what would be denied, and let it through
    #[arg(long, conflicts_with = "remove")]
    monitor: bool,
    /// Stop serving the socket, and remove it
    #[arg(long)]
    remove: bool,
}

/// Runs a command about sockets.
pub fn run(words: impl Iterator<Item = String>) -> ExitCode {
    let words = std::iter::once("drover authz".to_owned()).chain(words);
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            let shown = error.print().is_ok();
            let well = shown && !error.use_stderr();
            return if well { Exit::Success } else { Exit::Usage }.into();
        }
    };
    let settings = match Settings::load(&Overrides::default()) {
        Ok(settings) => settings,
        Err(error) => {
            say(&mut io::stderr(), &format!("drover: {error}"));
            return Exit::Configuration.into();
        }
    };
    let folder = &settings.authorization.policy_dir;
    let done = match arguments.command {
        Command::Socket(socket) if socket.remove => remove(folder, &socket.path),
        Command::Socket(socket) => add(folder, socket),
        Command::Sockets => list(folder),
    };
    match done {
        Ok(text) => {
            say(&mut io::stdout(), text.trim_end());
            ExitCode::SUCCESS
        }
        Err(fault) => {
            say(&mut io::stderr(), &format!("drover: {fault}"));
            ExitCode::FAILURE
        }
    }
}

fn say(stream: &mut impl io::Write, text: &str) {
    // Nobody is left to tell that nobody listens.
    drop(writeln!(stream, "{text}"));
}

fn add(folder: &Path, arguments: SocketArguments) -> Result<String, String> {
    let settings = SocketSettings {
        path: arguments.path,
        role: arguments.role.unwrap_or_default(),
        user: arguments.user,
        owner: arguments.owner,
        group: arguments.group,
        mode: arguments.mode,
        monitor: arguments.monitor,
    };
    settings.check()?;
    let file = configuration::file(folder, &settings.path);
    let failed = |error: io::Error| format!("cannot write `{}`: {error}", file.display());
    fs::create_dir_all(file.parent().unwrap_or(folder)).map_err(failed)?;
    let setup = folder.join("authorization.toml");
    if !setup.exists() {
        fs::write(&setup, FIRST_SETUP)
            .map_err(|error| format!("cannot write `{}`: {error}", setup.display()))?;
    }
    let policy = in_force::read(folder)?;
    if !is_role(&policy, &settings.role) {
        return Err(format!(
            "no rule names the role `{}`: whoever came by the socket could do nothing. Ready roles: {}; \
             write rules for another one into a file in {} first",
            settings.role,
            policy.roles().join(", "),
            folder.display()
        ));
    }
    let under_way = file.with_extension("new");
    fs::write(&under_way, settings.text()).map_err(failed)?;
    fs::rename(&under_way, &file).map_err(failed)?;
    let shown = settings.path.display();
    let began = Instant::now();
    while UnixStream::connect(&settings.path).is_err() {
        if began.elapsed() > PATIENCE {
            return Ok(format!(
                "{shown} is written down ({}), and is not served yet: start `drover up` or drover-authz.service; \
                 `drover status` says what is in the way",
                file.display()
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(format!(
        "{shown} is served to `{}` in the role `{}`\nDOCKER_HOST=unix://{shown}",
        settings.user_name(),
        settings.role
    ))
}

fn is_role(policy: &Policy, role: &str) -> bool {
    policy.roles().iter().any(|known| known == role)
}

fn remove(folder: &Path, path: &Path) -> Result<String, String> {
    let file = configuration::file(folder, path);
    fs::remove_file(&file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "there is no such socket: there is no file `{}`; `drover authz sockets` lists them",
            file.display()
        ),
        _ => format!("cannot remove `{}`: {error}", file.display()),
    })?;
    let began = Instant::now();
    while UnixStream::connect(path).is_ok() && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    if UnixStream::connect(path).is_ok() {
        return Err(format!(
            "`{}` is still served: another file names it, or another process serves it",
            path.display()
        ));
    }
    Ok(format!("{} is not served any more", path.display()))
}

fn list(folder: &Path) -> Result<String, String> {
    let mut rows = vec![["SOCKET", "ROLE", "USER", "SERVED"].map(str::to_owned)];
    let mut faults = Vec::new();
    for (_, settings) in configuration::read(folder)? {
        match settings {
            Ok(settings) => rows.push([
                settings.path.display().to_string(),
                settings.role.clone(),
                settings.user_name(),
                if UnixStream::connect(&settings.path).is_ok() {
                    "yes"
                } else {
                    "no"
                }
                .to_owned(),
            ]),
            Err(fault) => faults.push(fault),
        }
    }
    if rows.len() == 1 && faults.is_empty() {
        return Ok("there are none: `drover authz socket --role ROLE PATH` makes one".to_owned());
    }
    let mut lines = table(&rows);
    lines.extend(faults);
    Ok(lines.join("\n"))
}

fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
