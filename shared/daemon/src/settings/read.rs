//! The table of settings: name, how it is read, what it may be.

use std::time::Duration;

use drover_model::ByteSize;
use ipnet::IpNet;

use super::source::Gathered;
use super::{Fault, Settings, SettingsError, parse};

/// Every setting by its dotted name.
pub(super) const NAMES: &[&str] = &[
    "state_dir",
    "run_dir",
    "plugin_dir",
    "docker_host",
    "host_name",
    "advertise_addr",
    "pools.default",
    "pools.prefix",
    "pools.block_prefix",
    "pools.default_v6",
    "pools.prefix_v6",
    "pools.block_prefix_v6",
    "pools.quarantine",
    "overlay.encapsulation",
    "overlay.vxlan_port",
    "encryption.port",
    "encryption.lanes",
    "encryption.rotate_after",
    "encryption.rotate_bytes",
    "cluster.join_port",
    "cluster.etcd_client_port",
    "cluster.etcd_peer_port",
    "cluster.token_lifetime",
    "cluster.certificate_lifetime",
    "cluster.host_lease",
    "authorization.policy_dir",
    "log.format",
    "log.level",
    "volumes.backend",
    "volumes.path",
    "volumes.volume_group",
    "volumes.thin_pool",
    "volumes.loop_size",
    "volumes.backup_password_file",
    "volumes.backup_options_file",
    "volumes.trash_window",
    "volumes.reserve",
];

const PATH: &str = "an absolute path";
const LVM_NAME: &str = "a name of LVM: letters, digits, `+`, `_`, `.` and `-`";
const PORT: &str = "a port from 1 to 65535";
const DURATION: &str = "a length of time such as 90s, 15min, 12h or 30days";
const PREFIX_V4: &str = "a prefix length from 8 to 28";
const PREFIX_V6: &str = "a prefix length from 48 to 120";
const RANGES: &str = "a list of prefixes without host bits, such as 10.64.0.0/10";
const RANGES_V6: &str = "a list of IPv6 prefixes without host bits, such as fd12:3456:789a::/48";

/// Reads settings one by one and remembers what is wrong with each.
struct Reader {
    gathered: Gathered,
}

impl Reader {
    /// Reads one setting into its place, which keeps the default if it is absent or wrong.
    fn read<T>(
        &mut self,
        into: &mut T,
        name: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) {
        let Some(given) = self.gathered.values.get(name) else {
            return;
        };
        match parse(given.text.trim()) {
            Some(value) => *into = value,
            None => {
                let text: String = given.text.chars().take(80).collect();
                let problem = format!("is `{text}` in {}; it must be {expected}", given.place);
                self.fault(name, problem);
            }
        }
    }

    fn fault(&mut self, name: &str, problem: String) {
        self.gathered.faults.push(Fault {
            setting: name.to_owned(),
            problem,
        });
    }
}

pub(super) fn read(gathered: Gathered) -> Result<Settings, SettingsError> {
    let mut reader = Reader { gathered };
    let mut settings = Settings::default();
    read_places(&mut reader, &mut settings);
    read_pools(&mut reader, &mut settings);
    read_volumes(&mut reader, &mut settings);
    read_cluster(&mut reader, &mut settings);
    check_together(&mut reader, &settings);
    if reader.gathered.faults.is_empty() {
        Ok(settings)
    } else {
        Err(SettingsError(reader.gathered.faults))
    }
}

fn read_places(reader: &mut Reader, settings: &mut Settings) {
    reader.read(&mut settings.state_dir, "state_dir", PATH, parse::path);
    reader.read(&mut settings.run_dir, "run_dir", PATH, parse::path);
    reader.read(&mut settings.plugin_dir, "plugin_dir", PATH, parse::path);
    let expected = "unix:///PATH or tcp://HOST:PORT";
    reader.read(
        &mut settings.docker_host,
        "docker_host",
        expected,
        parse::docker_host,
    );
    let expected = "1 to 63 of a-z, 0-9 and `-`, starting and ending with a letter or digit";
    reader.read(
        &mut settings.host_name,
        "host_name",
        expected,
        parse::host_name,
    );
    let expected = "an IP address that other hosts reach this one at";
    reader.read(
        &mut settings.advertise_addr,
        "advertise_addr",
        expected,
        parse::advertise,
    );
    reader.read(
        &mut settings.authorization.policy_dir,
        "authorization.policy_dir",
        PATH,
        parse::path,
    );
    let log = &mut settings.log;
    reader.read(
        &mut log.format,
        "log.format",
        "`human` or `json`",
        parse::log_format,
    );
    let expected = "error, warn, info, debug, trace, or TARGET=LEVEL,...";
    reader.read(&mut log.level, "log.level", expected, parse::log_level);
}

