//! What networks ask for, and being on one.

use crate::call::owner_label;
use crate::create::{driver, join, network_mode};
use crate::facet::{Facet, Fact, Kind, action};
use crate::json::{Json, JsonError, Object, names};

/// The creation of a network.
pub(crate) fn create(body: &Object) -> Result<Vec<Facet>, JsonError> {
    const KNOWN: &[&str] = &[
        "Attachable",
        "CheckDuplicate",
        "Driver",
        "EnableIPv4",
        "EnableIPv6",
        "IPAM",
        "Internal",
        "Labels",
        "Name",
        "Options",
        "Scope",
    ];
    let name = body.text("Name")?;
    let named = body.text("Driver")?;
    let driver_name = if named.is_empty() { "bridge" } else { named };
    let own = Facet::new("NetworkCreate", Kind::Network, name)
        .with("driver", Fact::Text(driver_name.to_owned()))
        .with("internal", Fact::Bool(body.flag("Internal")?));
    let mut facets = vec![own, driver("network", driver_name)];
    let ipam = body.object("IPAM")?;
    let ipam_driver = ipam.text("Driver")?;
    if !matches!(ipam_driver, "" | "default") {
        facets.push(driver("ipam", ipam_driver));
    }
    owner_label(&body.map("Labels")?, &mut facets);
    for (key, value) in body.map("Options")? {
        facets.push(Facet::option(format!("network.{key}"), value));
    }
    for (key, value) in body.members() {
        if !KNOWN.iter().any(|name| names(key, name)) && !value.is_zero() {
            facets.push(Facet::field("Network.", key, value.brief()));
        }
    }
    Ok(facets)
}

/// Putting a container on a network, and taking it off.
pub(crate) fn connect(own: Facet, body: &Object) -> Result<Vec<Facet>, JsonError> {
    let container = body.text("Container")?;
    let action = own.action;
    let mut facets = vec![own];
    // The same operation on the container: both ends have owners.
    facets.push(Facet::new(
        action::JOIN_CONTAINER,
        Kind::Container,
        container.trim_start_matches('/'),
    ));
    if let Some(facet) = facets.last_mut() {
        facet.facts.insert("value", Fact::Text(action.to_owned()));
    }
    if let Some(settings) = body.field("EndpointConfig") {
        settings_of_endpoint(settings, &mut facets)?;
    }
    Ok(facets)
}

/// An entry of `EndpointsConfig`.
pub(crate) fn endpoint(
    network: &str,
    settings: &Json,
    facets: &mut Vec<Facet>,
) -> Result<(), JsonError> {
    let is_there = facets
        .iter()
        .any(|facet| facet.action == action::USE_NETWORK && facet.resource.id == network);
    // The mode names the same network in most calls.
    if !is_there {
        network_mode(network, facets);
    }
    settings_of_endpoint(settings, facets)
}

fn settings_of_endpoint(settings: &Json, facets: &mut Vec<Facet>) -> Result<(), JsonError> {
    let settings = match settings {
        Json::Null => return Ok(()),
        Json::Object(settings) => settings,
        _ => return Err(crate::json::wrong("EndpointsConfig", "objects")),
    };
    for link in settings.texts("Links")? {
        let other = link.split(':').next().unwrap_or_default();
        facets.push(join(other.trim_start_matches('/'), "link"));
    }
    for (key, value) in settings.map("DriverOpts")? {
        facets.push(Facet::option(format!("endpoint.{key}"), value));
    }
    Ok(())
}
