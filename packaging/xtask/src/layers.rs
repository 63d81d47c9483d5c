//! Which crate may know which.
//!
//! Libraries have a height; each may depend only on lower ones. Programs in `plugins/` are above all
//! libraries and do not know each other. Pure crates decide and never act: nothing that they link, however far
//! down, may open a file or a socket or know the time.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The libraries and their heights. A new one is put in here on purpose.
const HEIGHTS: &[(&str, u8)] = &[
    ("drover-model", 0),
    ("drover-authorization", 1),
    ("drover-backup-protocol", 0),
    ("drover-control-api", 1),
    ("drover-ipsec", 1),
    ("drover-lvm-protocol", 1),
    ("drover-plugin-protocol", 1),
    ("drover-thin-metadata", 1),
    ("drover-allocation", 2),
    ("drover-names", 2),
    ("drover-overlay", 2),
    ("drover-volumes", 2),
    ("drover-policy", 2),
    ("drover-daemon", 3),
    ("drover-http", 3),
    ("drover-pki", 3),
    ("drover-storage", 3),
    ("drover-store", 3),
    ("drover-xfrm", 3),
    ("lvm2-sys", 3),
    ("drover-engine", 4),
    ("drover-kernel", 4),
    ("drover-plugin-host", 4),
    ("drover-testkit", 5),
];

/// The height up to which libraries are pure.
const PURE: u8 = 2;

/// What no pure crate may link.
const EFFECTS: &[&str] = &[
    "etcd-client",
    "getrandom",
    "hyper",
    "hyper-util",
    "mio",
    "nix",
    "redb",
    "rtnetlink",
    "rustls",
    "socket2",
    "tempfile",
    "tokio",
    "tracing-subscriber",
];

/// Arrows that are there only because cargo unites the features that members ask for. Without another member
/// `drover-names` links `rand` as `hickory-proto` asks for it: with no source of random numbers. Packages are known by name
/// here, and of `rand_core` it is an older one, of backups and policies, that has such a source.
const UNITED: &[(&str, &str)] = &[("rand", "getrandom"), ("rand_core", "getrandom")];

/// The crates of the workspace, and what each is linked with.
struct Workspace {
    /// Where each member lies, by name.
    members: BTreeMap<String, String>,
    /// What each package depends on, by name; development dependencies are left out.
    edges: BTreeMap<String, BTreeSet<String>>,
}

/// Finds every arrow that does not point down.
pub(crate) fn check() -> Result<Vec<String>> {
    let workspace = Workspace::read(&metadata()?)?;
    Ok(workspace.faults())
}

fn metadata() -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // What a package links on other systems is not linked here.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let done = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", &platform])
        .output()
        .context("starting cargo metadata")?;
    ensure!(
        done.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    serde_json::from_slice(&done.stdout).context("the answer of cargo metadata")
}

impl Workspace {
    fn read(metadata: &Value) -> Result<Self> {
        let root = text(metadata, "workspace_root");
        let ids: BTreeSet<&str> = list(metadata, "workspace_members")
            .filter_map(Value::as_str)
            .collect();
        let mut names = BTreeMap::new();
        let mut members = BTreeMap::new();
        for package in list(metadata, "packages") {
            let (id, name) = (text(package, "id"), text(package, "name"));
            names.insert(id, name);
            if ids.contains(id) {
                let path = text(package, "manifest_path")
                    .trim_start_matches(root)
                    .trim_start_matches('/');
                members.insert(name.to_owned(), path.to_owned());
            }
        }
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let resolve = metadata.get("resolve").context("no resolved graph")?;
        for node in list(resolve, "nodes") {
            let name = names
                .get(text(node, "id"))
                .context("a node without a package")?;
            let linked = edges.entry((*name).to_owned()).or_default();
            for dependency in list(node, "deps") {
                let is_linked =
                    list(dependency, "dep_kinds").any(|kind| text(kind, "kind") != "dev");
                if let (true, Some(name)) = (is_linked, names.get(text(dependency, "pkg"))) {
                    linked.insert((*name).to_owned());
                }
            }
        }
        ensure!(!members.is_empty(), "the workspace has no members");
        Ok(Self { members, edges })
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (member, path) in &self.members {
            if path.starts_with("shared/") {
                faults.extend(self.faults_of_library(member));
            } else if path.starts_with("plugins/") {
                faults.extend(self.faults_of_program(member));
            }
        }
        faults
    }

