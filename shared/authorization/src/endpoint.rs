//! Every endpoint of the Engine API, 1.24 to 1.55, with those that its documents leave out.

use crate::facet::Kind;

/// The oldest version of the API that is judged. Before it, starting a container took a host configuration.
pub const OLDEST_VERSION: (u16, u16) = (1, 24);

/// What an operation's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// None that the engine reads, or one that decides nothing.
    Unread,
    /// JSON, without which nothing is judged.
    Json,
    /// Something that no plugin is shown: an archive, or credentials.
    Opaque,
}

/// An endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The method.
    pub method: &'static str,
    /// The path: `{id}` is one segment, `{name}` one or more.
    pub path: &'static str,
    /// The operation, by its name in the engine's API document: the action in policies.
    pub operation: &'static str,
    /// What it is done to.
    pub kind: Kind,
    /// What its body is.
    pub body: Body,
}

const fn on(
    kind: Kind,
    method: &'static str,
    path: &'static str,
    operation: &'static str,
) -> Endpoint {
    Endpoint {
        method,
        path,
        operation,
        kind,
        body: Body::Unread,
    }
}

const fn json(
    kind: Kind,
    method: &'static str,
    path: &'static str,
    operation: &'static str,
) -> Endpoint {
    Endpoint {
        body: Body::Json,
        ..on(kind, method, path, operation)
    }
}

const fn opaque(
    kind: Kind,
    method: &'static str,
    path: &'static str,
    operation: &'static str,
) -> Endpoint {
    Endpoint {
        body: Body::Opaque,
        ..on(kind, method, path, operation)
    }
}

use Kind::{Container, Engine, Exec, Image, Network, Plugin, SwarmObject, Volume};

