//! What a joining host and the first host say to each other: JSON over HTTP/1.1 over TLS 1.3.
//!
//! | path | who may ask |
//! |---|---|
//! | `POST /v1/join` | who has a token; its certificate is not asked for |
//! | `POST /v1/renew` | a member, by its certificate |
//! | `POST /v1/withdraw` | a member, by its certificate |
//!
//! An answer is `200`, or the status of a [`drover_control_api::Failure`] and its JSON.

use std::collections::BTreeSet;
use std::net::IpAddr;

use drover_control_api::record::UnixSeconds;
use drover_model::{HostIndex, HostName, Mtu};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::home::EtcdKind;

pub(super) const JOIN: &str = "/v1/join";
pub(super) const RENEW: &str = "/v1/renew";
pub(super) const WITHDRAW: &str = "/v1/withdraw";

/// A host asks to be let in. It has no `Debug`, since the secret must not reach a log.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct JoinRequest {
    /// The cluster of its token.
    pub(super) cluster: String,
    /// The secret of its token.
    pub(super) secret: String,
    /// Its name.
    pub(super) host: HostName,
    /// The member id it has made for itself: the same when it asks again because it had no answer.
    pub(super) member: String,
    /// A signing request for its key, PEM.
    pub(super) request: String,
    /// Its clock.
    pub(super) clock: UnixSeconds,
    /// Where other hosts reach it.
    pub(super) advertise: IpAddr,
    /// The prefix of the link of that address.
    pub(super) link: Option<IpNet>,
    /// The MTU of that link.
    pub(super) underlay_mtu: Mtu,
    /// The prefixes it has routes to.
    pub(super) prefixes: BTreeSet<IpNet>,
    /// Its version of Drover.
    pub(super) software: String,
}

/// The host is in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct JoinAnswer {
    /// Its certificate, PEM.
    pub(super) certificate: String,
    /// The authority's certificate, PEM.
    pub(super) authority: String,
    /// Its index.
    pub(super) index: HostIndex,
    /// Whose etcd the cluster is on.
    pub(super) etcd: EtcdKind,
    /// The client URLs of etcd.
    pub(super) endpoints: Vec<String>,
    /// The host that answers.
    pub(super) first: HostName,
    /// All hosts, the new one included.
    pub(super) hosts: Vec<HostName>,
}

/// A member asks for its next certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RenewRequest {
    /// Its member id.
    pub(super) member: String,
    /// A signing request for its next key, PEM.
    pub(super) request: String,
}

/// The next certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RenewAnswer {
    /// The certificate, PEM.
    pub(super) certificate: String,
}

/// A host that was let in could not finish: its join is undone, and its token good again.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct WithdrawRequest {
    /// Its member id.
    pub(super) member: String,
    /// The secret of the token it joined with.
    pub(super) secret: String,
}
