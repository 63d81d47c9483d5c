//! Filters of incoming packets as rtnetlink messages.

use std::os::fd::{AsRawFd, OwnedFd};

use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
    TcOption,
};

/// What our filters' names begin with.
pub(super) const PREFIX: &str = "drover_esp_";
/// Our filter's number among those of one priority: "drvr".
const HANDLE: u32 = 0x6472_7672;
/// `ETH_P_ALL`: filters of one priority must agree on this.
const EVERY_PROTOCOL: u16 = 3;

const INGRESS: TcHandle = TcHandle {
    major: TcHandle::CLSACT.major,
    minor: TcHandle::MIN_INGRESS,
};

/// A filter of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) name: String,
    pub(super) priority: u16,
    handle: TcHandle,
    info: u32,
}

/// The message that gives a device a place for filters.
pub(super) fn queue(index: i32) -> TcMessage {
    let mut message = TcMessage::with_index(index);
    message.header.handle = TcHandle {
        major: TcHandle::CLSACT.major,
        minor: 0,
    };
    message.header.parent = TcHandle::CLSACT;
    message
        .attributes
        .push(TcAttribute::Kind("clsact".to_owned()));
    message
}

fn message(index: i32, handle: TcHandle, info: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index);
    message.header = TcHeader {
        index,
        handle,
        parent: INGRESS,
        info,
        ..TcHeader::default()
    };
    message
}

/// The message that asks for all filters of what comes in by a device.
pub(super) fn list(index: i32) -> TcMessage {
    message(index, TcHandle::UNSPEC, 0)
}

/// The message that adds our filter at a priority, or replaces the one that is there.
pub(super) fn set(index: i32, priority: u16, name: &str, program: &OwnedFd) -> TcMessage {
    let info = (u32::from(priority) << 16) | u32::from(EVERY_PROTOCOL.to_be());
    let mut message = message(index, TcHandle::from(HANDLE), info);
    let program = program.as_raw_fd().unsigned_abs();
    message.attributes = vec![
        TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
        TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]),
    ];
    message
}

/// The message that removes a filter.
pub(super) fn remove(index: i32, filter: &Filter) -> TcMessage {
    let mut message = message(index, filter.handle, filter.info);
    let kind = TcAttribute::Kind(TcFilterBpf::KIND.to_owned());
    message.attributes.push(kind);
    message
}

/// The filter of a listing, if it is one of ours.
pub(super) fn read(message: &TcMessage) -> Option<Filter> {
    let name = message.attributes.iter().find_map(|attribute| {
        let TcAttribute::Options(options) = attribute else {
            return None;
        };
        options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name),
            _ => None,
        })
    })?;
    name.starts_with(PREFIX).then(|| Filter {
        name: name.clone(),
        priority: u16::try_from(message.header.info >> 16).unwrap_or_default(),
        handle: message.header.handle,
        info: message.header.info,
    })
}
