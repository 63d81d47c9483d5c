//! Settings as the texts that read back as the same values.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::{Settings, parse};

/// Every setting that has a value, as a text that reads back as the same value.
pub(super) fn texts(settings: &Settings) -> Vec<(&'static str, String)> {
    let path = |path: &Path| path.display().to_string();
    let list = |ranges: &[IpNet]| {
        ranges
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    let length = |length: Duration| format!("{}s", length.as_secs());
    let (pools, cluster) = (&settings.pools, &settings.cluster);
    let encapsulation = parse::encapsulation_text(settings.overlay.encapsulation);
    let optional = |number: Option<u8>| number.map(|number| number.to_string());
    let policies = path(&settings.authorization.policy_dir);
    let format = parse::log_format_text(settings.log.format);
    let texts = [
        ("state_dir", Some(path(&settings.state_dir))),
        ("run_dir", Some(path(&settings.run_dir))),
        ("plugin_dir", Some(path(&settings.plugin_dir))),
        ("docker_host", Some(settings.docker_host.clone())),
        (
            "host_name",
            settings.host_name.as_ref().map(ToString::to_string),
        ),
        (
            "advertise_addr",
            settings.advertise_addr.map(|address| address.to_string()),
        ),
        ("pools.default", Some(list(&pools.default))),
        ("pools.prefix", Some(pools.prefix.to_string())),
        ("pools.block_prefix", optional(pools.block_prefix)),
        (
            "pools.default_v6",
            Some(list(&pools.default_v6)).filter(|list| !list.is_empty()),
        ),
        ("pools.prefix_v6", Some(pools.prefix_v6.to_string())),
        ("pools.block_prefix_v6", optional(pools.block_prefix_v6)),
        ("pools.quarantine", Some(length(pools.quarantine))),
        ("overlay.encapsulation", Some(encapsulation.to_owned())),
        (
            "overlay.vxlan_port",
            Some(settings.overlay.vxlan_port.to_string()),
        ),
        (
            "encryption.port",
            Some(parse::port_range_text(settings.encryption.port)),
        ),
        ("encryption.lanes", optional(settings.encryption.lanes)),
        (
            "encryption.rotate_after",
            Some(length(settings.encryption.rotate_after)),
        ),
        (
            "encryption.rotate_bytes",
            Some(settings.encryption.rotate_bytes.to_string()),
        ),
        ("cluster.join_port", Some(cluster.join_port.to_string())),
        (
            "cluster.etcd_client_port",
            Some(cluster.etcd_client_port.to_string()),
        ),
        (
            "cluster.etcd_peer_port",
            Some(cluster.etcd_peer_port.to_string()),
        ),
        (
            "cluster.token_lifetime",
            Some(length(cluster.token_lifetime)),
        ),
        (
            "cluster.certificate_lifetime",
            Some(length(cluster.certificate_lifetime)),
        ),
        ("cluster.host_lease", Some(length(cluster.host_lease))),
        ("authorization.policy_dir", Some(policies)),
        ("log.format", Some(format.to_owned())),
        ("log.level", Some(settings.log.level.clone())),
    ];
    let present = |(name, text): (&'static str, Option<String>)| text.map(|text| (name, text));
    let texts = texts.into_iter().chain(volume_texts(settings));
    texts.filter_map(present).collect()
}

fn volume_texts(settings: &Settings) -> [(&'static str, Option<String>); 9] {
    let volumes = &settings.volumes;
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    [
        (
            "volumes.backend",
            Some(parse::backend_text(volumes.backend).to_owned()),
        ),
        ("volumes.path", path(&volumes.path)),
        ("volumes.volume_group", volumes.volume_group.clone()),
        ("volumes.thin_pool", volumes.thin_pool.clone()),
        (
            "volumes.loop_size",
            volumes.loop_size.map(|size| size.to_string()),
        ),
        (
            "volumes.backup_password_file",
            path(&volumes.backup_password_file),
        ),
        (
            "volumes.backup_options_file",
            path(&volumes.backup_options_file),
        ),
        (
            "volumes.trash_window",
            Some(format!("{}s", volumes.trash_window.as_secs())),
        ),
        ("volumes.reserve", Some(volumes.reserve.to_string())),
    ]
}
