//! The network plugin's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    drover_daemon::run("drover-net", drover_net::run)
}
