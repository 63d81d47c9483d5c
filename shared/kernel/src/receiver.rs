//! Receiving ESP in UDP (RFC 3948) by the kernel alone.
//!
//! The usual way is a UDP socket that is told so, and which dies with its process. Here a filter on the underlay
//! device holds a small program that takes the UDP header off, and what is left is received as any ESP. Why:
//! `docs/decisions/0005`.

mod assembler;
mod bpf;
mod filter;
mod layout;
mod program;
mod sources;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use drover_overlay::Place;
use nix::libc;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkLayerType, LinkMessage};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::kernel::Kernel;
use crate::message;
use crate::observe::name_of;
use filter::Filter;
use program::{Framing, Purpose};
pub use sources::Source;
pub(crate) use sources::Sources;

/// Priorities that are tried in turn, the first before all others of the device.
const PRIORITIES: std::ops::RangeInclusive<u16> = 1..=16;

/// What should receive ESP in UDP: on which device of the root namespace, for which address of this host, and on
/// which ports, from the first on as many as there can be lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// The underlay device.
    pub device: String,
    /// The address that packets are sent to. Others', which this host may forward, are left alone.
    pub address: IpAddr,
    /// Further addresses of this host: a packet to one of them goes on as if it were to the first.
    pub further: BTreeSet<IpAddr>,
    /// The first of the ports.
    pub first_port: u16,
}

/// What receives ESP in UDP on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverSeen {
    filter: Filter,
    device: String,
    framing: Option<Framing>,
}

impl ReceiverSeen {
    /// Whether it is the one that should be.
    #[must_use]
    pub fn is(&self, wanted: &Receiver) -> bool {
        let right = |framing| named(wanted, framing).is_some_and(|name| name == self.name());
        self.device == wanted.device && self.framing.is_some_and(right)
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Its name, which tells its program from any other.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.filter.name
    }

    /// Its place among the device's filters.
    #[must_use]
    pub fn priority(&self) -> u16 {
        self.filter.priority
    }
}

/// The name of the filter that holds a program for this: it tells the program, but for its map.
fn named(receiver: &Receiver, framing: Framing) -> Option<String> {
    let program = program(receiver, framing, 0)?;
    let digest = Sha256::digest(&program);
    let digest = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
    Some(format!(
        "{}{}_{}",
        filter::PREFIX,
        receiver.first_port,
        digest.collect::<String>()
    ))
}

fn program(receiver: &Receiver, framing: Framing, map: i32) -> Option<Vec<u8>> {
    program::program(&Purpose {
        framing,
        address: receiver.address,
        further: &receiver.further,
        first_port: receiver.first_port,
        map,
    })
}

struct Device {
    index: i32,
    kind: LinkLayerType,
}

impl Device {
    fn of(link: &LinkMessage) -> Self {
        Self {
            index: link.header.index.cast_signed(),
            kind: link.header.link_layer_type,
        }
    }

    fn framing(&self) -> Option<Framing> {
        match self.kind {
            LinkLayerType::Ether | LinkLayerType::Loopback => Some(Framing::Ethernet),
            LinkLayerType::None => Some(Framing::Bare),
            _ => None,
        }
    }
}

impl Kernel {
    /// What receives ESP in UDP on a device; the first, should there be several.
    ///
    /// # Errors
    /// When there is no such device, or the kernel does not list its filters.
    pub async fn receiver(&self, device: &str) -> Result<Option<ReceiverSeen>, Error> {
        let found = self.receiving_device(device).await?;
        let mut filters = self.receiving_filters(device, found.index).await?;
        filters.truncate(1);
        Ok(filters.pop().map(|filter| ReceiverSeen {
            filter,
            device: device.to_owned(),
            framing: found.framing(),
        }))
    }

    /// What receives ESP in UDP on any device: for finding what is left on devices that are not the underlay any more.
    ///
    /// # Errors
    /// When the kernel does not list its links and their filters.
    pub async fn receivers(&self) -> Result<Vec<ReceiverSeen>, Error> {
        let mut seen = Vec::new();
        for link in self.links(Place::Root).await? {
            let (Some(name), device) = (name_of(&link), Device::of(&link)) else {
                continue;
            };
            let filters = self.receiving_filters(name, device.index).await?;
            seen.extend(filters.into_iter().map(|filter| ReceiverSeen {
                filter,
                device: name.to_owned(),
                framing: device.framing(),
            }));
        }
        Ok(seen)
    }

