//! What the kernel can do, tried in a network namespace that is thrown away.

use std::env;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkVxlan};

/// What was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelFacts {
    /// Each feature, and why it did not work.
    pub(crate) features: Vec<(Feature, Result<(), String>)>,
}

/// Something that Drover needs of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    /// Bridges.
    Bridge,
    /// VXLAN devices.
    Vxlan,
    /// Packet filters of the inet family.
    NftInet,
    /// Packet filters at bridges.
    NftBridge,
    /// Packet filters at devices, and forwarding there.
    NftNetdev,
    /// Packet filters that ask where the source of a packet is routed to.
    NftFib,
}

impl Feature {
    /// As a person calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridges",
            Self::Vxlan => "VXLAN devices",
            Self::NftInet => "nftables of the inet family",
            Self::NftBridge => "nftables of the bridge family",
            Self::NftNetdev => "nftables of the netdev family with `fwd`",
            Self::NftFib => "nftables of the inet family with `fib`",
        }
    }

    /// The modules that bring it.
    pub(crate) const fn modules(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Vxlan => "vxlan",
            Self::NftInet => "nf_tables nft_chain_nat",
            Self::NftBridge => "nf_tables nf_tables_bridge nft_meta_bridge",
            Self::NftNetdev => "nf_tables nft_fwd_netdev",
            Self::NftFib => "nf_tables nft_fib_inet",
        }
    }

    /// A ruleset that needs it.
    const fn ruleset(self) -> &'static str {
        match self {
            Self::Bridge | Self::Vxlan => "",
            Self::NftInet => {
                "table inet probe {\n chain c {\n type filter hook forward priority 0;\n ct state established accept\n }\n}\n"
            }
            Self::NftBridge => {
                "table bridge probe {\n chain c {\n type filter hook forward priority 0;\n ether saddr 02:00:00:00:00:01 drop\n }\n}\n"
            }
            Self::NftNetdev => {
                "table netdev probe {\n chain c {\n type filter hook ingress device \"lo\" priority 0;\n ip saddr 192.0.2.1 fwd to \"lo\"\n }\n}\n"
            }
            Self::NftFib => {
                "table inet probe-fib {\n chain c {\n type filter hook prerouting priority 0;\n fib saddr . iif oif missing drop\n }\n}\n"
            }
        }
    }
}

/// Tries everything. The error says why nothing could be tried.
pub(crate) fn probe() -> Result<KernelFacts, String> {
    // The namespace lives as long as the thread.
    thread::spawn(probe_here)
        .join()
        .unwrap_or_else(|_| Err("the probe ended in a bug".to_owned()))
}

fn probe_here() -> Result<KernelFacts, String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
        format!(
            "cannot make a network namespace: {}; run this as root",
            errno.desc()
        )
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
    let bridge = LinkBridge::new("probe-bridge");
    let vxlan = LinkVxlan::new("probe-vxlan", 1).port(4787);
    let features = vec![
        (Feature::Bridge, runtime.block_on(add(bridge))),
        (Feature::Vxlan, runtime.block_on(add(vxlan))),
        (Feature::NftInet, load(Feature::NftInet)),
        (Feature::NftBridge, load(Feature::NftBridge)),
        (Feature::NftNetdev, load(Feature::NftNetdev)),
        (Feature::NftFib, load(Feature::NftFib)),
    ];
    Ok(KernelFacts { features })
}

async fn add<T>(link: LinkMessageBuilder<T>) -> Result<(), String> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|error| format!("no netlink socket: {error}"))?;
    let connection = tokio::spawn(connection);
    let added = handle.link().add(link.build()).execute().await;
    connection.abort();
    added.map_err(|error| error.to_string())
}

fn load(feature: Feature) -> Result<(), String> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("the program `nft` cannot be run: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(feature.ruleset().as_bytes())
            .map_err(|error| error.to_string())?;
    }
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said
        .lines()
        .next()
        .unwrap_or("nft failed without a word")
        .trim()
        .to_owned())
}

/// Where a program is in `PATH`, or where Debian puts what only root runs.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/local/bin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(more)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trying_leaves_nothing_behind() {
        let before = nix::net::if_::if_nameindex().unwrap().iter().count();
        match probe() {
            Ok(facts) => {
                assert_eq!(facts.features.len(), 6);
                // What a kernel lacks is its own affair; what nft cannot read is ours.
                let unread = |(_, tried): &(Feature, Result<(), String>)| {
                    tried
                        .as_ref()
                        .is_err_and(|reason| reason.contains("syntax"))
                };
                assert!(!facts.features.iter().any(unread), "{:?}", facts.features);
            }
            Err(reason) => assert!(reason.contains("root"), "{reason}"),
        }
        assert_eq!(
            nix::net::if_::if_nameindex().unwrap().iter().count(),
            before
        );
    }
}
