//! The two namespaces of a host and what is read and done in them outside of plans.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use drover_overlay::{Place, Step, TableFamily, TableName, name};
use drover_xfrm::Xfrm;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};

use crate::announce::Announcer;
use crate::error::Error;
use crate::namespace::{self, Namespace};
use crate::netlink::Netlink;
use crate::nft::{self, Elements, Nft};
use crate::observe::{address_of, is_unmoved_ipsec, name_of};
use crate::receiver::Sources;

/// A host's `drover` namespace and its root namespace.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) overlay_namespace: Namespace,
    pub(crate) root_namespace: Namespace,
    pub(crate) overlay: Netlink,
    pub(crate) root: Netlink,
    /// Another socket to the `drover` namespace: what takes long keeps nothing else from being asked.
    pub(crate) background: Netlink,
    pub(crate) nft: Nft,
    /// IPsec of the root namespace; `None` when the kernel has no IPsec at all.
    pub(crate) xfrm: Option<Xfrm>,
    overlay_elements: Elements,
    root_elements: Elements,
    pub(crate) announcer: Announcer,
    pub(crate) sources: Sources,
    path: PathBuf,
}

/// A step that could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
pub struct Failed {
    /// Which.
    pub step: Box<Step>,
    /// Why not.
    #[source]
    pub source: Error,
}

/// What a device has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets sent.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
    /// Packets dropped, either way.
    pub dropped: u64,
}

impl Kernel {
    /// Opens the `drover` namespace that is mounted at `path`, making it if there is none, and our
    /// own. The flag says whether it was made. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the namespace cannot be made or entered (it needs `CAP_SYS_ADMIN`), or `nft` is missing.
    pub async fn open(path: &Path) -> Result<(Self, bool), Error> {
        let nft = Nft::find()?;
        let root_namespace = Namespace::own()?;
        let (overlay_namespace, made) = Namespace::at(path)?;
        let kernel = Self {
            overlay: Netlink::open(&overlay_namespace)?,
            background: Netlink::open(&overlay_namespace)?,
            root: Netlink::open(&root_namespace)?,
            overlay_elements: Elements::open(&overlay_namespace)?,
            root_elements: Elements::open(&root_namespace)?,
            announcer: Announcer::open(&overlay_namespace)?,
            sources: Sources::default(),
            // Our own namespace is the root.
            xfrm: Xfrm::open().ok(),
            overlay_namespace,
            root_namespace,
            nft,
            path: path.to_owned(),
        };
        // Without a single local address the kernel takes every next hop for a broadcast address,
        // and refuses routes by way of it (`__inet_dev_addr_type`).
        kernel.set_up(Place::Overlay, "lo").await?;
        Ok((kernel, made))
    }