    /// Brings about what should receive ESP in UDP. What is right already is left as it is, and what is not, or notes
    /// sources for another process, is replaced without a gap. The flag says whether anything was done.
    ///
    /// # Errors
    /// When there is no such device, it is neither Ethernet nor bare IP, or the kernel refuses the program or the
    /// filter. It needs `CAP_BPF` (before Linux 5.8 `CAP_SYS_ADMIN`) and `CAP_NET_ADMIN`.
    pub async fn set_receiver(&self, wanted: &Receiver) -> Result<bool, Error> {
        let name = &wanted.device;
        let device = self.receiving_device(name).await?;
        let unfit = || Error::LinkType {
            name: name.clone(),
            kind: device.kind.to_string(),
        };
        let framing = device.framing().ok_or_else(unfit)?;
        let wanted_name = named(wanted, framing).ok_or_else(unfit)?;
        let present = self.receiving_filters(name, device.index).await?;
        let (first, surplus) = match present.split_first() {
            Some((first, surplus)) => (Some(first), surplus),
            None => (None, [].as_slice()),
        };
        let right = self.sources.has(name) && first.is_some_and(|first| first.name == wanted_name);
        if !right {
            let map = bpf::Map::create(program::noted_length(wanted.address), sources::ENTRIES);
            let map = map.map_err(|source| Error::Request {
                action: "make a map for a program".to_owned(),
                source,
            })?;
            let program = program(wanted, framing, map.descriptor()).ok_or_else(unfit)?;
            let program = bpf::load(&program)?;
            let added = |priority| filter::set(device.index, priority, &wanted_name, &program);
            match first {
                Some(first) => {
                    let message = RouteNetlinkMessage::NewTrafficFilter(added(first.priority));
                    let action = || format!("replace filter {wanted_name} on {name}");
                    self.root.request(message, NLM_F_CREATE, action).await?;
                }
                None => self.add_receiver(name, device.index, added).await?,
            }
            self.sources.keep(name, map);
        }
        for filter in surplus {
            self.remove_filter(name, device.index, filter).await?;
        }
        Ok(!right || !surplus.is_empty())
    }

    /// Takes away what receives ESP in UDP on a device, if there is such a thing. Other filters stay, and so does
    /// the place for filters (clsact), which others may be about to use, and which is of no effect by itself.
    ///
    /// # Errors
    /// When the kernel refuses. A device that is not there is fine.
    pub async fn remove_receiver(&self, device: &str) -> Result<bool, Error> {
        self.sources.forget(device);
        let found = match self.receiving_device(device).await {
            Err(Error::NoLink { .. }) => return Ok(false),
            found => found?,
        };
        let filters = self.receiving_filters(device, found.index).await?;
        for filter in &filters {
            self.remove_filter(device, found.index, filter).await?;
        }
        Ok(!filters.is_empty())
    }

    async fn receiving_device(&self, name: &str) -> Result<Device, Error> {
        let question = RouteNetlinkMessage::GetLink(message::named_link(name));
        match self.root.first(question).await {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(Device::of(&link)),
            Err(source) if source.raw_os_error() != Some(libc::ENODEV) => Err(Error::Request {
                action: format!("look up link {name}"),
                source,
            }),
            _ => Err(Error::NoLink {
                name: name.to_owned(),
            }),
        }
    }

    async fn receiving_filters(&self, device: &str, index: i32) -> Result<Vec<Filter>, Error> {
        let question = RouteNetlinkMessage::GetTrafficFilter(filter::list(index));
        let what = format!("filters of {device}");
        let found = self.root.dump(question, &what).await?;
        let filters = found.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewTrafficFilter(message) => filter::read(message),
            _ => None,
        });
        Ok(filters.collect())
    }

    /// Adds a filter at the first priority that the device's other filters leave to it: those of one priority must
    /// be of one kind.
    async fn add_receiver(
        &self,
        device: &str,
        index: i32,
        filter: impl Fn(u16) -> rtnetlink::packet_route::tc::TcMessage,
    ) -> Result<(), Error> {
        let place = RouteNetlinkMessage::NewQueueDiscipline(filter::queue(index));
        let action = || format!("make a place for filters on {device}");
        let made = self
            .root
            .request(place, NLM_F_CREATE | NLM_F_EXCL, action)
            .await;
        match made {
            // Somebody has made it before: clsact, or its predecessor, which is as good.
            Err(error) if error.errno() == Some(libc::EEXIST) => {}
            made => made?,
        }
        let mut refused = None;
        for priority in PRIORITIES {
            let message = RouteNetlinkMessage::NewTrafficFilter(filter(priority));
            let action = || format!("add a filter on {device}");
            let flags = NLM_F_CREATE | NLM_F_EXCL;
            match self.root.request(message, flags, action).await {
                Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EEXIST)) => {
                    refused.get_or_insert(error);
                }
                answered => return answered,
            }
        }
        Err(refused.unwrap_or_else(|| Error::Request {
            action: format!("add a filter on {device}"),
            source: io::ErrorKind::AlreadyExists.into(),
        }))
    }

    async fn remove_filter(&self, device: &str, index: i32, filter: &Filter) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelTrafficFilter(filter::remove(index, filter));
        let action = || format!("remove filter {} from {device}", filter.name);
        match self.root.request(message, 0, action).await {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
            removed => removed,
        }
    }
}
