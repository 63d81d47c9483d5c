//! IPsec in the root namespace: associations and policies as the values of `drover-overlay`, the steps that
//! change them, what they have counted, and whether this kernel has any of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::Path;

use drover_ipsec::{KeyMaterial, Spi};
use drover_overlay::{
    AssociationId, Ipsec, Link, Place, PolicyDirection, PolicyKey, PolicyTemplate,
    SecurityAssociation, State, Step, name,
};
use drover_xfrm::{PolicyId, PolicySpec, SeenState, Shape, StateSpec, Xfrm};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{LinkUnspec, LinkXfrm};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::kernel::Kernel;
use crate::observe::{is_unmoved_ipsec, name_of};

/// How many packets a receiving association remembers: lanes are in order, but the network need not be.
const WINDOW: u32 = 4096;
/// The interface and the index that are tried to see whether the kernel can encrypt.
const TRIED: (u32, u32) = (0x6472_ffff, 0x6fff_ffff);
/// The link that is tried.
const TRIED_LINK: &str = "dvr-try";

/// A question that only packet filters of some kernels know: where the source of a packet is routed to.
const SOURCE_RULES: &str = "fib saddr . iif oif missing drop";
/// What else the rules of a host that encrypts ask, and how they spread flows.
const ENCRYPTION_RULES: &str = "meta ipsec missing rt ipsec missing drop
meta l4proto { tcp, udp } meta mark set jhash ip saddr . th sport mod 8 seed 0x64726f76";

/// What an association of ours has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssociationCounters {
    /// Which.
    pub id: AssociationId,
    /// The number of its interface.
    pub if_id: u32,
    /// Packets carried.
    pub packets: u64,
    /// Bytes carried.
    pub bytes: u64,
    /// Packets refused because they had been seen, or were too old to tell.
    pub replayed: u64,
    /// Packets refused because they were not made with its key.
    pub forged: u64,
}

