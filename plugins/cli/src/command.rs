//! From the command line to what runs, and from what came of it to an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use drover_control_api::coordinator::Join;
use drover_control_api::names::Lookup;
use drover_daemon::{Exit, Settings};

use crate::arguments::{
    Arguments, Command, DnsCommand, DnsLookupArguments, Form, HostCommand, JoinArguments,
    ResetArguments,
};
use crate::ask::{CommandError, REFUSED};
use crate::view::{View, dns, ipam, networks, peers, show, status};
use crate::{authorization, backup, cluster, doctor, help, output, reset, up, volume};

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
    if matches!(arguments.command, Command::ExitCodes) {
        output::line(help::EXIT_CODES);
        return ExitCode::SUCCESS;
    }
    let settings = match Settings::load(&arguments.overrides()) {
        Ok(settings) => settings,
        Err(error) => {
            output::problem(&error.to_string());
            return Exit::Configuration.into();
        }
    };
    match &arguments.command {
        Command::Up(_) => return up::run(settings),
        Command::Authz(authz) => return authorization::hand_over(&settings, "authz", &authz.words),
        Command::Policy(policy) => {
            return authorization::hand_over(&settings, "policy", &policy.words);
        }
        _ => {}
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            output::problem(&format!("cannot start the runtime: {error}"));
            return Exit::Unavailable.into();
        }
    };
    match runtime.block_on(execute(&settings, arguments.command)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::problem(&error.to_string());
            ExitCode::from(error.code())
        }
    }
}

async fn execute(settings: &Settings, command: Command) -> Result<u8, CommandError> {
    match command {
        Command::Init(init) => {
            let endpoints = init.etcd_endpoints;
            cluster::init(settings, init.advertise_addr, endpoints, init.form.json).await?;
        }
        Command::Join(join) => join_cluster(settings, join).await?,
        Command::Leave(form) => cluster::leave(settings, form.json).await?,
        Command::Host(HostCommand::Rm(host)) => {
            cluster::remove_host(settings, host.name, host.form.json).await?;
        }
        Command::Status(form) => return show_status(settings, form).await,
        Command::Peers(form) => show(&peers::gather(settings).await?, form.json),
        Command::Ipam(form) => show(&ipam::gather(settings).await?, form.json),
        Command::Networks(form) => show(&networks::gather(settings).await?, form.json),
        Command::Backup(command) => return backup::run(settings, command).await,
        Command::Dns(DnsCommand::Ls(ls)) => {
            show(&dns::names(settings, ls.network).await?, ls.form.json);
        }
        Command::Dns(DnsCommand::Lookup(asked)) => return look_up(settings, asked).await,
        Command::Dns(DnsCommand::Metrics(form)) => show(&dns::metrics(settings).await?, form.json),
        Command::Volume(command) => volume::run(settings, command).await?,
        Command::Snapshot(command) => volume::snapshot_project(settings, command).await?,
        Command::Doctor(form) => return run_doctor(settings, form).await,
        Command::Reset(arguments) => return run_reset(settings, &arguments).await,
        // Handled before there was a runtime.
        Command::Up(_) | Command::Authz(_) | Command::Policy(_) | Command::ExitCodes => {}
    }
    Ok(Exit::Success.code())
}

async fn join_cluster(settings: &Settings, join: JoinArguments) -> Result<(), CommandError> {
    let request = Join {
        token: join.token,
        address: join.address,
        advertise: join.advertise_addr,
    };
    cluster::join(settings, request, join.form.json).await
}

/// A coordinator that does not answer is part of the picture, and decides the exit code.
async fn show_status(settings: &Settings, form: Form) -> Result<u8, CommandError> {
    let (view, trouble) = status::gather(settings).await;
    show(&view, form.json);
    Ok(trouble.map_or(Exit::Success.code(), |error| error.code()))
}

/// A name that is not there is an answer, and decides the exit code.
async fn look_up(settings: &Settings, asked: DnsLookupArguments) -> Result<u8, CommandError> {
    let lookup = Lookup {
        name: asked.name,
        kind: asked.kind,
        network: asked.network,
        from: asked.from,
    };
    let view = dns::lookup(settings, &lookup).await?;
    show(&view, asked.form.json);
    Ok(if view.is_known() {
        Exit::Success.code()
    } else {
        REFUSED
    })
}

async fn run_doctor(settings: &Settings, form: Form) -> Result<u8, CommandError> {
    let report = doctor::examine(settings).await;
    show(&report, form.json);
    Ok(if report.has_errors() {
        REFUSED
    } else {
        Exit::Success.code()
    })
}

async fn run_reset(settings: &Settings, arguments: &ResetArguments) -> Result<u8, CommandError> {
    let done = reset::reset(settings, arguments.yes, arguments.volumes).await?;
    show(&done, arguments.form.json);
    Ok(if done.left.is_empty() {
        Exit::Success.code()
    } else {
        REFUSED
    })
}

impl View for reset::Done {
    fn render(&self) -> String {
        match (self.removed.is_empty(), self.left.is_empty()) {
            (_, false) => "not everything could be removed".to_owned(),
            (true, true) => "there was nothing of Drover's on this host".to_owned(),
            (false, true) => "nothing of Drover's is left on this host".to_owned(),
        }
    }
}
