//! What Drover promises, on real engines: see `src/scenario.rs` for how these are run.
#![cfg(test)]

#[path = "scenarios/compose.rs"]
mod compose;
#[path = "scenarios/crashes.rs"]
mod crashes;
#[path = "scenarios/faults.rs"]
mod faults;
#[path = "scenarios/isolation.rs"]
mod isolation;
#[path = "scenarios/membership.rs"]
mod membership;
#[path = "scenarios/networks.rs"]
mod networks;
#[path = "scenarios/operator.rs"]
mod operator;
#[path = "scenarios/ports.rs"]
mod ports;
#[path = "scenarios/removal.rs"]
mod removal;
#[path = "scenarios/restarts.rs"]
mod restarts;
#[path = "scenarios/underlay.rs"]
mod underlay;

use std::process::ExitCode;

use integration_tests::scenario::{self, Scenario};

fn main() -> ExitCode {
    let all: Vec<Scenario> = [
        underlay::SCENARIOS,
        networks::SCENARIOS,
        removal::SCENARIOS,
        compose::SCENARIOS,
        ports::SCENARIOS,
        isolation::SCENARIOS,
        faults::SCENARIOS,
        crashes::SCENARIOS,
        restarts::SCENARIOS,
        operator::SCENARIOS,
        membership::SCENARIOS,
    ]
    .concat();
    match scenario::main(&all) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(64)
        }
    }
}
