//! The volume plugin's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    drover_daemon::run("drover-vol", drover_vol::run)
}
