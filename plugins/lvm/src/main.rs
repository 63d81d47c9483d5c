//! The process that drives LVM and device-mapper for `drover-vol`.
//!
//! It reads requests (`drover-lvm-protocol`) from its standard input, a line each, and does one at a time. It is a
//! process of its own because the library is not thread-safe, changes signal handlers, and pins all memory of its
//! process while devices are suspended; and because its end, however it comes, resumes nothing by itself, so that
//! whoever starts it again says what is to be undone (`recover`).
//!
//!     drover-lvm LOCK-FILE

mod device_mapper;
mod serve;
mod thin;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::{Context, Result};
use lvm2_sys::Lvm;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told when standard error is closed.
            let _written = writeln!(io::stderr().lock(), "drover-lvm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(lock), None) = (arguments.next(), arguments.next()) else {
        anyhow::bail!(
            "usage: drover-lvm LOCK-FILE; it is started by drover-vol and speaks JSON with it"
        );
    };
    let answers = private_output()?;
    let file = File::create(&lock).with_context(|| format!("opening `{}`", lock.display()))?;
    let mut lvm = Lvm::open()?;
    serve::serve(io::stdin().lock(), answers, &file, &mut lvm)
}

/// Standard output for answers alone: what the library writes there goes to standard error instead.
fn private_output() -> Result<File> {
    let answers = io::stdout().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdout(io::stderr()).context("redirecting standard output")?;
    Ok(File::from(answers))
}
