//! What a service asks for. It runs on any node, so its facets are those of a container.

use crate::call::owner_label;
use crate::create::publish;
use crate::facet::{Facet, Fact, Kind, action};
use crate::json::{Json, JsonError, Object};
use crate::mount;
use crate::reference::canonical;

/// The creation or change of a service.
pub(crate) fn service(own: Facet, body: &Object) -> Result<Vec<Facet>, JsonError> {
    let mut facets = Vec::new();
    owner_label(&body.map("Labels")?, &mut facets);
    let task = body.object("TaskTemplate")?;
    for name in ["PluginSpec", "NetworkAttachmentSpec"] {
        if task.has(name) {
            facets.push(Facet::option(format!("TaskTemplate.{name}"), ""));
        }
    }
    let runtime = task.text("Runtime")?;
    if !runtime.is_empty() && runtime != "container" {
        facets.push(Facet::new(action::USE_RUNTIME, Kind::Setting, runtime));
    }
    container(task.object("ContainerSpec")?, &mut facets)?;
    let networks = task.objects("Networks")?;
    for network in networks.into_iter().chain(body.objects("Networks")?) {
        facets.push(Facet::new(
            action::USE_NETWORK,
            Kind::Network,
            network.text("Target")?,
        ));
    }
    for port in body.object("EndpointSpec")?.objects("Ports")? {
        let number = match port.field("PublishedPort") {
            Some(Json::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let protocol = port.text("Protocol")?;
        facets.push(publish(
            &number,
            if protocol.is_empty() { "tcp" } else { protocol },
            "",
        ));
    }
    let privileged = facets
        .iter()
        .any(|facet| facet.action == action::ADD_CAPABILITY);
    facets.insert(0, own.with("privileged", Fact::Bool(privileged)));
    Ok(facets)
}

fn container(spec: &Object, facets: &mut Vec<Facet>) -> Result<(), JsonError> {
    const KNOWN: &[&str] = &[
        "Args",
        "CapabilityAdd",
        "CapabilityDrop",
        "Command",
        "Configs",
        "DNSConfig",
        "Dir",
        "Env",
        "Groups",
        "Healthcheck",
        "Hostname",
        "Hosts",
        "Image",
        "Init",
        "Isolation",
        "Labels",
        "Mounts",
        "OomScoreAdj",
        "OpenStdin",
        "Privileges",
        "ReadOnly",
        "Secrets",
        "StopGracePeriod",
        "StopSignal",
        "Sysctls",
        "TTY",
        "Ulimits",
        "User",
    ];
    if spec.is_empty() {
        return Ok(());
    }
    owner_label(&spec.map("Labels")?, facets);
    facets.push(Facet::new(
        action::RUN_IMAGE,
        Kind::Image,
        canonical(spec.text("Image")?),
    ));
    for mount in spec.objects("Mounts")? {
        mount::read_mount(mount, facets)?;
    }
    for capability in spec.texts("CapabilityAdd")? {
        let name = capability.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        facets.push(Facet::new(action::ADD_CAPABILITY, Kind::Capability, name));
    }
    for (name, value) in spec.map("Sysctls")? {
        let facet = Facet::new(action::SET_SYSCTL, Kind::Setting, name);
        facets.push(facet.with("value", Fact::Text(value.to_owned())));
    }
    for (name, value) in spec.object("Privileges")?.members() {
        if !value.is_zero() && !crate::json::names(name, "NoNewPrivileges") {
            facets.push(Facet::new(
                action::SET_SECURITY_OPTION,
                Kind::Setting,
                format!("Privileges.{}", crate::json::folded(name)),
            ));
        }
    }
    for kind in ["Secrets", "Configs"] {
        for each in spec.objects(kind)? {
            let id = each.text("SecretID")?.to_owned() + each.text("ConfigID")?;
            facets.push(Facet::option(format!("ContainerSpec.{kind}"), id));
        }
    }
    for (key, value) in spec.members() {
        if !KNOWN.iter().any(|name| crate::json::names(key, name)) && !value.is_zero() {
            facets.push(Facet::field("ContainerSpec.", key, value.brief()));
        }
    }
    Ok(())
}
