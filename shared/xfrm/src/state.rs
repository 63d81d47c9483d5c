//! A state: an association with its key, as the kernel has it.

use std::net::IpAddr;

use drover_ipsec::KeyMaterial;
use drover_model::Family;
use netlink_packet_core::{DecodeError, NlasIterator, parse_u32};
use netlink_packet_xfrm::state::{DelGetMessage, GetDumpMessage, ModifyMessage};
use netlink_packet_xfrm::{
    Address, AlgAead, EncapTmpl, Id, ReplayEsn, UserSaId, UserSaInfo, XFRM_ALG_AEAD_NAME_LEN,
    XFRM_USER_SA_INFO_LEN, XfrmAttrs, constants,
};
use zeroize::Zeroize;

use crate::message::Request;
use crate::value::{address, body, family_number, family_of};

/// AES in Galois/counter mode with a salt of four bytes at the end of the key (RFC 4106).
const ALGORITHM: &[u8] = b"rfc4106(gcm(aes))";
/// The key and the salt.
const KEY_BITS: u32 = 288;
const _: () = assert!(KeyMaterial::LENGTH * 8 == 288, "a key has these bits");
/// The bits of the value that proves a packet genuine.
const PROOF_BITS: u32 = 128;
/// Extended sequence numbers, and packets of both families by one state.
const FLAGS: u8 = constants::XFRM_STATE_ESN | constants::XFRM_STATE_AF_UNSPEC;

/// A state to be added: ESP in tunnel mode with AES-256-GCM and extended sequence numbers, for packets of both families.
#[derive(Debug, Clone, Copy)]
pub struct StateSpec<'a> {
    /// Its index, by which the receiver finds it.
    pub spi: u32,
    /// The end of the tunnel that sends.
    pub source: IpAddr,
    /// The end of the tunnel that receives.
    pub destination: IpAddr,
    /// The number of the interface that its packets go through; the kernel refuses 0.
    pub if_id: u32,
    /// The number that a policy asks for it by.
    pub request: u32,
    /// The ports, source and destination, of the UDP that its packets travel in; without, they are plain ESP.
    pub udp: Option<(u16, u16)>,
    /// Its key.
    pub key: &'a KeyMaterial,
    /// How many packets may overtake another one, 1 to 4096.
    pub window: u32,
}

/// What kind of state was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// One as [`StateSpec`] describes it.
    Ours,
    /// One without a key, which the kernel has made for a packet that found none: it asks programs that listen for
    /// such to add it. It goes by itself, and until then is in the way of one with its SPI: remove it.
    Larval,
    /// Another one.
    Other,
}

/// A state that the kernel has. Its key is not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenState {
    /// Its index.
    pub spi: u32,
    /// The end of the tunnel that sends.
    pub source: IpAddr,
    /// The end of the tunnel that receives.
    pub destination: IpAddr,
    /// The number of its interface, 0 for none.
    pub if_id: u32,
    /// The number that a policy asks for it by.
    pub request: u32,
    /// The ports, source and destination, of the UDP that its packets travel in.
    pub udp: Option<(u16, u16)>,
    /// What kind it is.
    pub shape: Shape,
    /// How many packets it has carried.
    pub packets: u64,
    /// How many bytes it has carried.
    pub bytes: u64,
    /// Packets that were dropped since they had come before.
    pub replayed: u64,
    /// Packets that were dropped since too many had overtaken them.
    pub late: u64,
    /// Packets that were dropped since they were not genuine.
    pub forged: u64,
}

