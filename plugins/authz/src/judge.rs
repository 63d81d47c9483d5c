//! One call: read, looked up, decided, logged.

mod line;
mod made;
mod sight;

use std::sync::Arc;
use std::time::Instant;

use drover_authorization::{Call, Facet, Fact, Kind, OWNER_LABEL, Request, action};
use drover_policy::{Asked, Decision, Mode, Object, Policy, Principal};
use tokio::sync::watch;

use crate::in_force::InForce;
use crate::inventory::{Entry, Found, HostPath, Inventory};
use crate::log::{DecisionLog, Line};
use crate::owners::Owners;
use crate::paths;
pub(crate) use sight::Sight;

/// Operations that mount a container's folders anew.
const STARTING: &[&str] = &["ContainerStart", "ContainerRestart"];

/// What decides.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) in_force: Arc<InForce>,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) owners: Arc<Owners>,
    pub(crate) log: DecisionLog,
    /// How many calls are under way whose answer says what was made.
    making: watch::Sender<usize>,
}

/// A call whose answer will be noted. An engine tells what was made before it answers.
#[derive(Debug)]
pub(crate) struct Making<'a>(&'a Judge);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.making.send_modify(|count| *count -= 1);
    }
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Whether it is made.
    pub(crate) allow: bool,
    /// Why not, for the user.
    pub(crate) message: String,
}

/// What a policy said to a call that was understood.
struct Weighed {
    facets: Vec<Facet>,
    objects: Vec<Option<Object>>,
    decision: Decision,
}

impl Judge {
    pub(crate) fn new(
        in_force: Arc<InForce>,
        inventory: Arc<Inventory>,
        owners: Arc<Owners>,
        log: DecisionLog,
    ) -> Self {
        Self {
            in_force,
            inventory,
            owners,
            log,
            making: watch::Sender::new(0),
        }
    }

    /// Says that the answer to a call will be noted, as long as what is returned lives.
    pub(crate) fn making(&self) -> Making<'_> {
        self.making.send_modify(|count| *count += 1);
        Making(self)
    }

    /// Decides a call, and logs the decision. What becomes of a denial says `mode`, else the setup.
    pub(crate) async fn judge(
        &self,
        principal: &Principal,
        call: &Call<'_>,
        mode: Option<Mode>,
    ) -> Judgement {
        let began = Instant::now();
        let policy = self.in_force.policy();
        let set_up = policy.as_ref().map(|policy| policy.setup().mode);
        let mode = mode.or(set_up).unwrap_or_default();
        let read = Request::read(call);
        let (weighed, fault) = match (&policy, &read) {
            (None, _) => (
                None,
                Some("no policy is in force: see the log of drover-authz".to_owned()),
            ),
            (_, Err(refusal)) => (None, Some(refusal.to_string())),
            (Some(policy), Ok(request)) => {
                let weighed = self.weigh(policy, principal, request, mode).await;
                let reason = weighed
                    .decision
                    .denial()
                    .map(|(_, verdict)| verdict.reason.clone());
                (Some(weighed), reason)
            }
        };
        let allow = fault.is_none() || mode == Mode::Monitor;
        if let Some(weighed) = weighed.as_ref().filter(|_| allow) {
            self.claim_volumes(principal, weighed);
        }
        if let Some(volume) = read.as_ref().ok().and_then(made::removed_volume)
            && allow
        {
            self.owners.begin_removal(Kind::Volume, volume);
        }
        let line = line::line(principal, call, read.as_ref().ok(), weighed.as_ref());
        self.log.write(Line {
            decision: match (&fault, allow) {
                (None, _) => "allow",
                (Some(_), true) => "monitor",
                (Some(_), false) => "deny",
            },
            reason: fault.clone().unwrap_or_default(),
            micros: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            ..line
        });
        Judgement {
            allow,
            message: fault
                .filter(|_| !allow)
                .map(|fault| format!("drover: {fault}"))
                .unwrap_or_default(),
        }
    }

    async fn weigh(
        &self,
        policy: &Policy,
        principal: &Principal,
        request: &Request,
        mode: Mode,
    ) -> Weighed {
        let mut facets = request.facets.clone();
        let mut objects = Vec::with_capacity(facets.len());
        let mut place = 0;
        // What is found adds further facets: another container's volumes, the folder behind a volume.
        while let Some(facet) = facets.get_mut(place) {
            place += 1;
            if facet.action == action::MOUNT_HOST_PATH {
                objects.push(None);
                facet.resource.id = paths::to_decide_on(&facet.resource.id);
                continue;
            }
            if !facet.resource.kind.is_owned() {
                objects.push(None);
                continue;
            }
            let facet = facet.clone();
            let (object, entry) = self.look_up(&facet).await;
            let is_own = object.owner.as_deref() == Some(principal.name.as_str());
            objects.push(Some(object));
            facets.extend(entry.iter().flat_map(|entry| behind(&facet, entry, is_own)));
        }
        let asked: Vec<Asked<'_>> = facets
            .iter()
            .zip(&objects)
            .map(|(facet, object)| Asked {
                facet,
                object: object.as_ref(),
            })
            .collect();
        let whole = mode == Mode::Monitor;
        let decision = policy.decide(principal, request.endpoint.operation, &asked, whole);
        Weighed {
            facets,
            objects,
            decision,
        }
    }

    /// What is known of a facet's resource. What cannot be found out is somebody else's.
    async fn look_up(&self, facet: &Facet) -> (Object, Option<Entry>) {
        let (kind, id) = (facet.resource.kind, facet.resource.id.as_str());
        let somebodys = Object {
            name: id.to_owned(),
            known: true,
            ..Object::default()
        };
        if request_makes_it(facet) {
            // A name that is taken is an error of the engine's: nothing is to be asked of it, and nothing to be waited for.
            let name = id.to_owned();
            let object = Object {
                name,
                ..Object::default()
            };
            return (object, None);
        }
        if kind == Kind::Exec {
            let owner = self.owners.of(kind, id);
            return (Object { owner, ..somebodys }, None);
        }
        match self.inventory.find(kind, id, shows_mounts(facet)).await {
            Found::Unclear => (somebodys, None),
            Found::Nothing => {
                let name = id.to_owned();
                (
                    Object {
                        name,
                        ..Object::default()
                    },
                    None,
                )
            }
            Found::Entry(entry) => {
                let object = self.object(kind, &entry);
                (object, Some(entry))
            }
        }
    }

    /// Something that is there, with its owner: as recorded, else by its label.
    fn object(&self, kind: Kind, entry: &Entry) -> Object {
        let recorded = self.owners.of(kind, &entry.id);
        // An id comes once; the name of a volume may be another one's.
        let gone = || match kind {
            Kind::Volume => None,
            _ => self.owners.of_gone(kind, &entry.id),
        };
        let label = || entry.labels.get(OWNER_LABEL).cloned();
        Object {
            name: entry.name.clone(),
            known: true,
            owner: recorded.or_else(gone).or_else(label),
            labels: entry.labels.clone(),
        }
    }

    /// A volume that is not there yet is made by the call that names it, and is its maker's.
    fn claim_volumes(&self, principal: &Principal, weighed: &Weighed) {
        for (facet, object) in weighed.facets.iter().zip(&weighed.objects) {
            let is_new = object.as_ref().is_some_and(|object| !object.known);
            let is_made = matches!(facet.action, action::MOUNT_VOLUME | "VolumeCreate");
            if is_new && is_made && !facet.resource.id.is_empty() {
                self.owners
                    .claim(Kind::Volume, &facet.resource.id, &principal.name);
            }
        }
    }
}