impl Kernel {
    /// What the associations of ours have counted: those of [`Spi`]'s form on interfaces of ours.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn association_counters(&self) -> Result<Vec<AssociationCounters>, Error> {
        let Some(xfrm) = &self.xfrm else {
            return Ok(Vec::new());
        };
        let seen = xfrm.states().await.map_err(unlisted("associations"))?;
        let ours = seen.iter().filter(|state| state.shape == Shape::Ours);
        let counters = ours.filter_map(|state| {
            Some(AssociationCounters {
                id: id_of(state)?,
                if_id: state.if_id,
                packets: state.packets,
                bytes: state.bytes,
                replayed: state.replayed.saturating_add(state.late),
                forged: state.forged,
            })
        });
        Ok(counters.collect())
    }

    /// Whether this kernel can encrypt: an association for each family that hosts may be reached by, an interface, and
    /// the rules that go with them, are made in the `drover` namespace, and removed.
    ///
    /// # Errors
    /// With what it lacks.
    pub async fn encryption(&self) -> Result<(), Error> {
        let runtime = tokio::runtime::Handle::current();
        let open = move || {
            let _entered = runtime.enter();
            Xfrm::open()
        };
        let opened = self.overlay_namespace.run(open).await;
        let opened = opened.and_then(|opened| opened);
        let xfrm = opened.map_err(|source| Error::Encryption {
            lacks: "IPsec (CONFIG_XFRM_USER)",
            source,
        })?;
        let [source, destination] = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)));
        let lacks = "ESP with AES-GCM (modules esp4 and gcm; CONFIG_INET_ESP, CONFIG_CRYPTO_GCM)";
        try_association(&xfrm, source, destination, lacks).await?;
        // A kernel that was told to do without IPv6 is reached by IPv4 alone.
        if Path::new("/proc/sys/net/ipv6").exists() {
            let address = |last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
            let lacks = "ESP over IPv6 (module esp6; CONFIG_INET6_ESP)";
            try_association(&xfrm, address(1), address(2), lacks).await?;
        }
        let link = LinkXfrm::new(TRIED_LINK, 0, TRIED.0).build();
        let request = RouteNetlinkMessage::NewLink(link);
        let made = self
            .overlay
            .request(request, NLM_F_CREATE, || {
                "make an XFRM interface".to_owned()
            })
            .await;
        made.map_err(|error| Error::Encryption {
            lacks: "XFRM interfaces (module xfrm_interface; CONFIG_XFRM_INTERFACE)",
            source: std::io::Error::other(error),
        })?;
        self.delete_link(Place::Overlay, TRIED_LINK).await?;
        self.source_checks().await?;
        let lacks = "IPsec in nftables (modules nft_meta, nft_rt and nft_hash; CONFIG_XFRM, CONFIG_NFT_HASH)";
        self.try_rules(ENCRYPTION_RULES, "postrouting", lacks).await
    }

    /// Whether this kernel's packet filter can ask where the source of a packet is routed to.
    ///
    /// # Errors
    /// With what it lacks.
    pub async fn source_checks(&self) -> Result<(), Error> {
        let lacks = "source checks in nftables (module nft_fib_inet; CONFIG_NFT_FIB_INET)";
        self.try_rules(SOURCE_RULES, "prerouting", lacks).await
    }

    /// Makes a table with rules, and removes it by the same transaction: nothing is ever filtered by it.
    async fn try_rules(&self, rules: &str, hook: &str, lacks: &'static str) -> Result<(), Error> {
        let script = format!(
            "table inet {TRIED_LINK} {{\nchain tried {{\ntype filter hook {hook} priority 0;\n{rules}\n}}\n}}\ndelete table inet {TRIED_LINK}\n"
        );
        let says = || "try rules".to_owned();
        let tried = self.nft.run(&self.overlay_namespace, script, says).await;
        tried.map_err(|error| Error::Encryption {
            lacks,
            source: std::io::Error::other(error),
        })
    }

    pub(crate) async fn observe_security(&self, state: &mut State) -> Result<(), Error> {
        let Some(xfrm) = &self.xfrm else {
            return Ok(());
        };
        for seen in xfrm.states().await.map_err(unlisted("associations"))? {
            let Some(id) = id_of(&seen).filter(|_| seen.shape != Shape::Larval) else {
                continue;
            };
            // One of another shape is not as any of ours, and is to go.
            let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            let source = if seen.shape == Shape::Ours {
                seen.source
            } else {
                nowhere
            };
            let association = SecurityAssociation {
                if_id: seen.if_id,
                source,
                udp: seen.udp,
                key: None,
            };
            state.associations.insert(id, association);
        }
        for seen in xfrm.policies().await.map_err(unlisted("policies"))? {
            if name::interface_peer(seen.id.if_id).is_some() {
                let (key, template) = read_policy(&seen);
                state.policies.insert(key, template);
            }
        }
        Ok(())
    }

    pub(crate) async fn take_security(&self, step: &Step) -> Result<(), Error> {
        let says = |error: drover_xfrm::Error| Error::Request {
            action: step.to_string(),
            source: std::io::Error::other(error),
        };
        let Some(xfrm) = &self.xfrm else {
            return Err(Error::Encryption {
                lacks: "IPsec (CONFIG_XFRM_USER)",
                source: std::io::ErrorKind::Unsupported.into(),
            });
        };
        match step {
            Step::AddAssociation { id, association } => {
                let Some(key) = &association.key else {
                    return Ok(());
                };
                let state = StateSpec {
                    spi: id.spi.get(),
                    source: association.source,
                    destination: id.destination,
                    if_id: association.if_id,
                    request: association.if_id,
                    udp: association.udp,
                    key,
                    window: WINDOW,
                };
                let made = xfrm.add_state(&state).await;
                if made.is_err() && forget_larval(xfrm, id).await? {
                    return xfrm.add_state(&state).await.map_err(says);
                }
                made.map_err(says)
            }
            Step::DeleteAssociation { id } => {
                let gone = xfrm.delete_state(id.spi.get(), id.destination).await;
                gone.map_err(says)
            }
            Step::SetPolicy { key, template } => {
                xfrm.set_policy(&policy(key, template)).await.map_err(says)
            }
            Step::DeletePolicy { key } => xfrm.delete_policy(&policy_id(key)).await.map_err(says),
            _ => Ok(()),
        }
    }

    /// Makes an XFRM interface in the root namespace, which it looks its associations up in for ever, and moves
    /// it: one that is asked for in another namespace at once would look there (`xfrmi_newlink`).
    pub(crate) async fn create_ipsec(&self, name: &str, link: &Ipsec) -> Result<(), Error> {
        let action = || format!("create link {name}");
        let message = LinkXfrm::new(name, 0, link.if_id)
            .mtu(link.mtu.get().into())
            .build();
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let request = || RouteNetlinkMessage::NewLink(message.clone());
        let made = self.root.request(request(), flags, action).await;
        if let Err(error) = made {
            let links = self.links(Place::Root).await?;
            let unmoved = |it: &LinkMessage| name_of(it) == Some(name) && is_unmoved_ipsec(it);
            // Otherwise one with its number is in a namespace that is about to go, or its name is somebody else's.
            if error.errno() != Some(nix::libc::EEXIST) || !links.iter().any(unmoved) {
                return Err(error);
            }
            self.delete_link(Place::Root, name).await?;
            self.root.request(request(), flags, action).await?;
        }
        let index = self.index(Place::Root, name).await?;
        let to_overlay = LinkUnspec::new_with_index(index)
            .setns_by_fd(self.overlay_namespace.file().as_raw_fd())
            .build();
        let moved = RouteNetlinkMessage::SetLink(to_overlay);
        self.root.request(moved, 0, action).await?;
        let index = self.index(Place::Overlay, name).await?;
        let link = Link::Ipsec(link.clone());
        let up: LinkMessage = crate::message::change_link(index, &link, None);
        let up = RouteNetlinkMessage::SetLink(up);
        self.overlay.request(up, 0, action).await
    }

    /// Removes all policies of interfaces of ours, and all associations, also those whose index we never give.
    pub(crate) async fn remove_security(&self) -> Result<Vec<String>, Error> {
        let Some(xfrm) = &self.xfrm else {
            return Ok(Vec::new());
        };
        let mut removed = Vec::new();
        for policy in xfrm.policies().await.map_err(unlisted("policies"))? {
            if name::interface_peer(policy.id.if_id).is_some() {
                let step = Step::DeletePolicy {
                    key: read_policy(&policy).0,
                };
                self.take_security(&step).await?;
                removed.push(step.to_string());
            }
        }
        for state in xfrm.states().await.map_err(unlisted("associations"))? {
            if name::interface_peer(state.if_id).is_some() {
                let (spi, destination) = (state.spi, state.destination);
                let says = format!("delete association {spi:#010x} to {destination}");
                let gone = xfrm.delete_state(spi, destination).await;
                gone.map_err(|error| Error::Request {
                    action: says.clone(),
                    source: std::io::Error::other(error),
                })?;
                removed.push(says);
            }
        }
        Ok(removed)
    }
}

