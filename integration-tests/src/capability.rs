//! What a machine can do, so that a scenario that it cannot run is skipped with the reason.

use std::fmt;

use anyhow::{Result, ensure};

use crate::cache;
use crate::engine::Release;
use crate::network::Namespace;
use crate::process::machine;

/// Something that a scenario needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Namespaces, veth and bridges, as root.
    Namespaces,
    /// nftables with the inet, bridge and netdev families, and `fwd`.
    Nftables,
    /// VXLAN devices.
    Vxlan,
    /// IPv6.
    Ipv6,
    /// ESP with AES-GCM, and XFRM interfaces.
    Esp,
    /// The lack of it.
    NoEsp,
    /// The root file system with an engine.
    Engine(Release),
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespaces => formatter.write_str("namespaces"),
            Self::Nftables => formatter.write_str("nftables"),
            Self::Vxlan => formatter.write_str("vxlan"),
            Self::Ipv6 => formatter.write_str("ipv6"),
            Self::Esp => formatter.write_str("esp"),
            Self::NoEsp => formatter.write_str("no-esp"),
            Self::Engine(release) => write!(formatter, "engine-{release}"),
        }
    }
}

impl Capability {
    /// Why the machine does not have it; `None` when it does.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let tried = match self {
            Self::Namespaces => in_namespace("ip link add name v0 type veth peer name v1 && ip link add name b0 type bridge"),
            Self::Nftables => in_namespace(
                "ip link add name v0 type veth peer name v1
                 nft 'add table inet t; add chain inet t c { type filter hook forward priority 0; }'
                 nft 'add table bridge t; add chain bridge t c { type filter hook forward priority 0; }'
                 nft 'add table netdev t'
                 nft 'add chain netdev t c { type filter hook ingress device v0 priority 0; }'
                 nft 'add rule netdev t c fwd to v1'",
            ),
            Self::Vxlan => in_namespace("ip link add name x0 type vxlan id 7 dstport 4787"),
            Self::Ipv6 => in_namespace("ip -6 addr add 2001:db8::1/64 dev lo"),
            Self::Esp => in_namespace(ESP).map_err(|_said| {
                "the kernel lacks ESP with AES-GCM, or XFRM interfaces".to_owned()
            }),
            Self::NoEsp => match in_namespace(ESP) {
                Ok(()) => Err("the kernel has ESP".to_owned()),
                Err(_) => Ok(()),
            },
            Self::Engine(release) if release.is_there() => programs_run(release),
            Self::Engine(release) => {
                Err(format!("there is no root file system; run integration-tests/make-root {}", release.suite()))
            }
        };
        tried.err()
    }

    /// Whether the environment declares that the machine has it: `DROVER_REQUIRE` is `all`, or names it.
    #[must_use]
    pub fn is_required(self) -> bool {
        let required = std::env::var("DROVER_REQUIRE").unwrap_or_default();
        let own = self.to_string();
        required
            .split([',', ' '])
            .any(|name| name == "all" || name == own)
    }
}

/// Makes what an encrypted path is made of.
const ESP: &str = "ip link add name i0 type xfrm if_id 1
    ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x60000001 mode tunnel if_id 1 \
        aead 'rfc4106(gcm(aes))' 0x$(head -c 36 /dev/urandom | od -An -tx1 | tr -d ' \n') 128";

/// Tries Drover's programs on the C library of an engine's suite, which may be older than the one that they
/// were built with.
fn programs_run(release: Release) -> Result<(), String> {
    let tried = || -> Result<()> {
        let root = cache::root(release.suite());
        machine(&[
            "unshare",
            "--mount",
            "sh",
            "-ec",
            "mount --bind \"$1\" \"$2/mnt\"; exec chroot \"$2\" /mnt/drover --version",
            "try",
            &cache::binaries()?.to_string_lossy(),
            &root.to_string_lossy(),
        ])?;
        Ok(())
    };
    tried().map_err(|error| format!("Drover's programs do not run there: {error:#}"))
}

/// Tries a command in a network namespace that goes afterwards.
fn in_namespace(script: &str) -> Result<(), String> {
    let tried = || -> Result<()> {
        ensure!(machine(&["id", "-u"])? == "0", "the lab needs root");
        Namespace::create()?.run(script)?;
        Ok(())
    };
    tried().map_err(|error| format!("{error:#}").trim().to_owned())
}
