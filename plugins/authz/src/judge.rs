//! One call: read, looked up, decided, logged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_authorization::{Call, Facet, Fact, Kind, OWNER_LABEL, Request, action, canonical};
use drover_policy::{Asked, Decision, Mode, Object, Policy, Principal};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::in_force::InForce;
use crate::inventory::{Entry, Found, Inventory};
use crate::log::{DecisionLog, DeniedQuestion, Line};
use crate::owners::Owners;
use crate::paths;

/// What decides.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) in_force: Arc<InForce>,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) owners: Owners,
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
        owners: Owners,
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
        if fault.is_none()
            && let Some(weighed) = &weighed
        {
            self.claim_volumes(principal, weighed);
        }
        let allow = fault.is_none() || mode == Mode::Monitor;
        let line = line(principal, call, read.as_ref().ok(), weighed.as_ref());
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
            objects.push(Some(object));
            facets.extend(entry.iter().flat_map(|entry| behind(&facet, entry)));
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
        match self.inventory.find(kind, id).await {
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
        let recorded = recorded.or_else(|| self.owners.of_gone(kind, &entry.id));
        let label = || entry.labels.get(OWNER_LABEL).cloned();
        Object {
            name: entry.name.clone(),
            known: true,
            owner: recorded.or_else(label),
            labels: entry.labels.clone(),
        }
    }

    /// A volume that a container names and that is not there is made with it, and is its maker's.
    fn claim_volumes(&self, principal: &Principal, weighed: &Weighed) {
        for (facet, object) in weighed.facets.iter().zip(&weighed.objects) {
            let is_new = object.as_ref().is_some_and(|object| !object.known);
            if is_new && facet.action == action::MOUNT_VOLUME {
                self.owners
                    .note(Kind::Volume, &facet.resource.id, &principal.name);
            }
        }
    }

    /// What somebody may see.
    pub(crate) fn sight(self: Arc<Self>, principal: &Principal) -> Sight {
        Sight {
            judge: self,
            principal: principal.clone(),
        }
    }

    /// Whether the answer to an operation says what was made or removed: see [`Judge::note`].
    pub(crate) fn notes(operation: &str) -> bool {
        MAKING.contains(&operation)
            || REMOVING.contains(&operation)
            || CHANGING.contains(&operation)
    }

    /// Notes what an answered call has made or removed.
    pub(crate) async fn note(
        &self,
        principal: &Principal,
        call: &Call<'_>,
        status: u16,
        answer: &[u8],
    ) {
        if !(200..300).contains(&status) {
            return;
        }
        let Ok(request) = Request::read(call) else {
            return;
        };
        let operation = request.endpoint.operation;
        if MAKING.contains(&operation) {
            self.note_made(principal, &request, answer);
        } else if REMOVING.contains(&operation) {
            let Some(target) = request.target() else {
                return;
            };
            if let Found::Entry(entry) = self.inventory.find(target.kind, &target.id).await {
                self.owners.forget(target.kind, &entry.id);
            }
            self.owners.forget(target.kind, &target.id);
            self.inventory.look_soon();
        } else if CHANGING.contains(&operation) {
            self.inventory.look_soon();
        }
    }

    fn note_made(&self, principal: &Principal, request: &Request, answer: &[u8]) {
        #[derive(Default, serde::Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Made {
            id: String,
            name: String,
        }
        let (Ok(made), Some(target)) = (serde_json::from_slice::<Made>(answer), request.target())
        else {
            return;
        };
        if request.endpoint.operation == "ContainerExec" {
            self.owners.note(Kind::Exec, &made.id, &principal.name);
            return;
        }
        let id = if target.kind == Kind::Volume {
            made.name
        } else {
            made.id
        };
        if id.is_empty() {
            return;
        }
        let is_anothers =
            target.kind == Kind::Volume && self.owners.of(Kind::Volume, &id).is_some();
        if !is_anothers {
            self.owners.note(target.kind, &id, &principal.name);
        }
        let name = if target.kind == Kind::Volume {
            id.clone()
        } else {
            target.id.clone()
        };
        let labels = request
            .facets
            .first()
            .and_then(|facet| facet.facts.get("labels"));
        let labels = match labels {
            Some(Fact::Texts(texts)) => texts
                .iter()
                .filter_map(|text| text.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            _ => std::collections::BTreeMap::new(),
        };
        self.inventory.note(
            target.kind,
            Entry {
                id,
                name,
                labels,
                ..Entry::default()
            },
        );
    }
}

/// How long an event waits for calls that make something.
const SETTLING: Duration = Duration::from_secs(2);
/// Operations whose answer names what was made.
const MAKING: &[&str] = &[
    "ContainerCreate",
    "ContainerExec",
    "NetworkCreate",
    "VolumeCreate",
];
/// Operations that remove what they name.
const REMOVING: &[&str] = &["ContainerDelete", "NetworkDelete", "VolumeDelete"];
/// Operations after which names may mean something else.
const CHANGING: &[&str] = &[
    "ContainerPrune",
    "ContainerRename",
    "NetworkPrune",
    "VolumePrune",
];

/// What somebody may see in lists and events: what it may inspect. Nothing without a policy.
#[derive(Debug)]
pub(crate) struct Sight {
    judge: Arc<Judge>,
    principal: Principal,
}

