//! The record of a key: what of it is signed, and whether it is to be believed.

use std::ops::RangeInclusive;

use drover_control_api::fabric::PeerKey;
use drover_control_api::record::KeyRecord;
use drover_model::HostName;
use drover_pki::{Distrust, Signed, Trust};
use drover_store::Entry;

use crate::membership::Signer;

/// What the signed text begins with.
const DOMAIN: &str = "drover host key v1";
/// A record is about 1,500 bytes; more is not even parsed.
const MOST_BYTES: usize = 16 << 10;
/// The form of the record.
const VERSION: u32 = 1;
/// How many lanes there can be.
const LANES: RangeInclusive<u8> = 1..=8;

/// Why a key is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the cluster has no such host")]
    NoHost,
    #[error("its record has {0} bytes")]
    TooLarge(usize),
    #[error("its record cannot be read")]
    Unreadable,
    #[error("its record has the form {0}, of another version of Drover")]
    Version(u32),
    #[error("its record is of host `{0}`")]
    Misplaced(HostName),
    #[error("it is of an earlier membership of that host")]
    Member,
    #[error("its generation, lanes or ports are out of range")]
    Range,
    #[error("{0}")]
    Distrusted(#[from] Distrust),
    #[error(
        "its generation {found} was published before, and {highest} since; the newer one stays in use"
    )]
    WentBack { found: u64, highest: u64 },
    #[error("its generation {0} was published before with another key, which stays in use")]
    Reused(u64),
}

impl Fault {
    /// What to do about it.
    pub(crate) fn remedy(&self, host: &str) -> String {
        match self {
            Self::NoHost => {
                format!("nobody uses it; delete `/drover/keys/{host}` from etcd if it stays")
            }
            Self::Version(_) => "bring every host to the same version of Drover".to_owned(),
            Self::Member | Self::Distrusted(Distrust::Member) => {
                format!("start Drover on `{host}`: it publishes a key of its present membership")
            }
            Self::Distrusted(Distrust::NotYetValid { .. }) => {
                format!("set the clocks of `{host}` and of this host by NTP")
            }
            Self::Distrusted(Distrust::Expired { .. }) => format!(
                "start Drover on `{host}` and run `drover doctor` there: its certificate was not renewed"
            ),
            _ => format!(
                "`{host}` replaces it while Drover runs there; if it stays or comes back, somebody who can \
                 write to the cluster's store makes up keys: see which hosts and programs reach etcd, and \
                 remove what is not yours"
            ),
        }
    }
}

/// What a look at a record has come to, and while which times that stays so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) key: Result<PeerKey, Fault>,
    pub(super) holds: RangeInclusive<u64>,
}

/// Where a host's key is.
pub(super) fn key(host: &HostName) -> String {
    format!("keys/{host}")
}

/// What is signed.
pub(super) fn message(cluster: &str, key: &PeerKey) -> Vec<u8> {
    let port = key.udp_port.map(u16::to_be_bytes);
    drover_pki::message(
        DOMAIN,
        &[
            cluster.as_bytes(),
            key.host.as_str().as_bytes(),
            key.member.as_bytes(),
            &key.generation.to_be_bytes(),
            &key.public,
            &key.created_at.to_be_bytes(),
            &[key.lanes],
            port.as_ref().map_or(&[], <[u8; 2]>::as_slice),
        ],
    )
}

/// Whether lanes and ports can be.
pub(super) fn is_in_range(key: &PeerKey) -> bool {
    let further = u16::from(key.lanes.saturating_sub(1));
    let last = key.udp_port.map(|first| first.checked_add(further));
    key.generation > 0
        && LANES.contains(&key.lanes)
        && last != Some(None)
        && key.udp_port != Some(0)
}

/// The record of a key of this host.
pub(super) fn sign(
    signer: &Signer,
    cluster: &str,
    key: &PeerKey,
) -> Result<KeyRecord, drover_pki::Error> {
    Ok(KeyRecord {
        version: VERSION,
        host: key.host.clone(),
        member: key.member.clone(),
        generation: key.generation,
        public: key.public,
        created_at: key.created_at,
        lanes: key.lanes,
        udp_port: key.udp_port,
        certificate: signer.certificate.clone(),
        signature: signer.key.sign(&message(cluster, key))?,
    })
}

/// Reads the record of a host's key; `member` is the host's present one.
pub(super) fn read(entry: &Entry, host: &HostName, member: &str) -> Result<KeyRecord, Fault> {
    if entry.value.len() > MOST_BYTES {
        return Err(Fault::TooLarge(entry.value.len()));
    }
    let record: KeyRecord = entry.decode().map_err(|_quotes| Fault::Unreadable)?;
    if record.version != VERSION {
        return Err(Fault::Version(record.version));
    }
    if &record.host != host {
        return Err(Fault::Misplaced(record.host));
    }
    if record.member != member {
        return Err(Fault::Member);
    }
    if !is_in_range(&record.clone().into()) {
        return Err(Fault::Range);
    }
    Ok(record)
}

/// Whether a record that was [`read`] is signed by its host.
pub(super) fn check(trust: &Trust, cluster: &str, record: KeyRecord, now: u64) -> Verdict {
    let (certificate, signature) = (record.certificate.clone(), record.signature.clone());
    let key = PeerKey::from(record);
    let checked = trust.verify(
        &Signed {
            certificate: &certificate,
            name: key.host.as_str(),
            member: &key.member,
            message: &message(cluster, &key),
            signature: &signature,
        },
        now,
    );
    let holds = match &checked {
        Ok(valid) => valid.clone(),
        Err(Distrust::NotYetValid { from }) => 0..=from.saturating_sub(1),
        Err(Distrust::Expired { at }) => at.saturating_add(1)..=u64::MAX,
        Err(_) => 0..=u64::MAX,
    };
    Verdict {
        key: checked.map(|_valid| key).map_err(Fault::from),
        holds,
    }
}
