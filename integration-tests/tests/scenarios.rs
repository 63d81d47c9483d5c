//! What Drover promises, on real engines: see `src/scenario.rs` for how these are run.
#![cfg(test)]

#[path = "scenarios/authorization.rs"]
mod authorization;
#[path = "scenarios/authorization_boot.rs"]
mod authorization_boot;
#[path = "scenarios/authorization_bypasses.rs"]
mod authorization_bypasses;
#[path = "scenarios/authorization_own_calls.rs"]
mod authorization_own_calls;
#[path = "scenarios/authorization_owners.rs"]
mod authorization_owners;
#[path = "scenarios/authorization_owners_meanwhile.rs"]
mod authorization_owners_meanwhile;
#[path = "scenarios/authorization_roles.rs"]
mod authorization_roles;
#[path = "scenarios/authorization_sockets.rs"]
mod authorization_sockets;
#[path = "scenarios/authorization_spellings.rs"]
mod authorization_spellings;
#[path = "scenarios/compose.rs"]
mod compose;
#[path = "scenarios/crashes.rs"]
mod crashes;
#[path = "scenarios/databases.rs"]
mod databases;
#[path = "scenarios/encryption.rs"]
mod encryption;
#[path = "scenarios/encryption_keys.rs"]
mod encryption_keys;
#[path = "scenarios/encryption_lacks.rs"]
mod encryption_lacks;
#[path = "scenarios/encryption_load.rs"]
mod encryption_load;
#[path = "scenarios/encryption_mtu.rs"]
mod encryption_mtu;
#[path = "scenarios/encryption_paths.rs"]
mod encryption_paths;
#[path = "scenarios/faults.rs"]
mod faults;
#[path = "scenarios/isolation.rs"]
mod isolation;
#[path = "scenarios/membership.rs"]
mod membership;
#[path = "scenarios/names.rs"]
mod names;
#[path = "scenarios/names_faults.rs"]
mod names_faults;
#[path = "scenarios/names_health.rs"]
mod names_health;
#[path = "scenarios/names_loss.rs"]
mod names_loss;
#[path = "scenarios/names_records.rs"]
mod names_records;
#[path = "scenarios/names_sandboxes.rs"]
mod names_sandboxes;
#[path = "scenarios/networks.rs"]
mod networks;
#[path = "scenarios/operator.rs"]
mod operator;
#[path = "scenarios/package.rs"]
mod package;
#[path = "scenarios/ports.rs"]
mod ports;
#[path = "scenarios/registry.rs"]
mod registry;
#[path = "scenarios/removal.rs"]
mod removal;
#[path = "scenarios/restarts.rs"]
mod restarts;
#[path = "scenarios/underlay.rs"]
mod underlay;
#[path = "scenarios/underlay_v6.rs"]
mod underlay_v6;
#[path = "scenarios/volumes.rs"]
mod volumes;
#[path = "scenarios/volumes_backups.rs"]
mod volumes_backups;
#[path = "scenarios/volumes_catalogue.rs"]
mod volumes_catalogue;
#[path = "scenarios/volumes_clones.rs"]
mod volumes_clones;
#[path = "scenarios/volumes_faults.rs"]
mod volumes_faults;
#[path = "scenarios/volumes_hooks.rs"]
mod volumes_hooks;
#[path = "scenarios/volumes_secrets.rs"]
mod volumes_secrets;

use std::process::ExitCode;

use integration_tests::scenario::{self, Engines, Group};

fn main() -> ExitCode {
    let every = |scenarios| Group {
        scenarios,
        engines: Engines::Every,
    };
    let oldest_and_newest = |scenarios| Group {
        scenarios,
        engines: Engines::OldestAndNewest,
    };
    let newest = |scenarios| Group {
        scenarios,
        engines: Engines::Newest,
    };
    let all = [
        every(underlay::SCENARIOS),
        every(networks::SCENARIOS),
        every(removal::SCENARIOS),
        every(registry::SCENARIOS),
        every(names::SCENARIOS),
        every(names_sandboxes::SCENARIOS),
        newest(names_sandboxes::NEWEST),
        newest(names_health::SCENARIOS),
        newest(names_faults::SCENARIOS),
        newest(names_loss::SCENARIOS),
        newest(names_records::SCENARIOS),
        oldest_and_newest(authorization::SCENARIOS),
        oldest_and_newest(authorization_bypasses::SCENARIOS),
        oldest_and_newest(authorization_owners::SCENARIOS),
        oldest_and_newest(authorization_owners_meanwhile::SCENARIOS),
        oldest_and_newest(authorization_sockets::SCENARIOS),
        newest(authorization_boot::SCENARIOS),
        newest(authorization_own_calls::SCENARIOS),
        newest(authorization_roles::SCENARIOS),
        every(compose::SCENARIOS),
        every(ports::SCENARIOS),
        newest(volumes::SCENARIOS),
        newest(volumes_backups::SCENARIOS),
        newest(volumes_catalogue::SCENARIOS),
        every(volumes_faults::SCENARIOS),
        newest(volumes_clones::SCENARIOS),
        newest(volumes_hooks::SCENARIOS),
        newest(volumes_secrets::SCENARIOS),
        newest(databases::SCENARIOS),
        newest(underlay_v6::SCENARIOS),
        newest(isolation::SCENARIOS),
        newest(encryption::SCENARIOS),
        newest(encryption_keys::SCENARIOS),
        newest(encryption_lacks::SCENARIOS),
        newest(encryption_load::SCENARIOS),
        newest(encryption_mtu::SCENARIOS),
        newest(encryption_paths::SCENARIOS),
        newest(faults::SCENARIOS),
        every(crashes::SCENARIOS),
        every(restarts::SCENARIOS),
        newest(operator::SCENARIOS),
        newest(package::SCENARIOS),
        newest(membership::SCENARIOS),
    ];
    match scenario::main(&all) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(64)
        }
    }
}