/// Whether a call makes its resource, and cannot mean one that is there. Networks and volumes it can: see `not-made-twice`.
fn request_makes_it(facet: &Facet) -> bool {
    facet.action == "ContainerCreate"
}

/// Whether a facet takes what its resource mounts: a volume's folder, another container's volumes.
fn takes_mounts(facet: &Facet) -> bool {
    let volumes_of = facet.action == action::JOIN_CONTAINER
        && facet.facts.get("value") == Some(&Fact::Text("volumes".to_owned()));
    facet.action == action::MOUNT_VOLUME || volumes_of
}

/// Whether what a facet's resource mounts has to be known to decide on it.
fn shows_mounts(facet: &Facet) -> bool {
    takes_mounts(facet) || STARTING.contains(&facet.action)
}

/// What stands behind a resource: the host's folder of a volume, the volumes and folders of another container, and the folders of one's own
/// container that is started, where they lead somewhere else than they say: they may have led there when it was made, or not.
fn behind(facet: &Facet, entry: &Entry, is_own: bool) -> Vec<Facet> {
    let path = |path: &HostPath| {
        Facet::new(action::MOUNT_HOST_PATH, Kind::HostPath, &path.path)
            .with("readOnly", Fact::Bool(path.read_only))
            .with("propagation", Fact::Text(path.propagation.clone()))
    };
    if STARTING.contains(&facet.action) && is_own {
        let paths = entry.paths.iter();
        let led_away = paths.filter(|each| paths::to_decide_on(&each.path) != each.path);
        return led_away.map(path).collect();
    }
    if !takes_mounts(facet) {
        return Vec::new();
    }
    let volume = |name: &String| {
        Facet::new(action::MOUNT_VOLUME, Kind::Volume, name).with("readOnly", Fact::Bool(false))
    };
    let paths = entry.paths.iter().map(path);
    paths.chain(entry.volumes.iter().map(volume)).collect()
}
