//! A call, and what it asks for.

use crate::create;
use crate::endpoint::{Body, Endpoint, OLDEST_VERSION};
use crate::facet::{Facet, Fact, Kind, Resource, action};
use crate::json::{Json, JsonError, Object};
use crate::mount;
use crate::network;
use crate::reference::canonical;
use crate::swarm;
use crate::uri::{Query, Target, UriError};

/// The label that names the owner of a container, network or volume.
pub const OWNER_LABEL: &str = "io.drover.owner";

/// A call as the engine shows it to a plugin.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The method.
    pub method: &'a str,
    /// The URI as it came.
    pub uri: &'a str,
    /// The `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The body; empty when none came, or none was shown.
    pub body: &'a [u8],
}

/// What a call asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The operation.
    pub endpoint: &'static Endpoint,
    /// The version of the API, when the URI has one.
    pub version: Option<(u16, u16)>,
    /// The parameters.
    pub query: Query,
    /// What it asks for: first the operation itself on its target, then everything that its body asks for beyond.
    pub facets: Vec<Facet>,
}

/// Why a call is not judged, which denies it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such endpoint is known.
    #[error("`{method} {path}` is no endpoint that is known")]
    Endpoint {
        /// The method.
        method: String,
        /// The path, at most 200 characters.
        path: String,
    },
    /// The URI can be read in two ways, or in none.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// The version is older than what is judged.
    #[error("the API version {0}.{1} is older than 1.24: use a newer client")]
    Old(u16, u16),
    /// A body is needed, and none came or none was shown.
    #[error(
        "`{0}` came without its body: the engine has not shown it (an engine without the fix of CVE-2026-34040 \
         hides bodies of 1 MiB and more), or it is no JSON"
    )]
    NoBody(&'static str),
    /// The body would be read as a form, whose fields come before those of the URI.
    #[error("the body is a form, whose fields would replace those of the URI: send none")]
    Form,
    /// The body can be read in two ways, or is of another type.
    #[error(transparent)]
    Body(#[from] JsonError),
}

impl Request {
    /// Reads a call.
    ///
    /// # Errors
    /// When it is not certain what the engine would do.
    pub fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        let target = Target::parse(call.uri)?;
        if let Some((major, minor)) = target.version
            && (major, minor) < OLDEST_VERSION
        {
            return Err(Refusal::Old(major, minor));
        }
        let (endpoint, name) = Endpoint::find(call.method, &target.path).ok_or_else(|| {
            let cut = |text: &str, length| text.chars().take(length).collect();
            Refusal::Endpoint {
                method: cut(call.method, 20),
                path: cut(&target.path, 200),
            }
        })?;
        let kind = content_type(call.content_type);
        if kind == "application/x-www-form-urlencoded" || kind.starts_with("multipart/") {
            return Err(Refusal::Form);
        }
        let body = match endpoint.body {
            Body::Json => Some(read_body(endpoint, &kind, call.body)?),
            Body::Unread | Body::Opaque => None,
        };
        let facets = facets(endpoint, name, &target.query, body.as_ref())?;
        Ok(Self {
            endpoint,
            version: target.version,
            query: target.query,
            facets,
        })
    }

    /// What the operation is done to.
    #[must_use]
    pub fn target(&self) -> Option<&Resource> {
        self.facets.first().map(|facet| &facet.resource)
    }
}

/// The media type without its parameters, in small letters.
fn content_type(header: Option<&str>) -> String {
    let value = header.unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

fn read_body(endpoint: &Endpoint, kind: &str, body: &[u8]) -> Result<Json, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) || kind != "application/json" {
        return Err(Refusal::NoBody(endpoint.operation));
    }
    Ok(Json::parse(body)?)
}

