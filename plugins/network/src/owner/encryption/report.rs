//! What there is to say of encrypted paths.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use drover_control_api::plugin::{EncryptedPath, RefusedPackets};
use drover_kernel::{AssociationCounters, Counters, Drops};
use drover_model::{Encryption, HostName};
use drover_overlay::{IpsecPath, PathMtu, Peer, name};
use drover_plugin_host::DriverError;
use tokio::time::Instant;

use super::super::Owner;
use super::super::status::packets;
use super::mtu::ceiling;

/// A path that has not answered for so long is degraded.
const SILENT: Duration = Duration::from_secs(30);

impl Owner {
    /// What there is to say of the encrypted path to a peer.
    pub(in crate::owner) fn encrypted_path(
        &self,
        host: &HostName,
        peer: &Peer,
        devices: &BTreeMap<String, Counters>,
        associations: &[AssociationCounters],
    ) -> Option<EncryptedPath> {
        let path = peer.ipsec.as_ref()?;
        let agreed = self.encryption.exchange.as_ref()?.path(host);
        let device = name::ipsec(peer.index);
        let if_id = name::interface_id(peer.index);
        let mine: Vec<_> = associations.iter().filter(|it| it.if_id == if_id).collect();
        let counted = devices.get(&device).copied().unwrap_or_default();
        let last_answer = self.encryption.answered.get(host).map(Instant::elapsed);
        let transport = path.udp.map(|ports| {
            let last = ports
                .destination
                .saturating_add(u16::from(path.lanes.max(1)) - 1);
            format!("udp {}-{last}", ports.destination)
        });
        let now = self.encryption.now();
        let endpoint = self.encryption.ways.endpoint(host);
        Some(EncryptedPath {
            device,
            cipher: "AES-256-GCM".to_owned(),
            transport: transport.unwrap_or_else(|| "esp".to_owned()),
            endpoint: endpoint.map(|(way, _)| SocketAddr::new(way.remote, way.port)),
            learned: endpoint.is_some_and(|(_, learned)| learned),
            mtu: path.mtu.unwrap_or_else(|| ceiling(peer)),
            mtu_found: self
                .encryption
                .sizes
                .get(host)
                .is_some_and(PathMtu::is_found),
            lanes: path.lanes,
            associations: u32::try_from(mine.len()).unwrap_or(u32::MAX),
            epoch: path
                .send
                .map(|epoch| format!("{}/{}", epoch.own.get(), epoch.peer.get())),
            epoch_age: agreed.since.map(|since| now.since(since).as_secs()),
            last_answer: last_answer.map(|ago| ago.as_secs()),
            packets: packets(counted),
            refused: RefusedPackets {
                replayed: mine.iter().map(|it| it.replayed).sum(),
                forged: mine.iter().map(|it| it.forged).sum(),
            },
            degraded: degraded(path, last_answer).map(|reason| {
                if self.is_blocked(&mine) {
                    format!("{reason}, and its packets come here: a firewall of this host drops ESP (IP protocol 50)")
                } else {
                    reason
                }
            }),
        })
    }

    /// Whether packets came by an association, in UDP, and it got none of them.
    fn is_blocked(&self, associations: &[&AssociationCounters]) -> bool {
        associations.iter().any(|it| {
            let refused = it.replayed.saturating_add(it.forged);
            it.packets == 0 && refused == 0 && self.encryption.ways.has_come(it.id.spi)
        })
    }

    /// What was dropped for the sake of encryption, by cause.
    pub(in crate::owner) async fn encryption_drops(
        &self,
    ) -> Result<BTreeMap<String, u64>, DriverError> {
        let Some(kernel) = &self.kernel else {
            return Ok(BTreeMap::new());
        };
        let drops = kernel.drops().await;
        Ok(causes(&drops.map_err(|error| DriverError::chain(&error))?))
    }

    /// A sentence for each thing that keeps encrypted networks from being what they should.
    pub(in crate::owner) fn encryption_complaints(&self) -> Vec<String> {
        let mut complaints = self.encryption.refused.clone();
        complaints.extend(self.cannot_encrypt());
        complaints
    }

    /// That this host cannot encrypt and why, if it has something to encrypt.
    pub(in crate::owner) fn cannot_encrypt(&self) -> Option<String> {
        let reason = self.encryption.impossible()?;
        let mut networks = self.records.networks().values();
        let encrypted = networks.any(|it| it.options.encryption == Encryption::Ipsec);
        encrypted.then(|| {
            format!("this host cannot encrypt, so encrypted networks reach no other host: {reason}")
        })
    }
}

/// Why a path is not as it should be.
fn degraded(path: &IpsecPath, last_answer: Option<Duration>) -> Option<String> {
    if path.send.is_none() {
        return Some("no key is agreed on yet: packets are dropped".to_owned());
    }
    match last_answer {
        None => Some("it has not answered by this path yet".to_owned()),
        Some(ago) if ago > SILENT => Some(format!(
            "it has not answered by this path for {} s",
            ago.as_secs()
        )),
        Some(_) => None,
    }
}

/// Drops in an operator's words.
fn causes(drops: &Drops) -> BTreeMap<String, u64> {
    let mut causes: BTreeMap<String, u64> = BTreeMap::new();
    let mut add = |cause: &str, packets: u64| {
        if packets > 0 {
            let sum = causes.entry(cause.to_owned()).or_default();
            *sum = sum.saturating_add(packets);
        }
    };
    for (name, packets) in &drops.security {
        add(cause(name), *packets);
    }
    add("came in clear, of an encrypted network", drops.clear_in);
    add(
        "was to leave in clear, of an encrypted network",
        drops.clear_out,
    );
    add(
        "came from a host, from an address that is not its own",
        drops.foreign,
    );
    causes
}

/// A cause in the kernel's name (`linux/xfrm.h`, `Documentation/networking/xfrm_proc.rst`), in words; one that has none is
/// told by its name.
fn cause(name: &str) -> &str {
    match name {
        "XfrmInNoStates" => {
            "came by an association that is not there: of an epoch that ended, or forged"
        }
        "XfrmInStateProtoError" => "came changed or forged",
        "XfrmInStateSeqError" => "came twice, or too late to tell",
        "XfrmInTmplMismatch" | "XfrmInNoPols" | "XfrmInPolBlock" => {
            "came by an association, or in clear, as no policy allows"
        }
        "XfrmOutNoStates" | "XfrmOutPolBlock" | "XfrmOutStateExpired" => {
            "had no association to leave by: no key is agreed on"
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_in_words_and_unknown_ones_by_name() {
        let kernel = [
            ("XfrmInNoStates", 2),
            ("XfrmInNoPols", 1),
            ("XfrmInPolBlock", 3),
            ("XfrmNew", 4),
        ];
        let drops = Drops {
            security: kernel.map(|(name, count)| (name.to_owned(), count)).into(),
            clear_in: 0,
            clear_out: 5,
            foreign: 6,
        };
        let counts: Vec<_> = causes(&drops).into_values().collect();
        assert_eq!(counts, [4, 2, 4, 6, 5], "{:?}", causes(&drops));
        assert_eq!(causes(&drops).get("XfrmNew"), Some(&4));
        assert!(causes(&Drops::default()).is_empty());
    }
}
