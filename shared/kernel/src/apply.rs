//! Steps taken. No choice is left here: a step says all there is to do.
//!
//! The steps of a phase do not depend on each other, so they are under way together; the rules that a
//! phase writes in one namespace are one script.

use std::fs;
use std::path::Path;

use drover_overlay::{ElementChange, Link, Place, Plan, Step, Target, name};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use rtnetlink::LinkUnspec;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage;

use crate::error::Error;
use crate::kernel::{Failed, Kernel};
use crate::message::{self, Surroundings};
use crate::nft::{self, Outcome};

/// How many requests are under way at a time: more gain nothing, and their acknowledgements would
/// overflow the socket's buffer.
const UNDER_WAY: usize = 64;

impl Kernel {
    /// Takes the steps of a plan, in order. A step that fails does not keep the others from being
    /// taken; the ones that failed are returned.
    pub async fn apply(&self, plan: &Plan) -> Vec<Failed> {
        let mut failed = Vec::new();
        for phase in plan.steps.chunk_by(|one, next| one.phase() == next.phase()) {
            self.apply_rules(phase, &mut failed).await;
            let others = phase.iter().filter(|step| script(step).is_none());
            // Boxed, since the compiler cannot tell that a stream of borrowing futures is `Send`.
            let under_way: Vec<BoxFuture<'_, Option<Failed>>> =
                others.map(|step| self.attempt(step).boxed()).collect();
            let mut results = futures_util::stream::iter(under_way).buffer_unordered(UNDER_WAY);
            while let Some(result) = results.next().await {
                failed.extend(result);
            }
        }
        failed
    }

    async fn attempt(&self, step: &Step) -> Option<Failed> {
        let source = self.take(step).await.err()?;
        Some(Failed {
            step: Box::new(step.clone()),
            source,
        })
    }

    async fn apply_rules(&self, phase: &[Step], failed: &mut Vec<Failed>) {
        for place in [Place::Overlay, Place::Root] {
            let scripts: Vec<_> = phase
                .iter()
                .filter_map(|step| {
                    script(step)
                        .filter(|(at, _)| *at == place)
                        .map(|it| (step, it.1))
                })
                .collect();
            let Some((first, _)) = scripts.first() else {
                continue;
            };
            let whole: String = scripts.iter().map(|(_, script)| script.as_str()).collect();
            let run = self
                .nft
                .run(self.namespace(place), whole, || first.to_string());
            if let Err(source) = run.await {
                failed.push(Failed {
                    step: Box::new((*first).clone()),
                    source,
                });
            }
        }
    }

    async fn take(&self, step: &Step) -> Result<(), Error> {
        match step {
            Step::SetSysctl { name, value } => self.set_sysctl(name, value).await,
            Step::DeleteLink { name, .. } => {
                missing_is_fine(self.delete_link(Place::Overlay, name).await)
            }
            Step::CreateLink { name, link } => self.create_link(name, link).await,
            Step::ChangeLink { name, link } => self.change_link(name, link).await,
            Step::DeleteRoute { .. } | Step::SetRoute { .. } => self.take_route(step).await,
            Step::DeleteNeighbour { .. }
            | Step::DeleteProxy { .. }
            | Step::DeleteAddress { .. }
            | Step::AddAddress { .. }
            | Step::SetNeighbour { .. }
            | Step::AddProxy { .. } => self.take_address(step).await,
            Step::ChangeElements { place, changes } => {
                self.change_elements(*place, changes, step).await
            }
            // Taken by `apply_rules`.
            Step::DeleteTable { .. } | Step::WriteTable { .. } => Ok(()),
            Step::AddAssociation { .. }
            | Step::DeleteAssociation { .. }
            | Step::SetPolicy { .. }
            | Step::DeletePolicy { .. } => self.take_security(step).await,
        }
    }

    /// The elements of plain sets, which come and go with every container, without a process; others
    /// by `nft`.
    async fn change_elements(
        &self,
        place: Place,
        changes: &[ElementChange],
        step: &Step,
    ) -> Result<(), Error> {
        let says = || step.to_string();
        let outcome = self.elements(place).change(changes, says).await?;
        if outcome == Outcome::LeftToNft {
            let script = nft::change_elements(changes);
            self.nft.run(self.namespace(place), script, says).await?;
        }
        Ok(())
    }

