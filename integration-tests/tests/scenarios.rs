//! What Drover promises, on real engines: see `src/scenario.rs` for how these are run.
#![cfg(test)]

#[path = "scenarios/underlay.rs"]
mod underlay;

use std::process::ExitCode;

use integration_tests::scenario::{self, Scenario};

fn main() -> ExitCode {
    let all: Vec<Scenario> = [underlay::SCENARIOS].concat();
    match scenario::main(&all) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(64)
        }
    }
}