impl StateSpec<'_> {
    /// The request that adds it.
    pub(crate) fn add(&self) -> Request {
        let mut message = ModifyMessage {
            user_sa_info: UserSaInfo {
                id: Id {
                    daddr: Address::from_ip(&self.destination),
                    spi: self.spi,
                    proto: constants::IPPROTO_ESP,
                },
                saddr: Address::from_ip(&self.source),
                reqid: self.request,
                family: family_number(Family::of(self.destination)),
                mode: constants::XFRM_MODE_TUNNEL,
                flags: FLAGS,
                ..UserSaInfo::default()
            },
            nlas: vec![
                XfrmAttrs::EncryptionAlgAead(AlgAead {
                    alg_name: algorithm(),
                    alg_key_len: KEY_BITS,
                    alg_icv_len: PROOF_BITS,
                    alg_key: self.key.expose().to_vec(),
                }),
                XfrmAttrs::ReplayStateEsn(self.replay()),
                XfrmAttrs::IfId(self.if_id),
            ],
        };
        if let Some((source, destination)) = self.udp {
            let template = EncapTmpl {
                encap_type: constants::UDP_ENCAP_ESPINUDP,
                encap_sport: source,
                encap_dport: destination,
                encap_oa: Address::default(),
            };
            message
                .nlas
                .push(XfrmAttrs::EncapsulationTemplate(template));
        }
        let request = Request {
            kind: constants::XFRM_MSG_NEWSA,
            body: body(&message),
        };
        for attribute in &mut message.nlas {
            if let XfrmAttrs::EncryptionAlgAead(algorithm) = attribute {
                algorithm.alg_key.zeroize();
            }
        }
        request
    }

    /// No packet seen yet, with room to remember as many as the window has.
    fn replay(&self) -> ReplayEsn {
        let words = self.window.div_ceil(u32::BITS);
        ReplayEsn {
            bmp_len: words,
            replay_window: self.window,
            bmp: (0..words).map(|_word| 0).collect(),
            ..ReplayEsn::default()
        }
    }
}

fn algorithm() -> [u8; XFRM_ALG_AEAD_NAME_LEN] {
    let mut name = [0; XFRM_ALG_AEAD_NAME_LEN];
    for (to, from) in name.iter_mut().zip(ALGORITHM) {
        *to = *from;
    }
    name
}

/// The request that removes a state.
pub(crate) fn delete(spi: u32, destination: IpAddr) -> Request {
    let message = DelGetMessage {
        user_sa_id: UserSaId {
            daddr: Address::from_ip(&destination),
            spi,
            family: family_number(Family::of(destination)),
            proto: constants::IPPROTO_ESP,
        },
        nlas: Vec::new(),
    };
    Request {
        kind: constants::XFRM_MSG_DELSA,
        body: body(&message),
    }
}

/// The request that lists all states.
pub(crate) fn list() -> Request {
    Request {
        kind: constants::XFRM_MSG_GETSA,
        body: body(&GetDumpMessage::default()),
    }
}

impl SeenState {
    /// Reads what the kernel says of a state. Attributes that hold a key are passed over.
    pub(crate) fn read(payload: &[u8]) -> Result<Self, DecodeError> {
        let info = UserSaInfo::parse(payload)?;
        let family =
            family_of(info.family).ok_or_else(|| DecodeError::from("no family of addresses"))?;
        let (mut if_id, mut udp, mut algorithm) = (0, None, Algorithm::None);
        let attributes = payload.get(XFRM_USER_SA_INFO_LEN..).unwrap_or_default();
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            match attribute.kind() {
                constants::XFRMA_IF_ID => if_id = parse_u32(attribute.value())?,
                constants::XFRMA_ENCAP => {
                    let template = EncapTmpl::parse(attribute.value())?;
                    udp = Some((template.encap_sport, template.encap_dport));
                }
                constants::XFRMA_ALG_AEAD => algorithm = Algorithm::of(attribute.value()),
                constants::XFRMA_ALG_AUTH
                | constants::XFRMA_ALG_AUTH_TRUNC
                | constants::XFRMA_ALG_CRYPT
                | constants::XFRMA_ALG_COMP => algorithm = Algorithm::Other,
                _ => {}
            }
        }
        Ok(Self {
            spi: info.id.spi,
            source: address(family, &info.saddr),
            destination: address(family, &info.id.daddr),
            if_id,
            request: info.reqid,
            udp,
            shape: shape(&info, algorithm),
            packets: info.lifetime_cur.packets,
            bytes: info.lifetime_cur.bytes,
            replayed: info.stats.replay.into(),
            late: info.stats.replay_window.into(),
            forged: info.stats.integrity_failed.into(),
        })
    }
}