    /// Whether the namespace that was opened is still the one that is mounted.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.overlay_namespace.is_at(&self.path)
    }

    pub(crate) fn netlink(&self, place: Place) -> &Netlink {
        match place {
            Place::Overlay => &self.overlay,
            Place::Root => &self.root,
        }
    }

    pub(crate) fn elements(&self, place: Place) -> &Elements {
        match place {
            Place::Overlay => &self.overlay_elements,
            Place::Root => &self.root_elements,
        }
    }

    pub(crate) fn namespace(&self, place: Place) -> &Namespace {
        match place {
            Place::Overlay => &self.overlay_namespace,
            Place::Root => &self.root_namespace,
        }
    }

    /// The index of a link.
    pub(crate) async fn index(&self, place: Place, name: &str) -> Result<u32, Error> {
        self.netlink(place).index(name).await
    }

    pub(crate) async fn links(&self, place: Place) -> Result<Vec<LinkMessage>, Error> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let found = self.netlink(place).dump(question, "links").await?;
        let links = found.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        Ok(links.collect())
    }

    /// The device in the root namespace that has an address.
    ///
    /// # Errors
    /// When the kernel does not list its addresses.
    pub async fn device_with(&self, wanted: IpAddr) -> Result<Option<String>, Error> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let found = self.root.dump(question, "addresses").await?;
        let index = found.iter().find_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) if address_of(message) == Some(wanted) => {
                Some(message.header.index)
            }
            _ => None,
        });
        let Some(index) = index else { return Ok(None) };
        let links = self.links(Place::Root).await?;
        let link = links.iter().find(|link| link.header.index == index);
        Ok(link.and_then(name_of).map(ToOwned::to_owned))
    }

    /// What our devices in the `drover` namespace have counted.
    ///
    /// # Errors
    /// When the kernel does not list its links.
    pub async fn counters(&self) -> Result<BTreeMap<String, Counters>, Error> {
        let links = self.links(Place::Overlay).await?;
        let counted = links.iter().filter_map(|link| {
            let counters = link
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::Stats64(stats) => Some(Counters {
                        sent: stats.tx_packets,
                        received: stats.rx_packets,
                        dropped: stats.tx_dropped.saturating_add(stats.rx_dropped),
                    }),
                    _ => None,
                });
            Some((name_of(link)?.to_owned(), counters?))
        });
        Ok(counted.collect())
    }

    /// Removes everything of ours from the kernel, and only that: endpoint links that no engine has
    /// taken, the pair between the namespaces, the tables in the root namespace, and the `drover`
    /// namespace with all that is in it.
    ///
    /// # Errors
    /// What could not be removed; everything else is.
    pub async fn tear_down(&self) -> Result<Vec<String>, Vec<Error>> {
        let mut removed = Vec::new();
        let mut errors = Vec::new();
        for family in [TableFamily::Netdev, TableFamily::Inet] {
            let table = TableName {
                place: Place::Root,
                family,
            };
            let script = nft::delete_table(&table);
            let done = self
                .nft
                .run(&self.root_namespace, script, || format!("delete {table}"));
            collect(
                done.await,
                format!("table {table}"),
                &mut removed,
                &mut errors,
            );
        }
        match self.links(Place::Root).await {
            Ok(links) => {
                let named = |name: &str| name == name::DIRECT_ROOT || name::is_sandbox_link(name);
                let ours = |link: &&LinkMessage| {
                    is_unmoved_ipsec(link) || name_of(link).is_some_and(named)
                };
                for name in links.iter().filter(ours).filter_map(name_of) {
                    let done = self.delete_link(Place::Root, name).await;
                    collect(done, format!("link {name}"), &mut removed, &mut errors);
                }
            }
            Err(error) => errors.push(error),
        }
        match self.remove_security().await {
            Ok(steps) => removed.extend(steps),
            Err(error) => errors.push(error),
        }
        match self.receivers().await {
            Ok(receivers) => {
                for receiver in receivers {
                    let device = receiver.device();
                    let done = self.remove_receiver(device).await;
                    let what = format!("filter {} of {device}", receiver.name());
                    collect(done.map(|_done| ()), what, &mut removed, &mut errors);
                }
            }
            Err(error) => errors.push(error),
        }
        for name in self.overlay_links(&mut errors).await {
            let done = self.delete_link(Place::Overlay, &name).await;
            collect(done, format!("link {name}"), &mut removed, &mut errors);
        }
        let what = format!("namespace {}", self.path.display());
        collect(
            namespace::remove(&self.path),
            what,
            &mut removed,
            &mut errors,
        );
        if errors.is_empty() {
            Ok(removed)
        } else {
            Err(errors)
        }
    }

    async fn overlay_links(&self, errors: &mut Vec<Error>) -> Vec<String> {
        match self.links(Place::Overlay).await {
            Ok(links) => {
                let names = links
                    .iter()
                    .filter_map(name_of)
                    .filter(|name| name::is_ours(name));
                names.map(ToOwned::to_owned).collect()
            }
            Err(error) => {
                errors.push(error);
                Vec::new()
            }
        }
    }
}

fn collect(
    done: Result<(), Error>,
    what: String,
    removed: &mut Vec<String>,
    errors: &mut Vec<Error>,
) {
    match done {
        Ok(()) => removed.push(what),
        // The other end of a pair takes it along.
        Err(Error::NoLink { .. }) => {}
        Err(error) => errors.push(error),
    }
}
