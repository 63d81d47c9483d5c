//! Answering in the place of the plugins while the engine removes their networks.
//!
//! Everything they had is removed right after this, so that every release is granted and nothing
//! else is.

use std::sync::Arc;

use drover_daemon::{Settings, task};
use drover_http::{Body, Limits, Request, Response, Service, serve};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ask::CommandError;
use crate::process::Process;

/// The content type of Docker's plugin protocol.
const PLUGIN_JSON: &str = "application/vnd.docker.plugins.v1.1+json";

/// The plugins' sockets, answered until [`Farewell::end`].
pub(super) struct Farewell {
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
    settings: Settings,
}

impl Farewell {
    /// Takes the sockets over.
    pub(super) fn say(settings: &Settings) -> Result<Self, CommandError> {
        let (stop, stopped) = watch::channel(false);
        let mut servers = Vec::new();
        for process in [Process::Ipam, Process::Network] {
            let path = process.socket(settings);
            let cannot = |reason: String| {
                CommandError::unavailable(format!(
                    "cannot listen on `{}`: {reason}",
                    path.display()
                ))
            };
            let listener = drover_daemon::bind(&path)
                .map_err(|error| cannot(format!("{:#}", anyhow::Error::new(error))))?;
            let listener = listener
                .set_nonblocking(true)
                .and_then(|()| UnixListener::from_std(listener))
                .map_err(|error| cannot(error.to_string()))?;
            let service = Arc::new(Answers(process));
            let server = serve(listener, service, Limits::default(), stopped.clone());
            servers.push(task::spawn("farewell", server));
        }
        Ok(Self {
            stop,
            servers,
            settings: settings.clone(),
        })
    }

    /// Gives the sockets up.
    pub(super) async fn end(self) {
        for process in [Process::Ipam, Process::Network] {
            // What is left of them is removed with the other files.
            drop(std::fs::remove_file(process.socket(&self.settings)));
        }
        self.stop.send_replace(true);
        for server in self.servers {
            drop(server.await);
        }
    }
}

struct Answers(Process);

impl Service for Answers {
    async fn call(&self, request: Request) -> Response {
        answer(self.0, &request.path)
    }
}

fn answer(process: Process, path: &str) -> Response {
    let body = match (process, path) {
        (Process::Network, "/Plugin.Activate") => r#"{"Implements":["NetworkDriver"]}"#,
        (_, "/Plugin.Activate") => r#"{"Implements":["IpamDriver"]}"#,
        (_, "/NetworkDriver.GetCapabilities") => {
            r#"{"Scope":"local","ConnectivityScope":"global"}"#
        }
        (_, "/IpamDriver.GetCapabilities") => {
            r#"{"RequiresMACAddress":true,"RequiresRequestReplay":false}"#
        }
        (_, "/IpamDriver.GetDefaultAddressSpaces") => {
            r#"{"LocalDefaultAddressSpace":"drover","GlobalDefaultAddressSpace":"drover"}"#
        }
        (
            _,
            "/NetworkDriver.DeleteNetwork"
            | "/NetworkDriver.DeleteEndpoint"
            | "/NetworkDriver.Leave"
            | "/NetworkDriver.RevokeExternalConnectivity"
            | "/IpamDriver.ReleasePool"
            | "/IpamDriver.ReleaseAddress",
        ) => "{}",
        _ => {
            r#"{"Err":"drover is being removed from this host","Error":"drover is being removed from this host"}"#
        }
    };
    Response {
        status: 200,
        content_type: PLUGIN_JSON,
        body: Body::Full(body.as_bytes().to_vec().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(process: Process, path: &str) -> String {
        match answer(process, path).body {
            Body::Full(body) => String::from_utf8(body.to_vec()).unwrap(),
            Body::Stream(_) => panic!("a stream"),
        }
    }

    #[test]
    fn releases_are_granted_and_nothing_new_is() {
        assert_eq!(text(Process::Network, "/NetworkDriver.DeleteNetwork"), "{}");
        assert_eq!(text(Process::Ipam, "/IpamDriver.ReleasePool"), "{}");
        assert!(text(Process::Ipam, "/IpamDriver.RequestPool").contains("\"Error\""));
        assert!(text(Process::Network, "/NetworkDriver.CreateNetwork").contains("\"Err\""));
        for path in [
            "/Plugin.Activate",
            "/NetworkDriver.GetCapabilities",
            "/elsewhere",
        ] {
            for process in [Process::Network, Process::Ipam] {
                let body = text(process, path);
                assert!(
                    serde_json::from_str::<serde_json::Value>(&body).is_ok(),
                    "{body}"
                );
            }
        }
    }
}
