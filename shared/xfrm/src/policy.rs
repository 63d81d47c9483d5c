//! A policy: which packets of an interface must be encrypted, and by which state.

use std::net::IpAddr;

use drover_model::Family;
use netlink_packet_core::{DecodeError, NlasIterator, parse_u32};
use netlink_packet_xfrm::policy::{DelGetMessage, ModifyMessage};
use netlink_packet_xfrm::{
    Address, Id, Mark, Selector, UserPolicyId, UserPolicyInfo, UserTemplate,
    XFRM_USER_POLICY_INFO_LEN, XFRM_USER_TEMPLATE_LEN, XfrmAttrs, constants,
};

use crate::message::Request;
use crate::value::{address, body, family_number, family_of};

/// The bits of a packet's mark that a policy looks at.
const MARK_MASK: u32 = 0xf;

/// Which packets a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyDirection {
    /// Those that come in by the interface, and then come to this host or are passed on.
    In,
    /// Those that go out by the interface.
    Out,
}

impl PolicyDirection {
    const fn number(self) -> u8 {
        match self {
            Self::In => constants::XFRM_POLICY_IN,
            Self::Out => constants::XFRM_POLICY_OUT,
        }
    }

    const fn of(number: u8) -> Option<Self> {
        match number {
            constants::XFRM_POLICY_IN => Some(Self::In),
            constants::XFRM_POLICY_OUT => Some(Self::Out),
            _ => None,
        }
    }
}

/// What there is one policy of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId {
    /// The number of the interface; the kernel refuses 0.
    pub if_id: u32,
    /// Which packets it is for.
    pub direction: PolicyDirection,
    /// The family of those packets, not of the tunnel.
    pub family: Family,
    /// Only packets with this number in the lowest four bits of their mark; without, all.
    pub mark: Option<u32>,
}

/// A policy: all packets with its [`PolicyId`] must go through a tunnel, encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicySpec {
    /// What it is the policy of.
    pub id: PolicyId,
    /// The end of the tunnel that sends; of a policy for what comes in the unspecified address means any.
    pub source: IpAddr,
    /// The end of the tunnel that receives.
    pub destination: IpAddr,
    /// The state alone that is good; without, any of the tunnel.
    pub spi: Option<u32>,
    /// The number that its states have.
    pub request: u32,
}

impl PolicyId {
    /// Any packet of the family.
    fn selector(&self) -> Selector {
        Selector {
            family: family_number(self.family),
            ..Selector::default()
        }
    }

    fn attributes(&self) -> Vec<XfrmAttrs> {
        let mark = self.mark.map(|value| {
            XfrmAttrs::Mark(Mark {
                value,
                mask: MARK_MASK,
            })
        });
        let interface = XfrmAttrs::IfId(self.if_id);
        [interface].into_iter().chain(mark).collect()
    }

    /// The request that removes the policy.
    pub(crate) fn delete(&self) -> Request {
        let message = DelGetMessage {
            user_policy_id: UserPolicyId {
                selector: self.selector(),
                index: 0,
                direction: self.direction.number(),
            },
            nlas: self.attributes(),
        };
        Request {
            kind: constants::XFRM_MSG_DELPOLICY,
            body: body(&message),
        }
    }
}

/// The request that lists all policies.
pub(crate) fn list() -> Request {
    Request {
        kind: constants::XFRM_MSG_GETPOLICY,
        body: body(&DelGetMessage::default()),
    }
}

impl PolicySpec {
    /// The request that adds it, or puts it in the place of the one with the same id.
    pub(crate) fn set(&self) -> Request {
        let template = UserTemplate {
            id: Id {
                daddr: Address::from_ip(&self.destination),
                spi: self.spi.unwrap_or(0),
                proto: constants::IPPROTO_ESP,
            },
            family: family_number(Family::of(self.destination)),
            saddr: Address::from_ip(&self.source),
            reqid: self.request,
            mode: constants::XFRM_MODE_TUNNEL,
            ..UserTemplate::default()
        };
        let mut nlas = self.id.attributes();
        nlas.push(XfrmAttrs::Template(vec![template]));
        let message = ModifyMessage {
            user_policy_info: UserPolicyInfo {
                selector: self.id.selector(),
                direction: self.id.direction.number(),
                action: constants::XFRM_POLICY_ALLOW,
                ..UserPolicyInfo::default()
            },
            nlas,
        };
        Request {
            kind: constants::XFRM_MSG_UPDPOLICY,
            body: body(&message),
        }
    }

