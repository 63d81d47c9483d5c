//! The address management plugin's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    drover_daemon::run("drover-ipam", drover_ipam::run)
}
