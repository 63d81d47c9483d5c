//! Development commands. `cargo run -p xtask -- layers` checks which crate may know which.

mod layers;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development commands of the workspace.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that dependencies between crates point down, and that pure crates stay pure.
    Layers,
}

fn main() -> ExitCode {
    let Arguments {
        command: Command::Layers,
    } = Arguments::parse();
    let (said, code) = match layers::check() {
        Ok(faults) if faults.is_empty() => (
            "layers: every arrow points down".to_owned(),
            ExitCode::SUCCESS,
        ),
        Ok(faults) => (faults.join("\n"), ExitCode::FAILURE),
        Err(error) => (format!("{error:#}"), ExitCode::FAILURE),
    };
    // Nobody is left to be told when standard output is closed.
    let _written = writeln!(std::io::stdout().lock(), "{said}");
    code
}
