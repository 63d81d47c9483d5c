//! Requests in, answers out.

use std::fs::File;
use std::io::{BufRead, Write};

use anyhow::{Context, Result};
use drover_lvm_protocol::{Answer, Request};
use lvm2_sys::{Lvm, Output};
use nix::fcntl::{Flock, FlockArg};

use crate::device_mapper::DeviceMapper;
use crate::thin;

/// Answers every line until there are no more.
pub(crate) fn serve(
    requests: impl BufRead,
    mut answers: impl Write,
    lock: &File,
    lvm: &mut Lvm,
) -> Result<()> {
    for line in requests.lines() {
        let line = line.context("reading a request")?;
        // The process of one who was killed does its last request to the end.
        let _lock = Flock::lock(lock.try_clone()?, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .context("locking")?;
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
        Request::ThinSnapshots {
            pool,
            suspend,
            snapshots,
        } => thin::snapshots(&pool, &suspend, &snapshots),
        Request::Status { device } => Ok(Answer::Status {
            target: DeviceMapper::open()?.status(&device)?,
        }),
        Request::ThinDevices(metadata) => thin::devices(&metadata),
        Request::ThinChanges { metadata, old, new } => thin::changes(&metadata, old, new),
        Request::Recover { prefix, pools } => recover(&prefix, &pools),
    }
}

fn output(output: Output) -> Answer {
    Answer::Output {
        code: output.code,
        lines: output.lines,
        errors: output.errors,
    }
}

fn recover(prefix: &str, pools: &[String]) -> Result<Answer> {
    let mapper = DeviceMapper::open()?;
    let mut resumed = Vec::new();
    for device in mapper.list()? {
        if device.starts_with(prefix) && mapper.is_suspended(&device)? {
            mapper.resume(&device)?;
            resumed.push(device);
        }
    }
    let mut released = false;
    for pool in pools {
        released |= thin::release_left_over(&mapper, pool)?;
    }
    Ok(Answer::Recovered { resumed, released })
}