    async fn take_route(&self, step: &Step) -> Result<(), Error> {
        let (Step::DeleteRoute { prefix, target } | Step::SetRoute { prefix, target }) = step
        else {
            return Ok(());
        };
        let index = self.target_index(target).await;
        let says = || step.to_string();
        if let Step::DeleteRoute { .. } = step {
            let index = match index {
                Err(Error::NoLink { .. }) => return Ok(()),
                other => other?,
            };
            let gone = RouteNetlinkMessage::DelRoute(message::route(*prefix, target, index));
            return missing_is_fine(self.overlay.request(gone, 0, says).await);
        }
        let new = RouteNetlinkMessage::NewRoute(message::route(*prefix, target, index?));
        self.overlay
            .request(new, NLM_F_CREATE | NLM_F_REPLACE, says)
            .await
    }

    async fn target_index(&self, target: &Target) -> Result<Option<u32>, Error> {
        match target.device() {
            Some(device) => self.index(Place::Overlay, device).await.map(Some),
            None => Ok(None),
        }
    }

    async fn take_address(&self, step: &Step) -> Result<(), Error> {
        let (place, device) = match step {
            Step::DeleteNeighbour { place, device, .. }
            | Step::SetNeighbour { place, device, .. } => (*place, device),
            Step::DeleteProxy { device, .. }
            | Step::DeleteAddress { device, .. }
            | Step::AddAddress { device, .. }
            | Step::AddProxy { device, .. } => (Place::Overlay, device),
            _ => return Ok(()),
        };
        let index = self.index(place, device).await?;
        let (request, flags) = match step {
            Step::DeleteNeighbour { address, .. } => (
                RouteNetlinkMessage::DelNeighbour(message::neighbour(index, *address, None)),
                0,
            ),
            Step::SetNeighbour { address, mac, .. } => {
                let neighbour = message::neighbour(index, *address, Some(*mac));
                (
                    RouteNetlinkMessage::NewNeighbour(neighbour),
                    NLM_F_CREATE | NLM_F_REPLACE,
                )
            }
            Step::DeleteProxy { address, .. } => (
                RouteNetlinkMessage::DelNeighbour(message::proxy(index, *address)),
                0,
            ),
            Step::AddProxy { address, .. } => {
                let proxy = message::proxy(index, *address);
                (
                    RouteNetlinkMessage::NewNeighbour(proxy),
                    NLM_F_CREATE | NLM_F_REPLACE,
                )
            }
            Step::DeleteAddress { address, .. } => (
                RouteNetlinkMessage::DelAddress(message::address(index, *address)),
                0,
            ),
            Step::AddAddress { address, .. } => {
                let address = message::address(index, *address);
                (
                    RouteNetlinkMessage::NewAddress(address),
                    NLM_F_CREATE | NLM_F_REPLACE,
                )
            }
            _ => return Ok(()),
        };
        let done = self
            .netlink(place)
            .request(request, flags, || step.to_string())
            .await;
        if flags == 0 {
            missing_is_fine(done)
        } else {
            done
        }
    }

    async fn set_sysctl(&self, name: &str, value: &str) -> Result<(), Error> {
        let action = || format!("set {name} to {value}");
        let (path, value) = (Path::new("/proc/sys").join(name), value.to_owned());
        let written = self
            .overlay_namespace
            .run(move || fs::write(path, value))
            .await;
        let written = written.and_then(|written| written);
        written.map_err(|source| Error::Request {
            action: action(),
            source,
        })
    }

    /// Removes a link.
    pub(crate) async fn delete_link(&self, place: Place, name: &str) -> Result<(), Error> {
        self.netlink(place).delete_link(name).await
    }

    /// Removes links of the `drover` namespace while other steps are taken: the kernel lets go of a link
    /// only when every processor has done with it. Those that could not be removed are returned, and one
    /// that is not there is removed.
    pub async fn remove_links(&self, names: &[String]) -> Vec<(String, Error)> {
        let mut failed = Vec::new();
        for name in names {
            let removed = missing_is_fine(self.background.delete_link(name).await);
            failed.extend(removed.err().map(|error| (name.clone(), error)));
        }
        failed
    }