/// Makes an association with a key that nobody has, and removes it.
async fn try_association(
    xfrm: &Xfrm,
    source: IpAddr,
    destination: IpAddr,
    lacks: &'static str,
) -> Result<(), Error> {
    let (if_id, spi) = TRIED;
    let mut key = Zeroizing::new([0; KeyMaterial::LENGTH]);
    getrandom::fill(key.as_mut_slice()).map_err(|error| Error::Request {
        action: "draw random numbers".to_owned(),
        source: std::io::Error::other(error.to_string()),
    })?;
    let state = StateSpec {
        spi,
        source,
        destination,
        if_id,
        request: if_id,
        udp: None,
        key: &KeyMaterial::new(key),
        window: WINDOW,
    };
    let made = xfrm.add_state(&state).await;
    let removed = xfrm.delete_state(spi, destination).await;
    made.and(removed).map_err(|error| Error::Encryption {
        lacks,
        source: std::io::Error::other(error),
    })
}

/// A packet that found no association may have left one without a key in its place. Whether it had.
async fn forget_larval(xfrm: &Xfrm, id: &AssociationId) -> Result<bool, Error> {
    let failed = || unlisted("associations");
    let (spi, destination) = (id.spi.get(), id.destination);
    let states = xfrm.states().await.map_err(failed())?;
    let larval = states.iter().any(|state| {
        state.shape == Shape::Larval && state.spi == spi && state.destination == destination
    });
    if larval {
        let gone = xfrm.delete_state(spi, destination).await;
        gone.map_err(failed())?;
    }
    Ok(larval)
}

fn unlisted(what: &'static str) -> impl Fn(drover_xfrm::Error) -> Error {
    move |error| Error::Request {
        action: format!("list {what}"),
        source: std::io::Error::other(error),
    }
}

fn id_of(seen: &SeenState) -> Option<AssociationId> {
    name::interface_peer(seen.if_id)?;
    Some(AssociationId {
        spi: Spi::read(seen.spi)?,
        destination: seen.destination,
    })
}

fn policy_id(key: &PolicyKey) -> PolicyId {
    PolicyId {
        if_id: key.if_id,
        direction: match key.direction {
            PolicyDirection::In => drover_xfrm::PolicyDirection::In,
            PolicyDirection::Out => drover_xfrm::PolicyDirection::Out,
        },
        family: key.family,
        mark: key.mark,
    }
}

/// What comes in comes from the peer.
fn policy(key: &PolicyKey, template: &PolicyTemplate) -> PolicySpec {
    let (source, destination) = match key.direction {
        PolicyDirection::In => (template.remote, template.local),
        PolicyDirection::Out => (template.local, template.remote),
    };
    PolicySpec {
        id: policy_id(key),
        source,
        destination,
        spi: template.spi.map(Spi::get),
        request: key.if_id,
    }
}

fn read_policy(seen: &PolicySpec) -> (PolicyKey, PolicyTemplate) {
    let (direction, local, remote) = match seen.id.direction {
        drover_xfrm::PolicyDirection::In => (PolicyDirection::In, seen.destination, seen.source),
        drover_xfrm::PolicyDirection::Out => (PolicyDirection::Out, seen.source, seen.destination),
    };
    let key = PolicyKey {
        if_id: seen.id.if_id,
        direction,
        family: seen.id.family,
        mark: seen.id.mark,
    };
    let template = PolicyTemplate {
        local,
        remote,
        spi: seen.spi.and_then(Spi::read),
    };
    (key, template)
}