/// The table.
#[rustfmt::skip]
pub const ENDPOINTS: &[Endpoint] = &[
    on(Engine, "GET", "/_ping", "SystemPing"),
    on(Engine, "HEAD", "/_ping", "SystemPing"),
    on(Engine, "GET", "/version", "SystemVersion"),
    on(Engine, "GET", "/info", "SystemInfo"),
    on(Engine, "GET", "/events", "SystemEvents"),
    on(Engine, "GET", "/system/df", "SystemDataUsage"),
    opaque(Engine, "POST", "/auth", "SystemAuth"),
    opaque(Engine, "POST", "/session", "Session"),
    opaque(Engine, "POST", "/grpc", "Grpc"),
    opaque(Engine, "POST", "/build", "ImageBuild"),
    on(Engine, "POST", "/build/prune", "BuildPrune"),
    on(Engine, "POST", "/build/cancel", "BuildCancel"),
    json(Container, "POST", "/commit", "ImageCommit"),

    on(Engine, "GET", "/containers/json", "ContainerList"),
    json(Container, "POST", "/containers/create", "ContainerCreate"),
    on(Engine, "POST", "/containers/prune", "ContainerPrune"),
    on(Container, "DELETE", "/containers/{id}", "ContainerDelete"),
    on(Container, "GET", "/containers/{id}/archive", "ContainerArchive"),
    on(Container, "HEAD", "/containers/{id}/archive", "ContainerArchiveInfo"),
    opaque(Container, "PUT", "/containers/{id}/archive", "PutContainerArchive"),
    on(Container, "POST", "/containers/{id}/attach", "ContainerAttach"),
    on(Container, "GET", "/containers/{id}/attach/ws", "ContainerAttachWebsocket"),
    on(Container, "GET", "/containers/{id}/changes", "ContainerChanges"),
    on(Container, "GET", "/containers/{id}/checkpoints", "CheckpointList"),
    json(Container, "POST", "/containers/{id}/checkpoints", "CheckpointCreate"),
    on(Container, "DELETE", "/containers/{id}/checkpoints/{id}", "CheckpointDelete"),
    json(Container, "POST", "/containers/{id}/copy", "ContainerCopy"),
    json(Container, "POST", "/containers/{id}/exec", "ContainerExec"),
    on(Container, "GET", "/containers/{id}/export", "ContainerExport"),
    on(Container, "GET", "/containers/{id}/json", "ContainerInspect"),
    on(Container, "POST", "/containers/{id}/kill", "ContainerKill"),
    on(Container, "GET", "/containers/{id}/logs", "ContainerLogs"),
    on(Container, "POST", "/containers/{id}/pause", "ContainerPause"),
    on(Container, "POST", "/containers/{id}/rename", "ContainerRename"),
    on(Container, "POST", "/containers/{id}/resize", "ContainerResize"),
    on(Container, "POST", "/containers/{id}/restart", "ContainerRestart"),
    on(Container, "POST", "/containers/{id}/start", "ContainerStart"),
    on(Container, "GET", "/containers/{id}/stats", "ContainerStats"),
    on(Container, "POST", "/containers/{id}/stop", "ContainerStop"),
    on(Container, "GET", "/containers/{id}/top", "ContainerTop"),
    on(Container, "POST", "/containers/{id}/unpause", "ContainerUnpause"),
    json(Container, "POST", "/containers/{id}/update", "ContainerUpdate"),
    on(Container, "POST", "/containers/{id}/wait", "ContainerWait"),

    on(Exec, "GET", "/exec/{id}/json", "ExecInspect"),
    on(Exec, "POST", "/exec/{id}/resize", "ExecResize"),
    on(Exec, "POST", "/exec/{id}/start", "ExecStart"),

    on(Image, "GET", "/distribution/{name}/json", "DistributionInspect"),
    opaque(Image, "POST", "/images/create", "ImageCreate"),
    on(Image, "GET", "/images/get", "ImageGetAll"),
    on(Engine, "GET", "/images/json", "ImageList"),
    opaque(Engine, "POST", "/images/load", "ImageLoad"),
    on(Engine, "POST", "/images/prune", "ImagePrune"),
    on(Engine, "GET", "/images/search", "ImageSearch"),
    on(Image, "DELETE", "/images/{name}", "ImageDelete"),
    on(Image, "GET", "/images/{name}/attestations", "ImageAttestations"),
    on(Image, "GET", "/images/{name}/get", "ImageGet"),
    on(Image, "GET", "/images/{name}/history", "ImageHistory"),
    on(Image, "GET", "/images/{name}/json", "ImageInspect"),
    on(Image, "POST", "/images/{name}/push", "ImagePush"),
    on(Image, "POST", "/images/{name}/tag", "ImageTag"),

    on(Engine, "GET", "/networks", "NetworkList"),
    on(Engine, "GET", "/networks/", "NetworkList"),
    json(Network, "POST", "/networks/create", "NetworkCreate"),
    on(Engine, "POST", "/networks/prune", "NetworkPrune"),
    on(Network, "DELETE", "/networks/{id}", "NetworkDelete"),
    on(Network, "GET", "/networks/{id}", "NetworkInspect"),
    json(Network, "POST", "/networks/{id}/connect", "NetworkConnect"),
    json(Network, "POST", "/networks/{id}/disconnect", "NetworkDisconnect"),

    on(Engine, "GET", "/volumes", "VolumeList"),
    json(Volume, "POST", "/volumes/create", "VolumeCreate"),
    on(Engine, "POST", "/volumes/prune", "VolumePrune"),
    on(Volume, "DELETE", "/volumes/{id}", "VolumeDelete"),
    on(Volume, "GET", "/volumes/{id}", "VolumeInspect"),
    json(Volume, "PUT", "/volumes/{id}", "VolumeUpdate"),

    on(Engine, "GET", "/plugins", "PluginList"),
    opaque(Plugin, "POST", "/plugins/create", "PluginCreate"),
    on(Plugin, "GET", "/plugins/privileges", "GetPluginPrivileges"),
    json(Plugin, "POST", "/plugins/pull", "PluginPull"),
    on(Plugin, "DELETE", "/plugins/{name}", "PluginDelete"),
    on(Plugin, "POST", "/plugins/{name}/disable", "PluginDisable"),
    on(Plugin, "POST", "/plugins/{name}/enable", "PluginEnable"),
    on(Plugin, "GET", "/plugins/{name}/json", "PluginInspect"),
    on(Plugin, "POST", "/plugins/{name}/push", "PluginPush"),
    json(Plugin, "POST", "/plugins/{name}/set", "PluginSet"),
    json(Plugin, "POST", "/plugins/{name}/upgrade", "PluginUpgrade"),

    on(SwarmObject, "GET", "/swarm", "SwarmInspect"),
    json(SwarmObject, "POST", "/swarm/init", "SwarmInit"),
    json(SwarmObject, "POST", "/swarm/join", "SwarmJoin"),
    on(SwarmObject, "POST", "/swarm/leave", "SwarmLeave"),
    json(SwarmObject, "POST", "/swarm/unlock", "SwarmUnlock"),
    on(SwarmObject, "GET", "/swarm/unlockkey", "SwarmUnlockkey"),
    json(SwarmObject, "POST", "/swarm/update", "SwarmUpdate"),
    on(SwarmObject, "GET", "/nodes", "NodeList"),
    on(SwarmObject, "DELETE", "/nodes/{id}", "NodeDelete"),
    on(SwarmObject, "GET", "/nodes/{id}", "NodeInspect"),
    json(SwarmObject, "POST", "/nodes/{id}/update", "NodeUpdate"),
    on(SwarmObject, "GET", "/services", "ServiceList"),
    json(SwarmObject, "POST", "/services/create", "ServiceCreate"),
    on(SwarmObject, "DELETE", "/services/{id}", "ServiceDelete"),
    on(SwarmObject, "GET", "/services/{id}", "ServiceInspect"),
    on(SwarmObject, "GET", "/services/{id}/logs", "ServiceLogs"),
    json(SwarmObject, "POST", "/services/{id}/update", "ServiceUpdate"),
    on(SwarmObject, "GET", "/tasks", "TaskList"),
    on(SwarmObject, "GET", "/tasks/{id}", "TaskInspect"),
    on(SwarmObject, "GET", "/tasks/{id}/logs", "TaskLogs"),
    on(SwarmObject, "GET", "/secrets", "SecretList"),
    json(SwarmObject, "POST", "/secrets/create", "SecretCreate"),
    on(SwarmObject, "DELETE", "/secrets/{id}", "SecretDelete"),
    on(SwarmObject, "GET", "/secrets/{id}", "SecretInspect"),
    json(SwarmObject, "POST", "/secrets/{id}/update", "SecretUpdate"),
    on(SwarmObject, "GET", "/configs", "ConfigList"),
    json(SwarmObject, "POST", "/configs/create", "ConfigCreate"),
    on(SwarmObject, "DELETE", "/configs/{id}", "ConfigDelete"),
    on(SwarmObject, "GET", "/configs/{id}", "ConfigInspect"),
    json(SwarmObject, "POST", "/configs/{id}/update", "ConfigUpdate"),
];