    async fn create_link(&self, name: &str, link: &Link) -> Result<(), Error> {
        let made = self.try_create_link(name, link).await;
        match (made, link) {
            // An end that a dead engine has let go of, or gave back after the endpoint was deleted.
            (Err(error), Link::Port(port)) if error.errno() == Some(nix::libc::EEXIST) => {
                let other = port.sandbox.iter().map(|sandbox| sandbox.link.as_str());
                for other in other.filter(|other| name::is_sandbox_link(other)) {
                    missing_is_fine(self.delete_link(Place::Root, other).await)?;
                }
                self.try_create_link(name, link).await
            }
            (made, _) => made,
        }?;
        self.check_sources(name, link).await
    }

    /// Sets whether a link takes only packets whose source is routed back to it (RFC 3704, strict). It costs a look at the
    /// routes for each packet, and is left out where rules bind sources to ports or peers.
    async fn check_sources(&self, name: &str, link: &Link) -> Result<(), Error> {
        let strict = match link {
            Link::Vxlan(_) | Link::Ipsec(_) => "1",
            Link::Bridge(_) | Link::Direct(_) => "0",
            Link::Port(_) | Link::Foreign => return Ok(()),
        };
        let setting = format!("net/ipv4/conf/{name}/rp_filter");
        self.set_sysctl(&setting, strict).await
    }

    async fn try_create_link(&self, name: &str, link: &Link) -> Result<(), Error> {
        if let Link::Ipsec(ipsec) = link {
            return self.create_ipsec(name, ipsec).await;
        }
        let bridge = self.bridge_index(link).await?;
        let around = Surroundings {
            root: &self.root_namespace,
            overlay: &self.overlay_namespace,
            bridge,
        };
        let Some(message) = message::create_link(name, link, &around) else {
            return Err(Error::NoLink {
                name: name.to_owned(),
            });
        };
        let place = match link {
            Link::Vxlan(_) => Place::Root,
            _ => Place::Overlay,
        };
        let request = RouteNetlinkMessage::NewLink(message);
        let action = || format!("create link {name}");
        self.netlink(place)
            .request(request, NLM_F_CREATE | NLM_F_EXCL, action)
            .await?;
        match link {
            // Born in another namespace than it was asked for in: it comes down.
            Link::Vxlan(_) => self.set_up(Place::Overlay, name).await,
            Link::Direct(_) => self.set_up(Place::Root, name::DIRECT_ROOT).await,
            _ => Ok(()),
        }
    }

    async fn bridge_index(&self, link: &Link) -> Result<Option<u32>, Error> {
        match link {
            Link::Port(port) => self.index(Place::Overlay, &port.bridge).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Sets a link up.
    pub(crate) async fn set_up(&self, place: Place, name: &str) -> Result<(), Error> {
        let index = self.index(place, name).await?;
        let up = RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(index).up().build());
        self.netlink(place)
            .request(up, 0, || format!("set link {name} up"))
            .await
    }

    async fn change_link(&self, name: &str, link: &Link) -> Result<(), Error> {
        let action = || format!("change link {name}");
        let index = self.index(Place::Overlay, name).await?;
        let bridge = self.bridge_index(link).await?;
        let change = RouteNetlinkMessage::SetLink(message::change_link(index, link, bridge));
        self.overlay.request(change, 0, action).await?;
        if let Link::Direct(_) = link {
            let outer = self.index(Place::Root, name::DIRECT_ROOT).await?;
            let change = RouteNetlinkMessage::SetLink(message::change_link(outer, link, None));
            self.root.request(change, 0, action).await?;
        }
        Ok(())
    }
}

/// The script of a step that is about rules, and where it runs.
fn script(step: &Step) -> Option<(Place, String)> {
    match step {
        Step::DeleteTable { table } => Some((table.place, nft::delete_table(table))),
        Step::WriteTable { name, table } => Some((name.place, nft::write_table(name, table))),
        _ => None,
    }
}

/// Removing what is not there is done already.
fn missing_is_fine(done: Result<(), Error>) -> Result<(), Error> {
    const MISSING: [i32; 4] = [
        nix::libc::ENOENT,
        nix::libc::ESRCH,
        nix::libc::EADDRNOTAVAIL,
        nix::libc::ENODEV,
    ];
    match done {
        Err(Error::NoLink { .. }) => Ok(()),
        Err(error) if error.errno().is_some_and(|errno| MISSING.contains(&errno)) => Ok(()),
        done => done,
    }
}
