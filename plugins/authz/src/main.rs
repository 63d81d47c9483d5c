//! The authorization plugin's process, and the commands about policies.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("policy") {
        return drover_authz::policy_command(words);
    }
    drover_daemon::run(drover_authz::NAME, drover_authz::run)
}
