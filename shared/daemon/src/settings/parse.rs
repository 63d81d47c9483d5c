//! From the text of a setting to its value.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use drover_model::HostName;
use ipnet::IpNet;

use super::{BackendChoice, EncapsulationChoice, LogFormat};

pub(super) fn path(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute())
}

pub(super) fn docker_host(text: &str) -> Option<String> {
    let unix = text
        .strip_prefix("unix://")
        .is_some_and(|path| path.starts_with('/'));
    let tcp = text.strip_prefix("tcp://").is_some_and(|rest| {
        let authority = rest.trim_end_matches('/');
        let split = authority.rsplit_once(':');
        split.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    });
    (unix || tcp).then(|| text.to_owned())
}

/// An empty text is no name; the settings of a child are complete, absent ones included.
pub(super) fn host_name(text: &str) -> Option<Option<HostName>> {
    text.parse().ok().map(Some)
}

pub(super) fn advertise(text: &str) -> Option<Option<IpAddr>> {
    let address: IpAddr = text.parse().ok()?;
    (!address.is_unspecified() && !address.is_multicast()).then_some(Some(address))
}

pub(super) fn ranges_v4(text: &str) -> Option<Vec<IpNet>> {
    ranges(text).filter(|ranges| ranges.iter().all(|range| range.addr().is_ipv4()))
}

pub(super) fn ranges_v6(text: &str) -> Option<Vec<IpNet>> {
    ranges(text).filter(|ranges| ranges.iter().all(|range| range.addr().is_ipv6()))
}

fn ranges(text: &str) -> Option<Vec<IpNet>> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let ranges: Option<Vec<IpNet>> = parts.map(|part| part.parse().ok()).collect();
    ranges.filter(|ranges| ranges.iter().all(|range| range.trunc() == *range))
}

/// A number within bounds.
pub(super) fn number(text: &str, least: u8, most: u8) -> Option<u8> {
    text.parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
}

pub(super) fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

/// The first of eight ports, or none at all.
pub(super) fn port_range(text: &str) -> Option<Option<u16>> {
    if text == "none" {
        return Some(None);
    }
    port(text).filter(|first| *first <= u16::MAX - 7).map(Some)
}

pub(super) fn port_range_text(first: Option<u16>) -> String {
    first.map_or_else(|| "none".to_owned(), |first| first.to_string())
}

/// A length of time, whole seconds, such as `90s` or `30days`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let length = humantime::parse_duration(text).ok()?;
    (length.subsec_nanos() == 0).then_some(length)
}

pub(super) fn encapsulation(text: &str) -> Option<EncapsulationChoice> {
    match text {
        "auto" => Some(EncapsulationChoice::Auto),
        "direct" => Some(EncapsulationChoice::Direct),
        "vxlan" => Some(EncapsulationChoice::Vxlan),
        _ => None,
    }
}

pub(super) const fn encapsulation_text(choice: EncapsulationChoice) -> &'static str {
    match choice {
        EncapsulationChoice::Auto => "auto",
        EncapsulationChoice::Direct => "direct",
        EncapsulationChoice::Vxlan => "vxlan",
    }
}

pub(super) fn backend(text: &str) -> Option<BackendChoice> {
    match text {
        "auto" => Some(BackendChoice::Auto),
        "btrfs" => Some(BackendChoice::Btrfs),
        "thin" => Some(BackendChoice::Thin),
        "directory" => Some(BackendChoice::Directory),
        _ => None,
    }
}

pub(super) const fn backend_text(choice: BackendChoice) -> &'static str {
    match choice {
        BackendChoice::Auto => "auto",
        BackendChoice::Btrfs => "btrfs",
        BackendChoice::Thin => "thin",
        BackendChoice::Directory => "directory",
    }
}

/// The name of a volume group or a logical volume (lvm(8)).
pub(super) fn lvm_name(text: &str) -> Option<Option<String>> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"+_.-".contains(&byte);
    let is_name = !text.is_empty()
        && text.len() <= 100
        && text.bytes().all(inner)
        && !text.starts_with(['-', '.']);
    is_name.then(|| Some(text.to_owned()))
}

pub(super) fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "human" => Some(LogFormat::Human),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

pub(super) const fn log_format_text(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Human => "human",
        LogFormat::Json => "json",
    }
}

pub(super) fn log_level(text: &str) -> Option<String> {
    let usable = !text.is_empty() && text.parse::<tracing_subscriber::filter::Targets>().is_ok();
    usable.then(|| text.to_owned())
}
