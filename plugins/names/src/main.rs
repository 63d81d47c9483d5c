//! The name service's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    drover_daemon::run("drover-names", drover_name_service::run)
}
