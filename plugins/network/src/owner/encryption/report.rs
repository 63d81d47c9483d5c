//! What there is to say of encrypted paths.

use std::collections::BTreeMap;
use std::time::Duration;

use drover_control_api::plugin::{EncryptedPath, RefusedPackets};
use drover_kernel::{AssociationCounters, Counters};
use drover_model::{Encryption, HostName};
use drover_overlay::{IpsecPath, PathMtu, Peer, name};
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
        Some(EncryptedPath {
            device,
            cipher: "AES-256-GCM".to_owned(),
            transport: transport.unwrap_or_else(|| "esp".to_owned()),
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
            degraded: degraded(path, last_answer),
        })
    }

    /// A sentence for each thing that keeps encrypted networks from being what they should.
    pub(in crate::owner) fn encryption_complaints(&self) -> Vec<String> {
        let encrypted = self.records.networks().values();
        let mut encrypted = encrypted.filter(|it| it.options.encryption == Encryption::Ipsec);
        let mut complaints = self.encryption.refused.clone();
        if let (Some(reason), Some(_)) = (self.encryption.impossible(), encrypted.next()) {
            complaints.push(format!(
                "this host cannot encrypt, so encrypted networks reach no other host: {reason}"
            ));
        }
        complaints
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