impl Sight {
    /// Whether something with an owner and labels may be seen.
    pub(crate) fn sees(&self, kind: Kind, entry: &Entry) -> bool {
        let object = self.judge.object(kind, entry);
        self.asks(kind, &entry.id, Some(&object))
    }

    /// Whether something may be seen that has a name alone.
    pub(crate) fn sees_named(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Image => self.asks(kind, &canonical(name), None),
            _ => self.asks(kind, name, None),
        }
    }

    /// Whether a container may be seen that something else names.
    pub(crate) fn sees_container(&self, id: &str) -> bool {
        let known = self.judge.inventory.known_entry(Kind::Container, id);
        known.is_some_and(|entry| self.sees(Kind::Container, &entry))
    }

    /// Whether something may be seen that is somewhere, or was: without its labels when nobody knows them any more.
    pub(crate) async fn sees_somewhere(&self, kind: Kind, id: &str, name: &str) -> bool {
        match self.judge.inventory.find(kind, id).await {
            Found::Entry(entry) => self.sees(kind, &entry),
            Found::Unclear => false,
            Found::Nothing => self.sees(
                kind,
                &Entry {
                    id: id.to_owned(),
                    name: name.to_owned(),
                    ..Entry::default()
                },
            ),
        }
    }

    /// Waits for the calls that are under way and make something; whether there were any.
    pub(crate) async fn settle(&self) -> bool {
        let mut making = self.judge.making.subscribe();
        if *making.borrow() == 0 {
            return false;
        }
        // One that takes longer is told by whatever happens to it next.
        drop(timeout(SETTLING, making.wait_for(|count| *count == 0)).await);
        true
    }

    fn asks(&self, kind: Kind, id: &str, object: Option<&Object>) -> bool {
        let action = match kind {
            Kind::Container => "ContainerInspect",
            Kind::Network => "NetworkInspect",
            Kind::Volume => "VolumeInspect",
            Kind::Image => "ImageInspect",
            Kind::Plugin => "PluginInspect",
            Kind::Engine => "SystemInfo",
            Kind::SwarmObject => swarm_inspection(id),
            _ => return false,
        };
        let Some(policy) = self.judge.in_force.policy() else {
            return false;
        };
        let facet = Facet::new(action, kind, id);
        let asked = Asked {
            facet: &facet,
            object,
        };
        policy
            .decide(&self.principal, action, &[asked], false)
            .is_allowed()
    }
}

/// The operation that looks at an object of a swarm: `services/web`.
fn swarm_inspection(id: &str) -> &'static str {
    match id.split('/').next().unwrap_or_default() {
        "nodes" => "NodeInspect",
        "services" => "ServiceInspect",
        "tasks" => "TaskInspect",
        "secrets" => "SecretInspect",
        _ => "ConfigInspect",
    }
}

/// Whether a call makes its resource, and cannot mean one that is there. Networks and volumes it can: see `not-made-twice`.
fn request_makes_it(facet: &Facet) -> bool {
    facet.action == "ContainerCreate"
}

/// What stands behind a resource: the host's folder of a volume, the volumes and folders of another container.
fn behind(facet: &Facet, entry: &Entry) -> Vec<Facet> {
    let volumes_of = facet.action == action::JOIN_CONTAINER
        && facet.facts.get("value") == Some(&Fact::Text("volumes".to_owned()));
    if facet.action != action::MOUNT_VOLUME && !volumes_of {
        return Vec::new();
    }
    let path = |path: &String| {
        Facet::new(action::MOUNT_HOST_PATH, Kind::HostPath, path)
            .with("readOnly", Fact::Bool(false))
            .with("propagation", Fact::Text(String::new()))
    };
    let volume = |name: &String| {
        Facet::new(action::MOUNT_VOLUME, Kind::Volume, name).with("readOnly", Fact::Bool(false))
    };
    let paths = entry.paths.iter().map(path);
    paths.chain(entry.volumes.iter().map(volume)).collect()
}

fn line(
    principal: &Principal,
    call: &Call<'_>,
    request: Option<&Request>,
    weighed: Option<&Weighed>,
) -> Line {
    let target = request.and_then(Request::target);
    let decision = weighed.map(|weighed| &weighed.decision);
    let decided = decision.and_then(|decision| match decision.denial() {
        Some((_, verdict)) => Some(verdict),
        None => decision.verdicts.first(),
    });
    let denied = weighed.into_iter().flat_map(|weighed| {
        let rows = weighed
            .facets
            .iter()
            .zip(&weighed.objects)
            .zip(&weighed.decision.verdicts);
        rows.filter(|(_, verdict)| !verdict.allowed)
            .map(|((facet, object), _)| DeniedQuestion {
                action: facet.action,
                kind: facet.resource.kind.name(),
                id: facet.resource.id.clone(),
                own: object
                    .as_ref()
                    .is_some_and(|object| object.owner.as_deref() == Some(principal.name.as_str())),
            })
    });
    Line {
        time: OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default(),
        user: principal.name.clone(),
        method: call.method.chars().take(20).collect(),
        operation: request.map(|request| request.endpoint.operation),
        target: target
            .map(|target| format!("{}/{}", target.kind.name(), target.id))
            .unwrap_or_default(),
        decision: "",
        rules: decided
            .map(|verdict| verdict.rules.clone())
            .unwrap_or_default(),
        reason: String::new(),
        denied: denied.collect(),
        micros: 0,
    }
}
