//! `drover-coordinator`: the process.

use std::process::ExitCode;

fn main() -> ExitCode {
    drover_daemon::run(drover_coordinator::NAME, drover_coordinator::run)
}
