//! What this machine can be tested with: a test that cannot run says so, and where it must, it fails.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names of capabilities, separated by commas or spaces, or `all`, whose absence is a failure and not a reason to skip.
const REQUIRED: &str = "DROVER_REQUIRE";

/// Set where the kernel is the test's own.
const OWN_KERNEL: &str = "DROVER_LAB_OWN_KERNEL";

/// A pair of links.
const LINKS: &str = "ip link add drover-a type veth peer name drover-b";

/// An interface whose packets are encrypted, and an association with a key that nobody knows.
const ENCRYPTION: &str = "ip link add drover-i type xfrm if_id 1
    ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x60000001 mode tunnel if_id 1 \
        aead 'rfc4106(gcm(aes))' 0x$(head -c 36 /dev/urandom | od -An -tx1 | tr -d ' \\n') 128";

/// A btrfs in a loop file, mounted; both go with the trial.
const BTRFS: &str = "file=$(mktemp)
    trap 'rm -f \"$file\"' EXIT
    truncate -s 256M \"$file\"
    mkfs.btrfs -q \"$file\"
    mount -o loop \"$file\" /mnt";

/// The driver, where need be as a module, and the programs.
const THIN: &str = "grep -q device-mapper /proc/misc || modprobe dm_thin_pool 2>/dev/null || true
    grep -q device-mapper /proc/misc || { echo 'the kernel has no device-mapper' >&2; exit 1; }
    which lvm thin_check >/dev/null || { echo 'there is no lvm, or no thin_check' >&2; exit 1; }";

/// Something that a test needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Making network namespaces and links in them.
    Namespaces,
    /// VXLAN devices.
    Vxlan,
    /// nftables: a table of family `inet`.
    Nftables,
    /// nftables: a table of family `bridge`.
    BridgeTables,
    /// nftables: `fwd` in a table of family `netdev`.
    Forwarding,
    /// IPv6.
    Ipv6,
    /// ESP with AES-GCM, and XFRM interfaces.
    Esp,
    /// The lack of it.
    NoEsp,
    /// Thin pools: device-mapper, LVM, and the programs for thin pools.
    DeviceMapper,
    /// The program `etcd`.
    Etcd,
    /// The program `dockerd`.
    Dockerd,
    /// The program `qemu-system-x86_64`.
    Qemu,
    /// Loop devices, and btrfs with the program that makes one.
    Btrfs,
    /// Devices of which the test holds one end.
    Tun,
    /// A kernel that nobody else uses, so that modules can be taken away from it: a virtual machine, which says so.
    OwnKernel,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Namespaces,
        Self::Vxlan,
        Self::Nftables,
        Self::BridgeTables,
        Self::Forwarding,
        Self::Ipv6,
        Self::Esp,
        Self::NoEsp,
        Self::DeviceMapper,
        Self::Etcd,
        Self::Dockerd,
        Self::Qemu,
        Self::Btrfs,
        Self::Tun,
        Self::OwnKernel,
    ];

    /// Its name in `DROVER_REQUIRE`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Vxlan => "vxlan",
            Self::Nftables => "nftables",
            Self::BridgeTables => "bridge-tables",
            Self::Forwarding => "forwarding",
            Self::Ipv6 => "ipv6",
            Self::Esp => "esp",
            Self::NoEsp => "no-esp",
            Self::DeviceMapper => "device-mapper",
            Self::Etcd => "etcd",
            Self::Dockerd => "dockerd",
            Self::Qemu => "qemu",
            Self::Btrfs => "btrfs",
            Self::Tun => "tun",
            Self::OwnKernel => "own-kernel",
        }
    }

    /// Whether it is there.
    #[must_use]
    pub fn is_present(self) -> bool {
        self.absence().is_none()
    }

    /// Why it is not there, tried in a namespace that goes away with the trial.
    #[must_use]
    pub fn absence(self) -> Option<String> {
        match self {
            Self::Namespaces => in_namespace(LINKS),
            Self::Vxlan => in_namespace("ip link add drover-v type vxlan id 7 dstport 4787"),
            Self::Nftables => in_namespace("nft add table inet drover"),
            Self::BridgeTables => in_namespace(
                "nft add table bridge drover
                 nft 'add chain bridge drover a { type filter hook forward priority 0; }'",
            ),
            Self::Forwarding => in_namespace(&format!(
                "{LINKS}
                 nft add table netdev drover
                 nft 'add chain netdev drover a {{ type filter hook ingress device drover-a \
                     priority 0; }}'
                 nft add rule netdev drover a fwd to drover-b"
            )),
            Self::Ipv6 => in_namespace("ip -6 addr add 2001:db8::1/64 dev lo"),
            Self::Esp => in_namespace(ENCRYPTION),
            Self::NoEsp => match in_namespace(ENCRYPTION) {
                Some(_lacks) => None,
                None => Some("the kernel has ESP".to_owned()),
            },
            Self::DeviceMapper => in_namespace(THIN),
            Self::Etcd => without_program("etcd"),
            Self::Dockerd => without_program("dockerd"),
            Self::Qemu => without_program("qemu-system-x86_64"),
            Self::Btrfs => without_program("mkfs.btrfs").or_else(|| in_namespace(BTRFS)),
            Self::Tun => in_namespace("ip tuntap add drover-t mode tap"),
            Self::OwnKernel => std::env::var_os(OWN_KERNEL).is_none().then(|| {
                format!("others use this kernel too; a virtual machine sets {OWN_KERNEL}")
            }),
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What a test is to do about what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Everything is there.
    Run,
    /// Something is not there: skip, saying what.
    Skip(Vec<Capability>),
    /// Something is not there that must be: fail.
    Fail(Vec<Capability>),
}

/// Whether a test that needs these can run. Where it cannot, the reason is printed.
///
/// # Panics
/// When one of them is not there that `DROVER_REQUIRE` names.
#[must_use]
#[expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "a test is skipped with its reason, or fails"
)]
pub fn can_test(needs: &[Capability]) -> bool {
    match judge(needs) {
        Verdict::Run => true,
        Verdict::Skip(missing) => {
            eprintln!("skipped: this machine lacks {}", reasons(&missing));
            false
        }
        Verdict::Fail(missing) => panic!("this machine lacks {}", reasons(&missing)),
    }
}

