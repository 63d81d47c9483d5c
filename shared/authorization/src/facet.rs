//! What a call asks for, taken apart: each facet is an action on a resource, with facts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::{folded, names};

/// The actions that are not operations of the Engine API: what the body of one asks for.
pub mod action {
    /// A folder or file of the host in a container, or as a volume.
    pub const MOUNT_HOST_PATH: &str = "MountHostPath";
    /// A volume in a container.
    pub const MOUNT_VOLUME: &str = "MountVolume";
    /// An image to run.
    pub const RUN_IMAGE: &str = "RunImage";
    /// A network to be on.
    pub const USE_NETWORK: &str = "UseNetwork";
    /// Another container's namespace, volumes, or environment by a link.
    pub const JOIN_CONTAINER: &str = "JoinContainer";
    /// A namespace of the host.
    pub const JOIN_HOST_NAMESPACE: &str = "JoinHostNamespace";
    /// `--privileged`, of a container or an exec.
    pub const RUN_PRIVILEGED: &str = "RunPrivileged";
    /// `--cap-add`.
    pub const ADD_CAPABILITY: &str = "AddCapability";
    /// A device, a rule of the device control group, or a device request.
    pub const USE_DEVICE: &str = "UseDevice";
    /// `--security-opt`, and a profile of a service.
    pub const SET_SECURITY_OPTION: &str = "SetSecurityOption";
    /// `--sysctl`.
    pub const SET_SYSCTL: &str = "SetSysctl";
    /// A port of the host.
    pub const PUBLISH_PORT: &str = "PublishPort";
    /// `--runtime`.
    pub const USE_RUNTIME: &str = "UseRuntime";
    /// A driver of volumes, networks or logs.
    pub const USE_DRIVER: &str = "UseDriver";
    /// Any other option that reaches beyond the container, and all that is not known.
    pub const SET_OPTION: &str = "SetOption";
    /// The label that names an owner.
    pub const CLAIM_OWNER: &str = "ClaimOwner";

    /// All of them, with the kind of resource that each is done to.
    pub const ALL: &[(&str, super::Kind)] = &[
        (MOUNT_HOST_PATH, super::Kind::HostPath),
        (MOUNT_VOLUME, super::Kind::Volume),
        (RUN_IMAGE, super::Kind::Image),
        (USE_NETWORK, super::Kind::Network),
        (JOIN_CONTAINER, super::Kind::Container),
        (JOIN_HOST_NAMESPACE, super::Kind::Namespace),
        (RUN_PRIVILEGED, super::Kind::Setting),
        (ADD_CAPABILITY, super::Kind::Capability),
        (USE_DEVICE, super::Kind::Device),
        (SET_SECURITY_OPTION, super::Kind::Setting),
        (SET_SYSCTL, super::Kind::Setting),
        (PUBLISH_PORT, super::Kind::Port),
        (USE_RUNTIME, super::Kind::Setting),
        (USE_DRIVER, super::Kind::Driver),
        (SET_OPTION, super::Kind::Setting),
        (CLAIM_OWNER, super::Kind::User),
    ];
}

/// What a resource is: a type of entity in policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// The engine as a whole: lists, events, prunes, builds.
    Engine,
    /// A container.
    Container,
    /// An image, by its reference.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// A command in a container.
    Exec,
    /// A service, task, node, secret, config, or the swarm.
    SwarmObject,
    /// A managed plugin.
    Plugin,
    /// A path of the host.
    HostPath,
    /// A capability, without `CAP_`.
    Capability,
    /// A device of the host.
    Device,
    /// A namespace of the host: `pid`, `ipc`, `network`, `uts`, `user`, `cgroup`.
    Namespace,
    /// A port of the host, `8080/tcp`; `0/tcp` for one that the engine chooses.
    Port,
    /// A driver: `volume:local`, `network:macvlan`, `log:syslog`.
    Driver,
    /// An option by its name, such as `HostConfig.CgroupParent`.
    Setting,
    /// A user.
    User,
}

/// Options that are not harmless, by the engine's own names of them.
const OPTIONS: &[&str] = &[
    "Annotations",
    "Cgroup",
    "CgroupParent",
    "ClusterVolumeSpec",
    "ConfigFrom",
    "ConfigOnly",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "Ingress",
    "MaskedPaths",
    "OomKillDisable",
    "OomScoreAdj",
    "ReadonlyPaths",
];

impl Kind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Engine,
        Self::Container,
        Self::Image,
        Self::Network,
        Self::Volume,
        Self::Exec,
        Self::SwarmObject,
        Self::Plugin,
        Self::HostPath,
        Self::Capability,
        Self::Device,
        Self::Namespace,
        Self::Port,
        Self::Driver,
        Self::Setting,
        Self::User,
    ];

    /// The name of its type in policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Engine => "Engine",
            Self::Container => "Container",
            Self::Image => "Image",
            Self::Network => "Network",
            Self::Volume => "Volume",
            Self::Exec => "Exec",
            Self::SwarmObject => "SwarmObject",
            Self::Plugin => "Plugin",
            Self::HostPath => "HostPath",
            Self::Capability => "Capability",
            Self::Device => "Device",
            Self::Namespace => "Namespace",
            Self::Port => "Port",
            Self::Driver => "Driver",
            Self::Setting => "Setting",
            Self::User => "User",
        }
    }

    /// Whether things of this kind have owners and labels.
    #[must_use]
    pub const fn is_owned(self) -> bool {
        matches!(
            self,
            Self::Container | Self::Network | Self::Volume | Self::Exec
        )
    }
}

/// What an action is done to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resource {
    /// What it is.
    pub kind: Kind,
    /// Its name or id, as the call has it.
    pub id: String,
}

impl Resource {
    /// A resource.
    #[must_use]
    pub fn new(kind: Kind, id: impl Into<String>) -> Self {
        Self {
            kind,
            id: id.into(),
        }
    }
}

/// A fact: what policies read as `context.NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fact {
    /// Yes or no.
    Bool(bool),
    /// A number.
    Long(i64),
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
}

/// Facts by their names.
pub type Facts = BTreeMap<&'static str, Fact>;

/// An action on a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Facet {
    /// The operation of the API, or one of [`action`].
    pub action: &'static str,
    /// What it is done to.
    pub resource: Resource,
    /// What else is known.
    pub facts: Facts,
}

impl Facet {
    /// A facet without facts.
    #[must_use]
    pub fn new(action: &'static str, kind: Kind, id: impl Into<String>) -> Self {
        Self {
            action,
            resource: Resource::new(kind, id),
            facts: Facts::new(),
        }
    }

    /// The same with one more fact.
    #[must_use]
    pub fn with(mut self, name: &'static str, fact: Fact) -> Self {
        self.facts.insert(name, fact);
        self
    }

    /// A field that is not known to be harmless, with its value. It has one name in every mix of cases: the engine's own, or
    /// small letters when that is not known.
    pub(crate) fn field(prefix: &str, key: &str, value: String) -> Self {
        let known = OPTIONS.iter().find(|name| names(key, name));
        let name = known.map_or_else(
            || folded(key).chars().take(80).collect(),
            |name| (*name).to_owned(),
        );
        Self::option(format!("{prefix}{name}"), value)
    }

    /// An option that is not known to be harmless, with its value.
    #[must_use]
    pub fn option(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self::new(action::SET_OPTION, Kind::Setting, name).with("value", Fact::Text(value.into()))
    }
}
