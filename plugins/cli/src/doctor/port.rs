//! TCP ports of other hosts: whether they can be reached from here.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use drover_control_api::coordinator::StatusAnswer;
use drover_daemon::Settings;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cluster::ETCD;

/// How long a connection may take.
const LIMIT: Duration = Duration::from_secs(2);

/// A port, and what came of connecting to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortFact {
    /// Whose: a host name, or an address where it is not known.
    pub(crate) host: String,
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// What it is for.
    pub(crate) purpose: &'static str,
    /// What came of it.
    pub(crate) state: PortState,
}

/// What came of connecting to a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PortState {
    /// A connection.
    Open,
    /// The host is there and nobody listens.
    Refused,
    /// No answer, or an unreachable host.
    Blocked(String),
}

/// Connects to the ports that this host must reach in a cluster: etcd, and where hosts join, which is on
/// the host that runs etcd (with an etcd of the user's, nothing tells which host that is).
pub(crate) async fn probe(status: &StatusAnswer, settings: &Settings) -> Vec<PortFact> {
    let mut probes = JoinSet::new();
    for (host, address, purpose) in targets(status, settings.cluster.join_port) {
        probes.spawn(async move {
            let state = connect(&address).await;
            PortFact {
                host,
                address,
                purpose,
                state,
            }
        });
    }
    let mut facts = probes.join_all().await;
    facts.sort();
    facts
}

fn targets(status: &StatusAnswer, join_port: u16) -> Vec<(String, String, &'static str)> {
    if status.store.kind != ETCD {
        return Vec::new();
    }
    let mut targets = Vec::new();
    for endpoint in &status.store.endpoints {
        let authority = endpoint
            .split_once("://")
            .map_or(endpoint.as_str(), |(_, rest)| rest);
        let authority = authority.trim_end_matches('/');
        let ip = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        let ip = ip.trim_matches(['[', ']']);
        let host = status
            .hosts
            .iter()
            .find(|host| host.host.advertise.to_string() == ip);
        let name = host.map_or_else(|| ip.to_owned(), |host| host.host.name.to_string());
        targets.push((name.clone(), authority.to_owned(), "etcd"));
        if let Some(host) = host {
            let address = SocketAddr::new(host.host.advertise, join_port);
            targets.push((name, address.to_string(), "joining"));
        }
    }
    targets
}

async fn connect(address: &str) -> PortState {
    match timeout(LIMIT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => PortState::Open,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => PortState::Refused,
        Ok(Err(error)) => PortState::Blocked(error.to_string()),
        Err(_) => PortState::Blocked(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_and_the_join_port_beside_it_are_targets() {
        let status = serde_json::from_str(include_str!("../../tests/answers/status.json")).unwrap();
        let targets = targets(&status, 4748);
        let texts: Vec<String> = targets
            .iter()
            .map(|(host, address, purpose)| format!("{host} {address} {purpose}"))
            .collect();
        assert_eq!(
            texts,
            [
                "web-1 192.0.2.1:4749 etcd",
                "web-1 192.0.2.1:4748 joining",
                "web-2 192.0.2.2:4749 etcd",
                "web-2 192.0.2.2:4748 joining"
            ]
        );
    }

    #[tokio::test]
    async fn open_and_refused_are_told_apart() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(connect(&address).await, PortState::Open);
        drop(listener);
        assert_eq!(connect(&address).await, PortState::Refused);
    }
}