fn reasons(missing: &[Capability]) -> String {
    let reason = |it: &Capability| format!("{it} ({})", it.absence().unwrap_or_default());
    missing.iter().map(reason).collect::<Vec<_>>().join(", ")
}

fn judge(needs: &[Capability]) -> Verdict {
    let required = std::env::var(REQUIRED).unwrap_or_default();
    let missing = needs
        .iter()
        .copied()
        .filter(|need| !need.is_present())
        .collect();
    verdict(missing, &required)
}

fn verdict(missing: Vec<Capability>, required: &str) -> Verdict {
    if missing.is_empty() {
        Verdict::Run
    } else if missing.iter().any(|need| names(required, need.name())) {
        Verdict::Fail(missing)
    } else {
        Verdict::Skip(missing)
    }
}

/// Whether the environment declares that this machine has something: `DROVER_REQUIRE` is `all`, or names it.
#[must_use]
pub fn is_required(name: &str) -> bool {
    names(&std::env::var(REQUIRED).unwrap_or_default(), name)
}

fn names(required: &str, name: &str) -> bool {
    let mut names = required.split([',', ' ']);
    names.any(|required| required == "all" || required == name)
}

/// Where a program is, by `PATH`.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|it| is_file(it))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

fn without_program(name: &str) -> Option<String> {
    program(name)
        .is_none()
        .then(|| format!("there is no program `{name}`"))
}

/// What a script that fails in a network namespace of its own has said.
fn in_namespace(script: &str) -> Option<String> {
    let mut unshare = Command::new("unshare");
    let tried = unshare
        .args(["--net", "--mount", "sh", "-ec", script])
        .stdin(Stdio::null());
    match tried.output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("cannot run `unshare`: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Capability, Verdict, verdict};

    #[test]
    fn a_trial_fails_for_the_machine_and_not_for_itself() {
        for capability in Capability::ALL {
            let reason = capability.absence().unwrap_or_default();
            let own_fault = ["syntax", "cannot be specified", "Usage", "not found"];
            assert!(
                !own_fault.iter().any(|it| reason.contains(it)),
                "{capability}: {reason}"
            );
        }
    }

    #[test]
    fn what_is_required_is_not_skipped() {
        let missing = || vec![Capability::Etcd];
        assert_eq!(verdict(Vec::new(), "all"), Verdict::Run);
        assert_eq!(verdict(missing(), ""), Verdict::Skip(missing()));
        assert_eq!(verdict(missing(), "dockerd"), Verdict::Skip(missing()));
        assert_eq!(
            verdict(missing(), "dockerd, etcd"),
            Verdict::Fail(missing())
        );
        assert_eq!(verdict(missing(), "all"), Verdict::Fail(missing()));
    }
}