    fn faults_of_library(&self, library: &str) -> Vec<String> {
        let Some(height) = height(library) else {
            return vec![format!(
                "{library} has no height: give it one in packaging/xtask/src/layers.rs"
            )];
        };
        let mut faults = Vec::new();
        for other in self
            .linked(library)
            .filter(|other| self.members.contains_key(*other))
        {
            if height_of_member(other) >= height {
                faults.push(format!(
                    "{library} (height {height}) depends on {other}, which is not lower"
                ));
            }
        }
        if height <= PURE {
            let reached = self.reached(library);
            for effect in EFFECTS.iter().filter(|effect| reached.contains(**effect)) {
                faults.push(format!("{library} is pure, and yet links {effect}"));
            }
        }
        faults
    }

    fn faults_of_program(&self, program: &str) -> Vec<String> {
        self.linked(program)
            .filter(|other| {
                self.members
                    .get(*other)
                    .is_some_and(|path| !path.starts_with("shared/"))
            })
            .map(|other| format!("{program} depends on {other}, which is no library"))
            .collect()
    }

    fn linked(&self, package: &str) -> impl Iterator<Item = &str> {
        self.edges
            .get(package)
            .into_iter()
            .flatten()
            .map(String::as_str)
    }

    fn reached(&self, package: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut open = vec![package.to_owned()];
        while let Some(next) = open.pop() {
            let linked = self.linked(&next);
            for other in linked.filter(|other| !UNITED.contains(&(next.as_str(), *other))) {
                if reached.insert(other.to_owned()) {
                    open.push(other.to_owned());
                }
            }
        }
        reached
    }
}

fn height(library: &str) -> Option<u8> {
    HEIGHTS
        .iter()
        .find(|(name, _)| *name == library)
        .map(|(_, height)| *height)
}

/// The height of a library; programs are above all of them.
fn height_of_member(member: &str) -> u8 {
    height(member).unwrap_or(u8::MAX)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value
        .get(field)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace in which each package depends on those listed.
    fn workspace(members: &[(&str, &str)], edges: &[(&str, &[&str])]) -> Workspace {
        Workspace {
            members: members
                .iter()
                .map(|(name, path)| ((*name).to_owned(), (*path).to_owned()))
                .collect(),
            edges: edges
                .iter()
                .map(|(name, others)| {
                    (
                        (*name).to_owned(),
                        others.iter().map(|other| (*other).to_owned()).collect(),
                    )
                })
                .collect(),
        }
    }

    const LIBRARIES: &[(&str, &str)] = &[
        ("drover-model", "shared/model/Cargo.toml"),
        ("drover-overlay", "shared/overlay/Cargo.toml"),
        ("drover-kernel", "shared/kernel/Cargo.toml"),
        ("drover-net", "plugins/network/Cargo.toml"),
        ("drover-ipam", "plugins/ipam/Cargo.toml"),
    ];

    #[test]
    fn arrows_that_point_down_are_fine() {
        let good = workspace(
            LIBRARIES,
            &[
                ("drover-overlay", &["drover-model", "serde"]),
                ("drover-kernel", &["drover-overlay", "nix"]),
                ("drover-net", &["drover-kernel", "tokio"]),
            ],
        );
        assert_eq!(good.faults(), Vec::<String>::new());
    }

    #[test]
    fn arrows_that_point_up_are_found() {
        for (from, to) in [
            ("drover-model", "drover-overlay"),
            ("drover-overlay", "drover-kernel"),
            ("drover-kernel", "drover-net"),
            ("drover-net", "drover-ipam"),
        ] {
            let faults = workspace(LIBRARIES, &[(from, &[to])]).faults();
            assert_eq!(faults.len(), 1, "{from} -> {to}: {faults:?}");
        }
    }

    #[test]
    fn an_effect_far_below_a_pure_crate_is_found() {
        let faults = workspace(
            LIBRARIES,
            &[("drover-overlay", &["middle"]), ("middle", &["tokio"])],
        )
        .faults();
        assert_eq!(faults, ["drover-overlay is pure, and yet links tokio"]);
    }

    #[test]
    fn a_library_without_a_height_is_found() {
        let faults = workspace(&[("drover-new", "shared/new/Cargo.toml")], &[]).faults();
        assert!(
            faults
                .iter()
                .any(|fault| fault.contains("drover-new has no height")),
            "{faults:?}"
        );
    }
}
