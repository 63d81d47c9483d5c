//! The settings of every process: where they come from, what they may be.
//!
//! Flags come before `DROVER_*` variables, these before `drover.toml`, that before the defaults. Every
//! setting has one dotted name (`pools.prefix`), one variable (`DROVER_POOLS_PREFIX`) and one place in
//! the file (`[pools] prefix`). All faults are reported at once.

mod parse;
mod read;
mod source;
mod write;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use drover_model::{ByteSize, HostName};
use ipnet::IpNet;

pub use source::{DEFAULT_CONFIG, Overrides};

/// The settings of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where durable state is kept.
    pub state_dir: PathBuf,
    /// Where sockets, pid files and the `drover` namespace are.
    pub run_dir: PathBuf,
    /// Where the engine looks for plugin sockets.
    pub plugin_dir: PathBuf,
    /// The engine, `unix:///PATH` or `tcp://HOST:PORT`.
    pub docker_host: String,
    /// This host's name in the cluster; `None` for the machine's own.
    pub host_name: Option<HostName>,
    /// Where other hosts reach this one; `None` for the address of the default route.
    pub advertise_addr: Option<IpAddr>,
    /// Pools and blocks.
    pub pools: PoolSettings,
    /// Paths between hosts.
    pub overlay: OverlaySettings,
    /// How networks are encrypted.
    pub encryption: EncryptionSettings,
    /// Volumes.
    pub volumes: VolumeSettings,
    /// The cluster.
    pub cluster: ClusterSettings,
    /// Who may call the engine.
    pub authorization: AuthorizationSettings,
    /// Logs.
    pub log: LogSettings,
}

/// Who may call the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationSettings {
    /// Where the policies are. Without this folder the plugin is not started.
    pub policy_dir: PathBuf,
}

/// How pools are chosen and cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// The IPv4 ranges that automatic pools are taken from.
    pub default: Vec<IpNet>,
    /// The prefix length of an automatic IPv4 pool.
    pub prefix: u8,
    /// The prefix length of the blocks of automatic IPv4 pools; `None` for half of the host bits.
    pub block_prefix: Option<u8>,
    /// The IPv6 ranges that automatic pools are taken from; empty for one made of the cluster's id.
    pub default_v6: Vec<IpNet>,
    /// The prefix length of an automatic IPv6 pool.
    pub prefix_v6: u8,
    /// The prefix length of the blocks of automatic IPv6 pools; `None` for half of the host bits, at
    /// most 16 of them.
    pub block_prefix_v6: Option<u8>,
    /// How long an address rests before it is given again.
    pub quarantine: Duration,
}

/// How packets of clear networks travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncapsulationChoice {
    /// Directly where two hosts share a link, else by VXLAN.
    Auto,
    /// Directly, always.
    Direct,
    /// By VXLAN, always.
    Vxlan,
}

/// The paths between hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlaySettings {
    /// Which path clear networks take.
    pub encapsulation: EncapsulationChoice,
    /// The UDP port of VXLAN, the same on every host. Not 4789, which is Swarm's.
    pub vxlan_port: u16,
}

/// How networks are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionSettings {
    /// The first of the eight UDP ports that ESP travels by, one a lane (RFC 3948); `None` for ESP on its own,
    /// protocol 50.
    pub port: Option<u16>,
    /// How many associations flows to a host are spread over, 1 to 8; `None` for as many as this
    /// host has cores.
    pub lanes: Option<u8>,
    /// After how long a host takes a new key.
    pub rotate_after: Duration,
    /// After how many bytes by one association it does so earlier.
    pub rotate_bytes: u64,
}

/// Which backend new volumes are made on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The best that this host has.
    #[default]
    Auto,
    /// Btrfs.
    Btrfs,
    /// A thin pool of LVM.
    Thin,
    /// Plain directories.
    Directory,
}

/// Volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSettings {
    /// Which backend new volumes are made on.
    pub backend: BackendChoice,
    /// A directory for volumes that there is: of a btrfs, or for plain directories; `None` for one in the state directory.
    pub path: Option<PathBuf>,
    /// The volume group of the thin pool; `None` for one in a loop file.
    pub volume_group: Option<String>,
    /// The thin pool in that group, which is there; `None` for one that we make.
    pub thin_pool: Option<String>,
    /// How large the loop file is, and becomes when it is smaller; `None` for half of what is free when it is made.
    pub loop_size: Option<ByteSize>,
    /// The file with the password of repositories, for volumes whose options name none.
    pub backup_password_file: Option<PathBuf>,
    /// The file with what targets of backups need, for volumes whose options name none.
    pub backup_options_file: Option<PathBuf>,
    /// How long a volume that was removed can be restored; zero for not at all.
    pub trash_window: Duration,
    /// How many percent of a pool are kept for the volumes that there are: nothing new is begun on them.
    pub reserve: u8,
}

