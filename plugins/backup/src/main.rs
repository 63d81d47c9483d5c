//! The backup worker's process: a request on standard input, events on standard output.

use std::process::ExitCode;

use drover_backup::Reporter;
use drover_backup_protocol::{Event, Failure, FailureKind, Request};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

fn main() -> ExitCode {
    let reporter = Reporter::new(Box::new(std::io::stdout()));
    drover_backup::end_at_panic(&reporter);
    // Whoever asked may be killed, and what it lent to the work be taken away.
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        let message = format!("the work goes on when its asker is killed: {error}");
        reporter.event(&Event::Warning { message });
    }
    // One provider of cryptography, chosen before anything asks for one.
    let installed = rustls::crypto::ring::default_provider().install_default();
    debug_assert!(installed.is_ok(), "nothing else installs a provider");
    let request: Request = match serde_json::from_reader(std::io::stdin().lock()) {
        Ok(request) => request,
        Err(error) => {
            reporter.event(&Event::Failed(Failure {
                kind: FailureKind::InvalidInput,
                message: format!("standard input is no request: {error}"),
            }));
            return ExitCode::from(64);
        }
    };
    match drover_backup::work(&request, &reporter) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
