//! Clusters: `init`, `join`, `leave`, `host rm`. The coordinator does the work and restarts; these
//! commands wait for it and say what has come of it.

use std::net::IpAddr;
use std::time::Duration;

use drover_control_api::coordinator::{Init, Invitation, Join, Leave, RemoveHost, StatusAnswer};
use drover_daemon::Settings;
use drover_model::HostName;
use serde::Serialize;

use crate::ask::{CommandError, ask, status, status_when};
use crate::output;
use crate::process::Process;
use crate::table::{list, now, until};

/// How long a change of the cluster may take: etcd is started, or a certificate fetched.
const CHANGE: Duration = Duration::from_secs(90);
/// How long the coordinator may take to come back.
const BACK: Duration = Duration::from_secs(60);
/// The kind of store that is a cluster.
pub(crate) const ETCD: &str = "etcd";

/// What `drover init --json` writes.
#[derive(Serialize)]
struct InitAnswer {
    /// The command for the other host.
    command: String,
    /// The token alone.
    token: String,
    /// Where to join.
    address: String,
    /// When the token ends, seconds since 1970.
    expires_at: u64,
}

/// What the other commands write with `--json`.
#[derive(Serialize)]
struct Done {
    /// This host.
    host: HostName,
    /// The cluster's id.
    cluster: String,
    /// Its hosts.
    hosts: Vec<HostName>,
}

impl Done {
    fn of(status: StatusAnswer) -> Self {
        Self {
            host: status.host,
            cluster: status.cluster,
            hosts: status
                .hosts
                .into_iter()
                .map(|host| host.host.name)
                .collect(),
        }
    }
}

fn in_cluster(status: &StatusAnswer) -> bool {
    status.store.kind == ETCD && status.store.reachable
}

/// Makes this host a cluster of one, or issues another token.
pub(crate) async fn init(
    settings: &Settings,
    advertise: Option<IpAddr>,
    etcd_endpoints: Vec<String>,
    as_json: bool,
) -> Result<(), CommandError> {
    let was_cluster = status(settings).await?.store.kind == ETCD;
    let request = Init {
        advertise: advertise.or(settings.advertise_addr),
        etcd_endpoints,
    };
    let invitation = ask(settings, Process::Coordinator, &request, CHANGE).await?;
    let status = status_when(settings, BACK, in_cluster).await?;
    let done = if was_cluster {
        format!("cluster {} gives out another token", status.cluster)
    } else {
        format!(
            "{} is now a cluster of one on etcd, {}",
            status.host, status.cluster
        )
    };
    output::note(&done);
    output::note(&format!(
        "the token ends {}; run this on the other host:",
        until(now(), invitation.expires_at)
    ));
    let command = join_command(&invitation);
    if as_json {
        output::json(&InitAnswer {
            command,
            token: invitation.token,
            address: invitation.address,
            expires_at: invitation.expires_at,
        });
    } else {
        output::line(&command);
    }
    Ok(())
}

fn join_command(invitation: &Invitation) -> String {
    format!(
        "drover join --token {} {}",
        invitation.token, invitation.address
    )
}

/// Joins this host to a cluster.
pub(crate) async fn join(
    settings: &Settings,
    request: Join,
    as_json: bool,
) -> Result<(), CommandError> {
    let request = Join {
        advertise: request.advertise.or(settings.advertise_addr),
        ..request
    };
    let joined = ask(settings, Process::Coordinator, &request, CHANGE).await?;
    let is_joined = |status: &StatusAnswer| in_cluster(status) && status.cluster == joined.cluster;
    let status = status_when(settings, BACK, is_joined).await?;
    say(status, as_json, |done| {
        format!(
            "{} has joined cluster {}: {}",
            done.host,
            done.cluster,
            list(&done.hosts)
        )
    });
    Ok(())
}

/// Takes this host out of its cluster.
pub(crate) async fn leave(settings: &Settings, as_json: bool) -> Result<(), CommandError> {
    ask(settings, Process::Coordinator, &Leave {}, CHANGE).await?;
    let status = status_when(settings, BACK, |status| status.store.kind != ETCD).await?;
    say(status, as_json, |done| {
        format!("{} has left its cluster and is on its own", done.host)
    });
    Ok(())
}

fn say(status: StatusAnswer, as_json: bool, sentence: impl Fn(&Done) -> String) {
    let done = Done::of(status);
    if as_json {
        output::json(&done);
    } else {
        output::line(&sentence(&done));
    }
}

/// Removes a host that will not come back.
pub(crate) async fn remove_host(
    settings: &Settings,
    name: HostName,
    as_json: bool,
) -> Result<(), CommandError> {
    let request = RemoveHost { name };
    let removed = ask(settings, Process::Coordinator, &request, CHANGE).await?;
    if as_json {
        output::json(&removed);
        return Ok(());
    }
    let name = request.name;
    output::line(&format!(
        "{name} is removed: it is fenced, and what it held is released"
    ));
    if !removed.blocks.is_empty() {
        output::line(&format!(
            "blocks that are free again after quarantine: {}",
            list(&removed.blocks)
        ));
    }
    if !removed.networks.is_empty() {
        output::line(&format!(
            "networks it had containers on: {}",
            list(&removed.networks)
        ));
    }
    Ok(())
}