fn read_pools(reader: &mut Reader, settings: &mut Settings) {
    let pools = &mut settings.pools;
    let v4 = |text: &str| parse::ranges_v4(text).filter(|ranges| !ranges.is_empty());
    reader.read(&mut pools.default, "pools.default", RANGES, v4);
    let prefix = |text: &str| parse::number(text, 8, 28);
    reader.read(&mut pools.prefix, "pools.prefix", PREFIX_V4, prefix);
    let expected = "a prefix length from 9 to 29";
    let block = |text: &str| parse::number(text, 9, 29).map(Some);
    reader.read(
        &mut pools.block_prefix,
        "pools.block_prefix",
        expected,
        block,
    );
    reader.read(
        &mut pools.default_v6,
        "pools.default_v6",
        RANGES_V6,
        parse::ranges_v6,
    );
    let prefix = |text: &str| parse::number(text, 48, 120);
    reader.read(&mut pools.prefix_v6, "pools.prefix_v6", PREFIX_V6, prefix);
    let expected = "a prefix length from 49 to 124";
    let block = |text: &str| parse::number(text, 49, 124).map(Some);
    reader.read(
        &mut pools.block_prefix_v6,
        "pools.block_prefix_v6",
        expected,
        block,
    );
    reader.read(
        &mut pools.quarantine,
        "pools.quarantine",
        DURATION,
        parse::duration,
    );
}

fn read_cluster(reader: &mut Reader, settings: &mut Settings) {
    let overlay = &mut settings.overlay;
    let (name, expected) = ("overlay.encapsulation", "`auto`, `direct` or `vxlan`");
    reader.read(
        &mut overlay.encapsulation,
        name,
        expected,
        parse::encapsulation,
    );
    reader.read(
        &mut overlay.vxlan_port,
        "overlay.vxlan_port",
        PORT,
        parse::port,
    );
    read_encryption(reader, settings);
    let cluster = &mut settings.cluster;
    reader.read(
        &mut cluster.join_port,
        "cluster.join_port",
        PORT,
        parse::port,
    );
    reader.read(
        &mut cluster.etcd_client_port,
        "cluster.etcd_client_port",
        PORT,
        parse::port,
    );
    reader.read(
        &mut cluster.etcd_peer_port,
        "cluster.etcd_peer_port",
        PORT,
        parse::port,
    );
    let positive =
        |least: Duration| move |text: &str| parse::duration(text).filter(|length| *length >= least);
    let second = positive(Duration::from_secs(1));
    reader.read(
        &mut cluster.token_lifetime,
        "cluster.token_lifetime",
        DURATION,
        second,
    );
    let expected = "a length of time of at least 60s, such as 30days";
    let minute = positive(Duration::from_secs(60));
    let lifetime = &mut cluster.certificate_lifetime;
    reader.read(lifetime, "cluster.certificate_lifetime", expected, minute);
    let expected = "a length of time of at least 3s, such as 4s";
    let lease = positive(Duration::from_secs(3));
    reader.read(
        &mut cluster.host_lease,
        "cluster.host_lease",
        expected,
        lease,
    );
}

fn read_encryption(reader: &mut Reader, settings: &mut Settings) {
    let encryption = &mut settings.encryption;
    reader.read(
        &mut encryption.port,
        "encryption.port",
        "`none`, or the first of eight UDP ports, 1 to 65528",
        parse::port_range,
    );
    reader.read(
        &mut encryption.lanes,
        "encryption.lanes",
        "a number from 1 to 8",
        |text| parse::number(text, 1, 8).map(Some),
    );
    reader.read(
        &mut encryption.rotate_after,
        "encryption.rotate_after",
        "a length of time of at least 10s, such as 1h",
        |text| parse::duration(text).filter(|length| length.as_secs() >= 10),
    );
    reader.read(
        &mut encryption.rotate_bytes,
        "encryption.rotate_bytes",
        "a number of bytes, at least 1048576",
        |text| text.parse().ok().filter(|bytes| *bytes >= 1 << 20),
    );
}

