//! The `drover` command: runs Drover on a host, makes clusters, shows what is there, finds faults.

mod arguments;
mod output;
mod process;
mod up;

use std::process::ExitCode;

fn main() -> ExitCode {
    arguments::run()
}
