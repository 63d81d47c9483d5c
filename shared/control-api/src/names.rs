//! What the name service, `drover-names`, answers to the command line on its own socket, `names.sock` in
//! the run folder.
//!
//! The service stands in front of Docker's resolver in every container that is on one of Drover's networks. It
//! answers for names of the asker's networks from the [registry](crate::registry), and passes everything else on.

use std::net::IpAddr;

use drover_model::{HostName, LogicalNetworkId};
use serde::{Deserialize, Serialize};

use crate::method;
use crate::record::UnixSeconds;

/// To `drover-names`: how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameStatus {}
method!(NameStatus, "/Drover.NameStatus", NameReport);

/// How the name service of a host is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameReport {
    /// This host, once the coordinator has told.
    pub this_host: Option<HostName>,
    /// Whether the coordinator's stream is followed at this moment.
    pub followed: bool,
    /// Since when what is answered may be out of date; `None` when it is not.
    pub stale_since: Option<UnixSeconds>,
    /// How many networks have names.
    pub networks: u64,
    /// How many containers are known, on all hosts.
    pub containers: u64,
    /// How many names they have, a name once a network.
    pub names: u64,
    /// Names that were asked for and are not given.
    pub refused: Vec<RefusedName>,
    /// The containers of this host that are served.
    pub sandboxes: Vec<SandboxEntry>,
    /// The sum over all sandboxes since the process began, of those that are gone too.
    pub counters: NameCounters,
}

/// An alias or label that is no name, or names somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedName {
    /// As it was given, cut to 80 characters, control characters replaced.
    pub name: String,
    /// The network's name in Docker.
    pub network: String,
    /// Who asked for it: the container's name.
    pub container: String,
    /// Its host.
    pub host: HostName,
    /// Why it is not given, a sentence.
    pub reason: String,
}

/// To `drover-names`: wait until a sandbox is served.
///
/// Of those who have a part in a container's start, `drover-net` is called last before its first process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitSandbox {
    /// The sandbox's file, as the engine names it.
    pub sandbox: String,
    /// For how long at most, milliseconds.
    pub patience: u64,
}
method!(AwaitSandbox, "/Drover.AwaitSandbox", Awaited);

/// What became of a sandbox that was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// Whether it is served. If not, it has no namespace yet, cannot be served, or took too long.
    pub served: bool,
}

/// A container of this host that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxEntry {
    /// The sandbox's namespace: its file, or its process as `/proc/PID/ns/net`.
    pub sandbox: String,
    /// The container's id; `None` until the engine has told whose sandbox it is.
    pub container: Option<String>,
    /// The container's name; `None` until the registry has it.
    pub name: Option<String>,
    /// Its networks, by their names in Docker.
    pub networks: Vec<String>,
    /// Since when it is served.
    pub since: UnixSeconds,
    /// How long after its namespace was seen, milliseconds.
    pub delay: u64,
    /// How the rule that brings us queries goes away when this process dies.
    pub hook: HookKind,
    /// What is wrong with it, a sentence; `None` when all is well.
    pub complaint: Option<String>,
    /// What it has asked.
    pub counters: NameCounters,
}

/// How the rule in a sandbox goes away when the process that answers dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookKind {
    /// At once: the table belongs to our socket (Linux 5.12 and later).
    Owned,
    /// Within two seconds: it must be renewed to stay.
    Renewed,
    /// There is no rule now: queries go to Docker's resolver alone.
    Absent,
}

/// What was asked, and what became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameCounters {
    /// Queries over UDP.
    pub udp: u64,
    /// Queries over TCP.
    pub tcp: u64,
    /// Answered with records.
    pub answered: u64,
    /// Answered that the name has no records of the kind.
    pub no_data: u64,
    /// Answered that there is no such name.
    pub no_such_name: u64,
    /// Answered from what may be out of date; counted among the others, too.
    pub stale: u64,
    /// Cut to fit into UDP; the asker comes again over TCP.
    pub truncated: u64,
    /// Passed on to Docker's resolver.
    pub passed_on: u64,
    /// Passed on, and not answered by it in time.
    pub unanswered: u64,
    /// Not DNS: answered with an error, or dropped.
    pub malformed: u64,
    /// Refused, as the container had too much under way.
    pub over_limit: u64,
    /// How long our own answers took.
    pub own_latency: LatencySummary,
    /// How long answers of Docker's resolver took.
    pub passed_on_latency: LatencySummary,
}

