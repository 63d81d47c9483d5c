//! Logs, to standard error: for a person at a terminal, as JSON by setting.

use std::io::IsTerminal;

use tracing::error;
use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, LogSettings};

/// Targets that repeat at `info` what a caller of theirs reports better.
const QUIET: &str = "netlink_proto=warn,netlink_packet_route=warn,netlink_packet_core=warn,hyper=warn,h2=warn,tower=warn";

/// Installs the log for the process; a second call changes nothing.
pub(crate) fn install(settings: &LogSettings) {
    let filter = EnvFilter::new(format!("{QUIET},{}", settings.level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    let installed = match settings.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Human => builder.with_ansi(terminal).with_target(false).try_init(),
    };
    if installed.is_ok() {
        report_panics();
    }
}

/// A panic is a line of the log, like everything else that happens.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        error!(location, "panicked: {message}");
    }));
}
