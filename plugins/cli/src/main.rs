//! The `drover` command: runs Drover on a host, makes clusters, shows what is there, finds faults.

mod arguments;
mod ask;
mod authorization;
mod backup;
mod cluster;
mod command;
mod doctor;
mod help;
mod output;
mod process;
mod reset;
mod table;
mod up;
mod view;
mod volume;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::run()
}