#[derive(Clone, Copy)]
enum Algorithm {
    None,
    Ours,
    Other,
}

impl Algorithm {
    /// The name of an algorithm, which comes before its key.
    fn of(value: &[u8]) -> Self {
        let name = value.get(..XFRM_ALG_AEAD_NAME_LEN).unwrap_or_default();
        if name.split(|byte| *byte == 0).next() == Some(ALGORITHM) {
            Self::Ours
        } else {
            Self::Other
        }
    }
}

fn shape(info: &UserSaInfo, algorithm: Algorithm) -> Shape {
    let tunnel = info.id.proto == constants::IPPROTO_ESP
        && info.mode == constants::XFRM_MODE_TUNNEL
        && info.flags & FLAGS == FLAGS;
    match algorithm {
        Algorithm::Ours if tunnel => Shape::Ours,
        Algorithm::None => Shape::Larval,
        Algorithm::Ours | Algorithm::Other => Shape::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;

    fn spec(key: &KeyMaterial) -> StateSpec<'_> {
        StateSpec {
            spi: 0x6001_0203,
            source: "192.0.2.1".parse().unwrap(),
            destination: "192.0.2.2".parse().unwrap(),
            if_id: 0x6472_0001,
            request: 7,
            udp: Some((4500, 4501)),
            key,
            window: 4096,
        }
    }

    #[test]
    fn what_is_added_is_read_back_without_its_key() {
        let key = KeyMaterial::new(Zeroizing::new([0xab; KeyMaterial::LENGTH]));
        for (source, destination) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let spec = StateSpec {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                ..spec(&key)
            };
            let request = spec.add();
            assert!(
                request
                    .body
                    .windows(KeyMaterial::LENGTH)
                    .any(|part| part == key.expose())
            );
            let seen = SeenState::read(&request.body).unwrap();
            assert_eq!(
                (seen.spi, seen.source, seen.destination, seen.if_id),
                (spec.spi, spec.source, spec.destination, spec.if_id)
            );
            assert_eq!((seen.udp, seen.shape), (spec.udp, Shape::Ours));
            assert!(!format!("{seen:?} {spec:?}").contains("171"));
        }
    }

    #[test]
    fn the_window_has_a_bit_for_each_packet() {
        let key = KeyMaterial::new(Zeroizing::new([1; KeyMaterial::LENGTH]));
        for (window, words) in [(1, 1), (32, 1), (33, 2), (4096, 128)] {
            let replay = StateSpec {
                window,
                ..spec(&key)
            }
            .replay();
            assert_eq!((replay.bmp_len, replay.bmp.len()), (words, words as usize));
            assert_eq!(replay.replay_window, window);
        }
    }

    #[test]
    fn a_state_without_an_algorithm_is_larval() {
        let info = UserSaInfo {
            family: constants::AF_INET,
            ..UserSaInfo::default()
        };
        let seen = SeenState::read(&body(&info)).unwrap();
        assert_eq!((seen.shape, seen.if_id), (Shape::Larval, 0));
    }

    #[test]
    fn another_algorithm_is_not_ours() {
        for (name, proto) in [
            ("rfc4106(gcm(aes)", constants::IPPROTO_ESP),
            ("rfc4106(gcm(aes))x", constants::IPPROTO_ESP),
            ("rfc4106(gcm(aes))", 51),
        ] {
            let mut info = UserSaInfo::default();
            info.id.proto = proto;
            info.mode = constants::XFRM_MODE_TUNNEL;
            info.flags = FLAGS;
            let algorithm = Algorithm::of(name.as_bytes().to_vec().as_mut_slice());
            let mut padded = name.as_bytes().to_vec();
            padded.resize(XFRM_ALG_AEAD_NAME_LEN + 8, 0);
            assert!(matches!(algorithm, Algorithm::Other), "{name} is short");
            assert_eq!(shape(&info, Algorithm::of(&padded)), Shape::Other, "{name}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_is_a_panic(payload in proptest::collection::vec(any::<u8>(), 0..400)) {
            drop(SeenState::read(&payload));
        }
    }
}
