//! The schema: every type, fact and action that policies may name. Policies are validated by it when they are loaded.

use drover_authorization::{ENDPOINTS, Kind, action};

use crate::groups::{GROUPS, group};

/// The types and facts.
const TYPES: &str = r#"
// What a call says beyond its target. A fact that an action has not is missing: ask `context has NAME` first.
type Facts = {
    operation: String,
    privileged?: Bool,
    image?: String,
    runAs?: String,
    runtime?: String,
    networkMode?: String,
    restartPolicy?: String,
    labels?: Set<String>,
    capabilities?: Set<String>,
    hostNamespaces?: Set<String>,
    securityOptions?: Set<String>,
    devices?: Set<String>,
    binds?: Set<String>,
    volumes?: Set<String>,
    ports?: Set<String>,
    sysctls?: Set<String>,
    networks?: Set<String>,
    options?: Set<String>,
    path?: String,
    driver?: String,
    internal?: Bool,
    buildkit?: Bool,
    readOnly?: Bool,
    propagation?: String,
    port?: Long,
    value?: String,
};

entity Role;
entity Group in [Role];
entity PathSet;
// A client by the name in its TLS certificate; `local` for the engine's own socket; `socket:ROLE` for a role's socket.
entity User in [Group, Role] = { name: String };

// What has an owner and labels; `known` is false for what is not there, or not seen yet.
entity Container = { name: String, known: Bool, owner?: User } tags String;
entity Network = { name: String, known: Bool, owner?: User } tags String;
entity Volume = { name: String, known: Bool, owner?: User } tags String;
entity Exec = { name: String, known: Bool, owner?: User } tags String;

entity Engine = { name: String };
entity Image = { name: String };
entity SwarmObject = { name: String };
entity Plugin = { name: String };
// A path of the host with its symbolic links followed.
entity HostPath in [PathSet] = { name: String };
entity Capability = { name: String };
entity Device = { name: String };
entity Namespace = { name: String };
entity Port = { name: String };
entity Driver = { name: String };
entity Setting = { name: String };
"#;

/// The schema in Cedar's own form.
#[must_use]
pub fn text() -> String {
    let mut text = TYPES.to_owned();
    for group in GROUPS {
        text.push_str(&format!("action {group};\n"));
    }
    let mut seen = std::collections::BTreeSet::new();
    let operations = ENDPOINTS
        .iter()
        .map(|endpoint| (endpoint.operation, endpoint.kind, group(endpoint.operation)));
    let asked = action::ALL.iter().map(|(name, kind)| (*name, *kind, "Ask"));
    for (name, kind, group) in operations.chain(asked) {
        if seen.insert(name) {
            text.push_str(&declaration(name, kind, group));
        }
    }
    text
}

fn declaration(name: &str, kind: Kind, group: &str) -> String {
    format!(
        "action {name} in [{group}] appliesTo {{ principal: User, resource: {}, context: Facts }};\n",
        kind.name()
    )
}