fn read_volumes(reader: &mut Reader, settings: &mut Settings) {
    let volumes = &mut settings.volumes;
    let expected = "`auto`, `btrfs`, `thin` or `directory`";
    reader.read(
        &mut volumes.backend,
        "volumes.backend",
        expected,
        parse::backend,
    );
    reader.read(&mut volumes.path, "volumes.path", PATH, |text| {
        parse::path(text).map(Some)
    });
    reader.read(
        &mut volumes.volume_group,
        "volumes.volume_group",
        LVM_NAME,
        parse::lvm_name,
    );
    reader.read(
        &mut volumes.thin_pool,
        "volumes.thin_pool",
        LVM_NAME,
        parse::lvm_name,
    );
    reader.read(
        &mut volumes.loop_size,
        "volumes.loop_size",
        "a size of at least 256M, such as 100G",
        |text| {
            let size: Option<ByteSize> = text.parse().ok();
            size.filter(|size| size.bytes() >= 256 << 20).map(Some)
        },
    );
    for (file, name) in [
        (
            &mut volumes.backup_password_file,
            "volumes.backup_password_file",
        ),
        (
            &mut volumes.backup_options_file,
            "volumes.backup_options_file",
        ),
    ] {
        reader.read(file, name, PATH, |text| parse::path(text).map(Some));
    }
    reader.read(
        &mut volumes.trash_window,
        "volumes.trash_window",
        DURATION,
        parse::duration,
    );
    let expected = "a number of percent from 1 to 50";
    let reserve = |text: &str| parse::number(text, 1, 50);
    reader.read(&mut volumes.reserve, "volumes.reserve", expected, reserve);
}

/// What no setting can tell alone.
fn check_together(reader: &mut Reader, settings: &Settings) {
    let pools = &settings.pools;
    check_pools(
        reader,
        ["pools.default", "pools.prefix"],
        &pools.default,
        pools.prefix,
    );
    check_pools(
        reader,
        ["pools.default_v6", "pools.prefix_v6"],
        &pools.default_v6,
        pools.prefix_v6,
    );
    check_blocks(
        reader,
        "pools.block_prefix",
        pools.block_prefix,
        pools.prefix,
    );
    check_blocks(
        reader,
        "pools.block_prefix_v6",
        pools.block_prefix_v6,
        pools.prefix_v6,
    );
    let lanes = settings
        .encryption
        .port
        .map(|first| first..=first.saturating_add(7));
    let vxlan = settings.overlay.vxlan_port;
    if lanes.is_some_and(|lanes| lanes.contains(&vxlan)) {
        let problem =
            "begins eight ports, and `overlay.vxlan_port` is one of them: move one of the two";
        reader.fault("encryption.port", problem.to_owned());
    }
    let cluster = &settings.cluster;
    let ports = [
        ("cluster.join_port", cluster.join_port),
        ("cluster.etcd_client_port", cluster.etcd_client_port),
        ("cluster.etcd_peer_port", cluster.etcd_peer_port),
    ];
    for (position, (name, port)) in ports.iter().enumerate() {
        let before = ports.iter().take(position).find(|(_, other)| other == port);
        if let Some((other, _)) = before {
            reader.fault(
                name,
                format!("is {port}, and so is `{other}`: give each its own port"),
            );
        }
    }
}

fn check_pools(reader: &mut Reader, names: [&str; 2], ranges: &[IpNet], prefix: u8) {
    let [ranges_name, prefix_name] = names;
    for range in ranges.iter().filter(|range| range.prefix_len() > prefix) {
        let problem = format!(
            "has {range}, which holds no pool with the prefix length {prefix} of `{prefix_name}`"
        );
        reader.fault(ranges_name, problem);
    }
}

fn check_blocks(reader: &mut Reader, name: &str, block: Option<u8>, pool: u8) {
    if let Some(block) = block.filter(|block| *block < pool) {
        let problem = format!("is {block}, so that a block were larger than its pool (/{pool})");
        reader.fault(name, problem);
    }
}