fn facets(
    endpoint: &'static Endpoint,
    name: &str,
    query: &Query,
    body: Option<&Json>,
) -> Result<Vec<Facet>, Refusal> {
    let empty = Object::default();
    let object = match body {
        Some(Json::Object(object)) => object,
        // A list of privileges or settings of a plugin, or a commit without a configuration.
        Some(Json::List(_)) if endpoint.kind == Kind::Plugin => &empty,
        Some(Json::Null) if endpoint.operation == "ImageCommit" => &empty,
        None => &empty,
        Some(_) => return Err(Refusal::NoBody(endpoint.operation)),
    };
    let own = |id: &str| Facet::new(endpoint.operation, endpoint.kind, id);
    Ok(match endpoint.operation {
        "ContainerCreate" => create::container(own(query.get("name")), object)?,
        "ContainerUpdate" => create::update(own(name), object)?,
        "ContainerExec" => create::exec(own(name), object)?,
        "NetworkCreate" => network::create(object)?,
        "NetworkConnect" | "NetworkDisconnect" => network::connect(own(name), object)?,
        "VolumeCreate" => mount::create_volume(object)?,
        "ServiceCreate" | "ServiceUpdate" => {
            swarm::service(own(&swarm_id(endpoint, name)), object)?
        }
        "ImageBuild" => build(own(""), query),
        "ImageCommit" => vec![own(query.get("container"))],
        "ImageCreate" => vec![image_create(own(""), query)],
        "ImageGetAll" => images(endpoint, query),
        "ContainerArchive" | "PutContainerArchive" => {
            vec![own(name).with("path", Fact::Text(query.get("path").to_owned()))]
        }
        "GetPluginPrivileges" | "PluginPull" | "PluginCreate" if name.is_empty() => {
            let remote = [query.get("remote"), query.get("name")];
            vec![own(remote
                .into_iter()
                .find(|text| !text.is_empty())
                .unwrap_or_default())]
        }
        "ImageTag" => {
            let to = format!("{}:{}", query.get("repo"), query.get("tag"));
            vec![
                own(&canonical(name))
                    .with("value", Fact::Text(canonical(to.trim_end_matches(':')))),
            ]
        }
        _ if endpoint.kind == Kind::Image => vec![own(&canonical(name))],
        _ if endpoint.kind == Kind::SwarmObject => vec![own(&swarm_id(endpoint, name))],
        _ => vec![own(name)],
    })
}

/// `services/web`: objects of a swarm have one name space a kind.
fn swarm_id(endpoint: &Endpoint, name: &str) -> String {
    let kind = endpoint.path.split('/').nth(1).unwrap_or_default();
    format!("{kind}/{name}").trim_end_matches('/').to_owned()
}

fn image_create(own: Facet, query: &Query) -> Facet {
    let (image, tag) = (query.get("fromImage"), query.get("tag"));
    let source = query.get("fromSrc");
    let reference = match (image.is_empty(), tag) {
        (true, _) => String::new(),
        (false, "") => canonical(image),
        (false, digest) if digest.contains(':') => canonical(&format!("{image}@{digest}")),
        (false, tag) => canonical(&format!("{image}:{tag}")),
    };
    let mut facet = own;
    facet.resource.id = reference;
    facet.with("value", Fact::Text(source.to_owned()))
}

fn images(endpoint: &'static Endpoint, query: &Query) -> Vec<Facet> {
    let names: Vec<&str> = query.all("names").collect();
    if names.is_empty() {
        return vec![Facet::new(endpoint.operation, Kind::Image, "")];
    }
    let facet = |name: &str| Facet::new(endpoint.operation, Kind::Image, canonical(name));
    names.into_iter().map(facet).collect()
}

/// A classic build, and what of a BuildKit build is in the URI. The rest of it is in `/session`, which is opaque.
fn build(own: Facet, query: &Query) -> Vec<Facet> {
    let remote = match query.get("remote") {
        "client-session" => "",
        remote => remote,
    };
    let own = own
        .with("buildkit", Fact::Bool(query.get("version") == "2"))
        .with("value", Fact::Text(remote.to_owned()));
    let mut facets = vec![own];
    create::network_mode(query.get("networkmode"), &mut facets);
    if !remote.is_empty() {
        facets.push(Facet::option("build.remote", remote));
    }
    for name in ["cgroupparent", "outputs", "securityopt"] {
        let value = query.get(name);
        if !value.is_empty() && value != "[]" && value != "null" {
            facets.push(Facet::option(format!("build.{name}"), value));
        }
    }
    facets
}

/// The facet of a label that names an owner.
pub(crate) fn owner_label(labels: &[(&str, &str)], facets: &mut Vec<Facet>) {
    for (_, owner) in labels.iter().filter(|(key, _)| *key == OWNER_LABEL) {
        facets.push(Facet::new(action::CLAIM_OWNER, Kind::User, *owner));
    }
}