impl Default for VolumeSettings {
    fn default() -> Self {
        Self {
            backend: BackendChoice::Auto,
            path: None,
            volume_group: None,
            thin_pool: None,
            loop_size: None,
            backup_password_file: None,
            backup_options_file: None,
            trash_window: Duration::from_secs(3 * 24 * 60 * 60),
            reserve: 5,
        }
    }
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// The TCP port that hosts join at.
    pub join_port: u16,
    /// The TCP port of etcd for its clients.
    pub etcd_client_port: u16,
    /// The TCP port of etcd for its members.
    pub etcd_peer_port: u16,
    /// How long a join token is good.
    pub token_lifetime: Duration,
    /// How long a host certificate is good; it is renewed after two thirds of that.
    pub certificate_lifetime: Duration,
    /// How long after its last sign of life a host counts as gone.
    pub host_lease: Duration,
}

/// In which form logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for a person.
    Human,
    /// A JSON object a line.
    Json,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Their form.
    pub format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or `TARGET=LEVEL,...`.
    pub level: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/drover".into(),
            run_dir: "/run/drover".into(),
            plugin_dir: "/run/docker/plugins".into(),
            docker_host: "unix:///var/run/docker.sock".to_owned(),
            host_name: None,
            advertise_addr: None,
            pools: PoolSettings::default(),
            overlay: OverlaySettings::default(),
            encryption: EncryptionSettings::default(),
            volumes: VolumeSettings::default(),
            cluster: ClusterSettings::default(),
            authorization: AuthorizationSettings::default(),
            log: LogSettings::default(),
        }
    }
}

impl Default for PoolSettings {
    fn default() -> Self {
        let range = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 64, 0, 0), 10);
        Self {
            default: vec![IpNet::V4(range)],
            prefix: 16,
            block_prefix: None,
            default_v6: Vec::new(),
            prefix_v6: 64,
            block_prefix_v6: None,
            quarantine: Duration::from_secs(60),
        }
    }
}

impl Default for OverlaySettings {
    fn default() -> Self {
        Self {
            encapsulation: EncapsulationChoice::Auto,
            vxlan_port: 4787,
        }
    }
}

impl Default for EncryptionSettings {
    fn default() -> Self {
        Self {
            port: Some(4740),
            lanes: None,
            rotate_after: Duration::from_secs(60 * 60),
            rotate_bytes: 1 << 40,
        }
    }
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            join_port: 4748,
            etcd_client_port: 4749,
            etcd_peer_port: 4750,
            token_lifetime: Duration::from_secs(60 * 60),
            certificate_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
            host_lease: Duration::from_secs(4),
        }
    }
}

impl Default for AuthorizationSettings {
    fn default() -> Self {
        Self {
            policy_dir: "/etc/drover/policy".into(),
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            level: "info".to_owned(),
        }
    }
}

impl Settings {
    /// Reads the settings.
    ///
    /// # Errors
    /// With every fault there is: settings that do not exist, and values they cannot have.
    pub fn load(overrides: &Overrides) -> Result<Self, SettingsError> {
        read::read(source::gather(overrides, std::env::vars_os()))
    }

    /// The settings as `DROVER_*` variables, complete, for a child process: it reads no file.
    #[must_use]
    pub fn to_environment(&self) -> Vec<(String, String)> {
        let mut variables = vec![(source::CONFIG_VARIABLE.to_owned(), "/dev/null".to_owned())];
        for (name, text) in write::texts(self) {
            variables.push((source::variable(name), text));
        }
        variables
    }

    /// The socket of the coordinator.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    /// The socket of a plugin, such as `drover-net`.
    #[must_use]
    pub fn plugin_socket(&self, plugin: &str) -> PathBuf {
        self.plugin_dir.join(format!("{plugin}.sock"))
    }

    /// The socket of the name service. It is no plugin of the engine's, and does not lie among them.
    #[must_use]
    pub fn names_socket(&self) -> PathBuf {
        self.run_dir.join("names.sock")
    }

    /// Where the engine keeps the network namespaces of containers, each as a file to enter it by.
    #[must_use]
    pub fn sandbox_dir(&self) -> PathBuf {
        // Beside the sockets of its plugins: both are in the engine's run folder.
        self.plugin_dir.with_file_name("netns")
    }

    /// The network namespace of the overlay, as a file to enter it by.
    #[must_use]
    pub fn overlay_namespace(&self) -> PathBuf {
        self.run_dir.join("netns/overlay")
    }

    /// This host's name: the one that was set, else the machine's.
    ///
    /// # Errors
    /// When none was set and the machine's cannot be read or is not a DNS label.
    pub fn host_name(&self) -> Result<HostName, SettingsError> {
        if let Some(name) = &self.host_name {
            return Ok(name.clone());
        }
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        HostName::from_machine(machine.trim()).map_err(|error| {
            SettingsError::from(vec![Fault {
                setting: "host_name".to_owned(),
                problem: format!("is not set, and the machine's does not do: {error}"),
            }])
        })
    }
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}` {problem}")]
pub struct Fault {
    /// The setting, by its dotted name.
    pub setting: String,
    /// What is wrong, where it was set, and what it may be.
    pub problem: String,
}

/// Everything that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError(Vec<Fault>);

impl SettingsError {
    /// The faults, at least one.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.0
    }
}

impl From<Vec<Fault>> for SettingsError {
    fn from(faults: Vec<Fault>) -> Self {
        Self(faults)
    }
}

impl std::fmt::Display for SettingsError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the configuration is not usable")?;
        for fault in &self.0 {
            write!(formatter, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsError {}

#[cfg(test)]
mod tests;
