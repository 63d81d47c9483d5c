//! Logs, to standard error: for a person at a terminal, as JSON by setting.

use std::io::IsTerminal;

use tracing::{Metadata, Subscriber, error};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::settings::{LogFormat, LogSettings};

/// Targets that repeat at `info` what a caller of theirs reports better.
const QUIET: &str =
    "netlink_packet_route=warn,netlink_packet_core=warn,hyper=warn,h2=warn,tower=warn";

/// Targets that print what they send and receive, keys included. No setting opens them.
const SEALED: [&str; 2] = ["netlink_proto", "netlink_packet_xfrm"];

/// Installs the log for the process; a second call changes nothing.
pub(crate) fn install(settings: &LogSettings) {
    let terminal = std::io::stderr().is_terminal();
    let installed = subscriber(settings, std::io::stderr, terminal).try_init();
    if installed.is_ok() {
        report_panics();
    }
}

/// The log, to a place.
fn subscriber<W>(settings: &LogSettings, place: W, terminal: bool) -> impl Subscriber + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(place);
    let lines = match settings.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Human => lines.with_ansi(terminal).with_target(false).boxed(),
    };
    tracing_subscriber::registry()
        .with(EnvFilter::new(format!("{QUIET},{}", settings.level)))
        .with(filter_fn(is_open))
        .with(lines)
}

fn is_open(event: &Metadata<'_>) -> bool {
    !SEALED.iter().any(|sealed| {
        let rest = event.target().strip_prefix(sealed);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::trace;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_prints_keys_stays_silent_at_any_level() {
        for format in [LogFormat::Json, LogFormat::Human] {
            let settings = LogSettings {
                level: "trace,netlink_proto=trace,netlink_proto::codecs=trace,netlink_packet_xfrm=trace".to_owned(),
                format,
            };
            let lines = Lines::default();
            let writer = lines.clone();
            let log = subscriber(&settings, move || writer.clone(), false);
            tracing::subscriber::with_default(log, || {
                error!(target: "netlink_proto::codecs", "secret 1");
                trace!(target: "netlink_proto", "secret 2");
                error!(target: "netlink_packet_xfrm", "secret 3");
                trace!(target: "netlink_protocol", "open 1");
                trace!("open 2");
            });
            let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            assert!(!lines.contains("secret"), "{lines}");
            assert!(
                lines.contains("open 1") && lines.contains("open 2"),
                "{lines}"
            );
        }
    }
}
