//! The authorization plugin's process, and the commands about policies and roles' sockets.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some("policy") => return drover_authz::policy_command(words),
        Some("authz") => return drover_authz::socket_command(words),
        _ => {}
    }
    drover_daemon::run(drover_authz::NAME, drover_authz::run)
}