/// How long answers took; each figure is the upper end of a range, of which the next is twice as high.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// The median, microseconds.
    pub p50: u64,
    /// The 99th percentile, microseconds.
    pub p99: u64,
}

/// To `drover-names`: every name there is, for `drover dns ls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Only of this network, by its name or id; `None` for all.
    pub network: Option<String>,
}
method!(Names, "/Drover.Names", NameTable);

/// Every name there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameTable {
    /// By network.
    pub networks: Vec<NetworkNames>,
    /// Since when it may be out of date; `None` when it is not.
    pub stale_since: Option<UnixSeconds>,
}

/// The names of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkNames {
    /// Its id in the cluster.
    pub id: LogicalNetworkId,
    /// Its name in Docker.
    pub name: String,
    /// Its names, in alphabetical order.
    pub names: Vec<NameEntry>,
}

/// A name and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameEntry {
    /// The name, in lower case.
    pub name: String,
    /// Who has it.
    pub holders: Vec<NameHolder>,
}

/// Where a name comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameKind {
    /// The container's own name.
    Container,
    /// The container's id, or its first twelve digits.
    Id,
    /// The Compose service's name.
    Service,
    /// A network alias.
    Alias,
}

/// A container that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameHolder {
    /// The container's id.
    pub container: String,
    /// The container's name.
    pub name: String,
    /// Its host.
    pub host: HostName,
    /// Where the name comes from.
    pub kind: NameKind,
    /// Its addresses on the network.
    pub addresses: Vec<IpAddr>,
    /// Whether it is handed out now.
    pub given: bool,
    /// Why, or why not, in a few words: `healthy`, `unhealthy`, `host web-3 is not alive`.
    pub reason: String,
}

/// To `drover-names`: what a container would be told, and why. Nothing is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The name that is asked for; an address for its names.
    pub name: String,
    /// What is asked for: `A`, `AAAA`, `SRV`, `PTR`; `None` for `A` and `AAAA`, or `PTR` if the name is an
    /// address.
    pub kind: Option<String>,
    /// As a container on this network, by its name or id, would ask.
    pub network: Option<String>,
    /// As this container, by its name, id or the beginning of its id, would ask; of any host.
    pub from: Option<String>,
}
method!(Lookup, "/Drover.Lookup", Explanation);

/// What a container would be told, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The name as it was looked for: lower case, no dot at its end.
    pub name: String,
    /// The name of the asker; `None` when none was given.
    pub asker: Option<String>,
    /// The networks that were looked at, by name, in order.
    pub networks: Vec<String>,
    /// The network that has the name; `None` when none has.
    pub network: Option<String>,
    /// What the asker would be told.
    pub outcome: LookupOutcome,
    /// Why, a sentence.
    pub reason: String,
    /// The records, in an order that the asker may see; every answer is shuffled anew.
    pub records: Vec<LookupRecord>,
    /// Everybody who has the name, handed out or not.
    pub holders: Vec<NameHolder>,
    /// Since when this may be out of date; `None` when it is not.
    pub stale_since: Option<UnixSeconds>,
}

/// What an asker would be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LookupOutcome {
    /// Records.
    Answered,
    /// That the name is there and has no such records.
    NoData,
    /// That there is no such name.
    NoSuchName,
    /// What Docker's resolver says.
    PassedOn,
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupRecord {
    /// `A`, `AAAA`, `PTR` or `SRV`.
    pub kind: String,
    /// What it says, as zone files write it.
    pub data: String,
    /// How long it may be kept, seconds.
    pub ttl: u32,
}
