//! A container's place on a network, as far as answers go: worked out when something changes, not when
//! somebody asks.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use drover_control_api::names::NameKind;
use drover_control_api::registry::{
    Attachment, ContainerRecord, ContainerState, ExposedPort, Health, ServiceName,
};
use drover_model::HostName;

use crate::name::{NameError, fold};

/// Whether a container is handed out, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Well: it runs and has no health check.
    Running,
    /// Well: it runs, and its check says so.
    Healthy,
    /// In a storm only: its check fails.
    Unhealthy,
    /// In a storm only: its process is frozen.
    Paused,
    /// To itself only: its check has not said anything yet.
    Starting,
    /// It does not count: it does not run.
    NotRunning,
    /// It does not count: its host gives no sign of life.
    HostAway,
    /// It does not count: its host was removed, or removed and joined again.
    HostGone,
}

impl Standing {
    /// How a container of a host stands.
    pub(crate) const fn of(record: &ContainerRecord, host: HostStanding) -> Self {
        match (host, record.state, record.health) {
            (HostStanding::Gone, _, _) => Self::HostGone,
            (HostStanding::Away, _, _) => Self::HostAway,
            (HostStanding::Alive, ContainerState::Paused, _) => Self::Paused,
            (HostStanding::Alive, ContainerState::Running, None) => Self::Running,
            (HostStanding::Alive, ContainerState::Running, Some(Health::Healthy)) => Self::Healthy,
            (HostStanding::Alive, ContainerState::Running, Some(Health::Unhealthy)) => {
                Self::Unhealthy
            }
            (HostStanding::Alive, ContainerState::Running, Some(Health::Starting)) => {
                Self::Starting
            }
            (HostStanding::Alive, _, _) => Self::NotRunning,
        }
    }

    /// Whether it counts.
    pub(crate) const fn counts(self) -> bool {
        !matches!(self, Self::NotRunning | Self::HostAway | Self::HostGone)
    }

    /// Whether it is handed out.
    pub(crate) const fn is_well(self) -> bool {
        matches!(self, Self::Running | Self::Healthy)
    }

    /// Whether it is handed out when nobody is well.
    pub(crate) const fn is_spare(self) -> bool {
        matches!(self, Self::Unhealthy | Self::Paused)
    }

    /// In a few words.
    pub(crate) fn reason(self, host: &HostName) -> String {
        match self {
            Self::Running => "running".to_owned(),
            Self::Healthy => "healthy".to_owned(),
            Self::Unhealthy => "unhealthy".to_owned(),
            Self::Paused => "paused".to_owned(),
            Self::Starting => "not healthy yet".to_owned(),
            Self::NotRunning => "not running".to_owned(),
            Self::HostAway => format!("host {host} is not alive"),
            Self::HostGone => format!("host {host} was removed"),
        }
    }
}

/// How a host stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostStanding {
    /// It gives signs of life.
    Alive,
    /// It does not.
    Away,
    /// It is not known, or by another member id.
    Gone,
}

/// A container on a network.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The engine's id.
    pub(crate) id: String,
    /// The container's name.
    pub(crate) name: String,
    /// Its host.
    pub(crate) host: HostName,
    /// Whether that is the host that answers.
    pub(crate) near: bool,
    /// Its Compose service.
    pub(crate) service: Option<ServiceName>,
    /// Its addresses here.
    pub(crate) v4: Vec<Ipv4Addr>,
    /// Its addresses here.
    pub(crate) v6: Vec<Ipv6Addr>,
    /// What it exposes.
    pub(crate) ports: Vec<ExposedPort>,
    /// Whether it is handed out.
    pub(crate) standing: Standing,
}

impl Place {
    /// The place of a container at one of its attachments.
    pub(crate) fn of(
        record: &ContainerRecord,
        attachment: &Attachment,
        host: HostStanding,
        near: bool,
    ) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in &attachment.addresses {
            match address {
                IpAddr::V4(address) => v4.push(*address),
                IpAddr::V6(address) => v6.push(*address),
            }
        }
        Self {
            id: record.id.clone(),
            name: record.name.clone(),
            host: record.host.clone(),
            near,
            service: record.service.clone(),
            v4,
            v6,
            ports: record.ports.iter().cloned().collect(),
            standing: Standing::of(record, host),
        }
    }

    /// Its addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.iter().copied().map(IpAddr::V4);
        v4.chain(self.v6.iter().copied().map(IpAddr::V6))
    }

    /// The name by which it alone is meant: the first twelve digits of its id.
    pub(crate) fn short_id(&self) -> &str {
        short_id(&self.id)
    }
}

/// Which names come first: the lower, the stronger.
pub(crate) const fn rank(kind: NameKind) -> u8 {
    match kind {
        NameKind::Id => 0,
        NameKind::Container => 1,
        NameKind::Service => 2,
        NameKind::Alias => 3,
    }
}

/// Whether a name is a container's own, and not one that was given to it.
pub(crate) const fn is_own(kind: NameKind) -> bool {
    matches!(kind, NameKind::Id | NameKind::Container)
}

/// The names of a container at an attachment, each of the strongest kind that it has, and texts that are none.
pub(crate) fn names_of<'a>(
    record: &'a ContainerRecord,
    attachment: &'a Attachment,
) -> (BTreeMap<String, NameKind>, Vec<(&'a str, NameError)>) {
    let ids = [record.id.as_str(), short_id(&record.id)].map(|id| (id, NameKind::Id));
    let name = (record.name.as_str(), NameKind::Container);
    let service = record.service.iter();
    let service = service.map(|service| (service.service.as_str(), NameKind::Service));
    let aliases = attachment.aliases.iter();
    let aliases = aliases.map(|alias| (alias.as_str(), NameKind::Alias));
    let (mut names, mut wrong) = (BTreeMap::new(), Vec::new());
    let given = ids.into_iter().chain([name]).chain(service).chain(aliases);
    for (text, kind) in given {
        match fold(text) {
            Ok(name) => {
                // The strongest kind comes first.
                names.entry(name).or_insert(kind);
            }
            // An id is longer than a label may be; its twelve digits do.
            Err(NameError::LabelTooLong) if kind == NameKind::Id => {}
            Err(error) => wrong.push((text, error)),
        }
    }
    (names, wrong)
}

fn short_id(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