impl Endpoint {
    /// The endpoint of a method and a decoded path, and the name or id in it (empty when it has none).
    ///
    /// `HEAD` is `GET`: what it tells is told by `GET`, too.
    #[must_use]
    pub fn find<'a>(method: &str, path: &'a str) -> Option<(&'static Self, &'a str)> {
        // What is spelled out comes before what stands for anything: `DELETE /images/get` has no such twin, but
        // `GET /networks/` has.
        let candidates = |method: &str, literal: bool| {
            let method = method.to_owned();
            let rows = ENDPOINTS
                .iter()
                .filter(move |row| row.method == method && row.path.contains('{') != literal);
            rows.filter_map(|row| Some((row, matches(row.path, path)?)))
                .next()
        };
        let search = |method: &str| candidates(method, true).or_else(|| candidates(method, false));
        search(method).or_else(|| (method == "HEAD").then(|| search("GET")).flatten())
    }
}

/// What the placeholder of a pattern stands for in a path.
fn matches<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return (pattern == path).then_some("");
    };
    let (placeholder, after) = rest.split_once('}')?;
    let found = path.strip_prefix(before)?;
    if let Some((between, _)) = after.split_once('{') {
        // Two of them: the second is not what the call is about.
        let (name, last) = found.split_once(between)?;
        let fits = !name.is_empty() && !last.is_empty();
        return (fits && !name.contains('/') && !last.contains('/')).then_some(name);
    }
    let name = found.strip_suffix(after)?;
    let one = placeholder == "id";
    let fits = !name.is_empty() && (!one || !name.contains('/'));
    fits.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Option<(&'static str, String)> {
        Endpoint::find(method, path).map(|(row, name)| (row.operation, name.to_owned()))
    }

    #[test]
    fn a_path_leads_to_its_operation() {
        let is = |method, path, operation, name: &str| {
            assert_eq!(
                found(method, path),
                Some((operation, name.to_owned())),
                "{path}"
            );
        };
        is("GET", "/containers/json", "ContainerList", "");
        is("GET", "/containers/a/json", "ContainerInspect", "a");
        is("HEAD", "/containers/a/json", "ContainerInspect", "a");
        is("HEAD", "/_ping", "SystemPing", "");
        is("GET", "/images/json", "ImageList", "");
        is(
            "GET",
            "/images/ghcr.io/a/b/json",
            "ImageInspect",
            "ghcr.io/a/b",
        );
        is("DELETE", "/images/a/b/c", "ImageDelete", "a/b/c");
        is("GET", "/networks/", "NetworkList", "");
        is("GET", "/networks/a", "NetworkInspect", "a");
        is(
            "DELETE",
            "/containers/a/checkpoints/b",
            "CheckpointDelete",
            "a",
        );
        for (method, path) in [
            ("GET", "/containers/a/b/json"),
            ("POST", "/containers/json"),
            ("GET", "/containers/json/"),
            ("get", "/containers/json"),
            ("GET", "/containers"),
            ("OPTIONS", "/containers/json"),
            ("GET", "/debug/vars"),
            ("DELETE", "/volumes/"),
            ("DELETE", "/containers/"),
        ] {
            assert_eq!(found(method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn no_two_endpoints_are_one() {
        let keys: std::collections::BTreeSet<_> = ENDPOINTS
            .iter()
            .map(|row| (row.method, row.path.replace("{name}", "{id}")))
            .collect();
        assert_eq!(keys.len(), ENDPOINTS.len());
    }
}
