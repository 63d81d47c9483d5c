//! In what the engines differ, as far as a network or IPAM plugin can tell.

/// An engine version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineVersion {
    /// Its number.
    pub name: &'static str,
    /// The `Host` header it sends.
    pub host: &'static str,
    /// Whether it sends `enable_ipv4`, and `GwAllocCheck` where that is announced.
    pub checks_gateways: bool,
    /// Whether the IPAM driver learns the container's name.
    pub names_endpoints: bool,
    /// How often `EndpointOperInfo` comes at a start.
    pub information_calls: u8,
    /// Whether `ProgramExternalConnectivity` comes at Join for internal networks, too.
    pub programs_internal: bool,
    /// Whether `Leave` comes after a Join that failed.
    pub leaves_after_failed_join: bool,
    /// Whether link addresses it makes begin with `02:42`.
    pub macs_begin_with_0242: bool,
    /// Whether the value of `no_proxy_6to4` is always sent.
    pub sends_no_proxy: bool,
}

const V20: EngineVersion = EngineVersion {
    name: "20.10.24",
    host: "",
    checks_gateways: false,
    names_endpoints: false,
    information_calls: 2,
    programs_internal: false,
    leaves_after_failed_join: false,
    macs_begin_with_0242: true,
    sends_no_proxy: false,
};

const V26: EngineVersion = EngineVersion {
    name: "26.1.5",
    host: "plugin.moby.localhost",
    ..V20
};

const V28: EngineVersion = EngineVersion {
    name: "28.5.2",
    checks_gateways: true,
    information_calls: 1,
    macs_begin_with_0242: false,
    sends_no_proxy: true,
    ..V26
};

const V29: EngineVersion = EngineVersion {
    name: "29.7.2",
    names_endpoints: true,
    programs_internal: true,
    leaves_after_failed_join: true,
    sends_no_proxy: false,
    ..V28
};

/// The versions that were recorded, oldest first.
pub const ENGINES: [EngineVersion; 4] = [V20, V26, V28, V29];
