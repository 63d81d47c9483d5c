//! Requests in, answers out.

use std::io::{BufRead, Write};

use anyhow::{Context, Result};
use drover_lvm_protocol::{Answer, Request};
use lvm2_sys::{Lvm, Output};

use crate::device_mapper::DeviceMapper;
use crate::thin;

/// Answers every line until there are no more.
pub(crate) fn serve(requests: impl BufRead, mut answers: impl Write, lvm: &mut Lvm) -> Result<()> {
    for line in requests.lines() {
        let line = line.context("reading a request")?;
        let answer = match serde_json::from_str(&line) {
            Ok(request) => answer(request, lvm).unwrap_or_else(|error| failed(&error)),
            Err(error) => failed(&anyhow::Error::new(error).context("the request")),
        };
        let mut text = serde_json::to_vec(&answer).context("writing an answer")?;
        text.push(b'\n');
        answers.write_all(&text).context("writing an answer")?;
    }
    Ok(())
}

fn failed(error: &anyhow::Error) -> Answer {
    let damage = error.downcast_ref::<drover_thin_metadata::Error>();
    Answer::Failed {
        message: format!("{error:#}"),
        is_damage: damage.is_some_and(drover_thin_metadata::Error::is_damage),
    }
}

fn answer(request: Request, lvm: &mut Lvm) -> Result<Answer> {
    match request {
        Request::Lvm { arguments } => Ok(output(lvm.run(&arguments)?)),
        Request::Together { devices, commands } => together(&devices, &commands, lvm),
        Request::Status { device } => Ok(Answer::Status {
            target: DeviceMapper::open()?.status(&device)?,
        }),
        Request::ThinDevices(metadata) => thin::devices(&metadata),
        Request::ThinChanges { metadata, old, new } => thin::changes(&metadata, old, new),
        Request::Recover { prefix, pool } => recover(&prefix, pool.as_deref()),
    }
}

fn output(output: Output) -> Answer {
    Answer::Output {
        code: output.code,
        lines: output.lines,
        errors: output.errors,
    }
}

/// Runs commands while devices are suspended.
fn together(devices: &[String], commands: &[Vec<String>], lvm: &mut Lvm) -> Result<Answer> {
    let mapper = DeviceMapper::open()?;
    let mut suspended = Vec::new();
    let done = run_suspended(&mapper, devices, commands, (lvm, &mut suspended));
    // The commands have resumed some of them by then; resuming again is nothing.
    let mut resumed = Ok(());
    for device in suspended {
        if let Err(error) = mapper.resume(device) {
            resumed = Err(error);
        }
    }
    let answer = done?;
    resumed?;
    Ok(answer)
}

fn run_suspended<'device>(
    mapper: &DeviceMapper,
    devices: &'device [String],
    commands: &[Vec<String>],
    (lvm, suspended): (&mut Lvm, &mut Vec<&'device str>),
) -> Result<Answer> {
    for device in devices {
        // Before it is tried: one that fails half way is resumed too.
        suspended.push(device);
        if !mapper.suspend(device)? {
            suspended.pop();
        }
    }
    let mut last = Output::default();
    for command in commands {
        last = lvm.run(command)?;
        if !last.is_success {
            break;
        }
    }
    Ok(output(last))
}

fn recover(prefix: &str, pool: Option<&str>) -> Result<Answer> {
    let mapper = DeviceMapper::open()?;
    let mut resumed = Vec::new();
    for device in mapper.list()? {
        if device.starts_with(prefix) && mapper.is_suspended(&device)? {
            mapper.resume(&device)?;
            resumed.push(device);
        }
    }
    let released = match pool {
        Some(pool) => thin::release_left_over(&mapper, pool)?,
        None => false,
    };
    Ok(Answer::Recovered { resumed, released })
}