    /// Reads what the kernel says of a policy; nothing for one that none of ours can be like.
    pub(crate) fn read(payload: &[u8]) -> Result<Option<Self>, DecodeError> {
        let info = UserPolicyInfo::parse(payload)?;
        let (mut if_id, mut mark, mut template) = (0, Mark::default(), None);
        let attributes = payload.get(XFRM_USER_POLICY_INFO_LEN..).unwrap_or_default();
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            match attribute.kind() {
                constants::XFRMA_IF_ID => if_id = parse_u32(attribute.value())?,
                constants::XFRMA_MARK => mark = Mark::parse(attribute.value())?,
                constants::XFRMA_TMPL if attribute.value().len() == XFRM_USER_TEMPLATE_LEN => {
                    template = Some(UserTemplate::parse(attribute.value())?);
                }
                constants::XFRMA_TMPL => return Ok(None),
                _ => {}
            }
        }
        Ok(template.and_then(|template| Self::of(&info, if_id, mark, &template)))
    }

    fn of(info: &UserPolicyInfo, if_id: u32, mark: Mark, template: &UserTemplate) -> Option<Self> {
        let id = PolicyId {
            if_id,
            direction: PolicyDirection::of(info.direction)?,
            family: family_of(info.selector.family)?,
            mark: match mark {
                Mark { value: 0, mask: 0 } => None,
                Mark { value, mask } if mask == MARK_MASK => Some(value),
                _ => return None,
            },
        };
        let required = info.action == constants::XFRM_POLICY_ALLOW
            && info.selector == id.selector()
            && template.id.proto == constants::IPPROTO_ESP
            && template.mode == constants::XFRM_MODE_TUNNEL
            && template.optional == 0;
        let family = family_of(template.family)?;
        required.then(|| Self {
            id,
            source: address(family, &template.saddr),
            destination: address(family, &template.id.daddr),
            spi: Some(template.id.spi).filter(|spi| *spi != 0),
            request: template.reqid,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn specs() -> impl Strategy<Value = PolicySpec> {
        let directions = prop_oneof![Just(PolicyDirection::In), Just(PolicyDirection::Out)];
        let families = prop_oneof![Just(Family::V4), Just(Family::V6)];
        let marks = proptest::option::of(0..=MARK_MASK);
        let id = (any::<u32>(), directions, families, marks);
        let ends = prop_oneof![
            any::<[[u8; 4]; 2]>().prop_map(|ends| ends.map(IpAddr::from)),
            any::<[[u8; 16]; 2]>().prop_map(|ends| ends.map(IpAddr::from)),
        ];
        (id, ends, proptest::option::of(1..=u32::MAX), any::<u32>()).prop_map(
            |((if_id, direction, family, mark), [source, destination], spi, request)| PolicySpec {
                id: PolicyId {
                    if_id,
                    direction,
                    family,
                    mark,
                },
                source,
                destination,
                spi,
                request,
            },
        )
    }

    #[test]
    fn a_policy_that_lets_clear_packets_through_is_not_ours() {
        let template = UserTemplate {
            id: Id {
                proto: constants::IPPROTO_ESP,
                ..Id::default()
            },
            family: constants::AF_INET,
            mode: constants::XFRM_MODE_TUNNEL,
            ..UserTemplate::default()
        };
        let mut info = UserPolicyInfo::default();
        info.selector.family = constants::AF_INET;
        let mark = Mark::default();
        assert!(PolicySpec::of(&info, 1, mark, &template).is_some());
        let optional = UserTemplate {
            optional: 1,
            ..template
        };
        assert_eq!(PolicySpec::of(&info, 1, mark, &optional), None);
        let narrow = UserPolicyInfo {
            selector: Selector {
                prefixlen_d: 24,
                ..info.selector
            },
            ..info
        };
        assert_eq!(PolicySpec::of(&narrow, 1, mark, &template), None);
        let wide_mark = Mark {
            value: 3,
            mask: 0xff,
        };
        assert_eq!(PolicySpec::of(&info, 1, wide_mark, &template), None);
        let forward = UserPolicyInfo {
            direction: constants::XFRM_POLICY_FWD,
            ..info
        };
        assert_eq!(PolicySpec::of(&forward, 1, mark, &template), None);
    }

    proptest! {
        #[test]
        fn what_is_set_is_read_back(spec in specs()) {
            prop_assert_eq!(PolicySpec::read(&spec.set().body).unwrap(), Some(spec));
        }

        #[test]
        fn nothing_that_is_read_is_a_panic(payload in proptest::collection::vec(any::<u8>(), 0..400)) {
            drop(PolicySpec::read(&payload));
        }
    }
}
