//! `authorization.toml`: who is in which group and role, where roles may bind, and whether denials count.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// What becomes of a denial.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is logged, and the call is denied.
    #[default]
    Enforce,
    /// It is logged, and the call is let through.
    Monitor,
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// What becomes of denials.
    #[serde(default)]
    pub mode: Mode,
    /// Groups of users, by the names in their certificates.
    #[serde(default)]
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// Roles: users, `group:NAME`, or `local` for everybody at the engine's own socket.
    #[serde(default)]
    pub roles: BTreeMap<String, BTreeSet<String>>,
    /// The folders of the host that a role may bind: each with all that is below it.
    #[serde(default)]
    pub paths: BTreeMap<String, BTreeSet<String>>,
}

/// What is wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// It is no such file.
    #[error("authorization.toml cannot be read: {0}")]
    Syntax(String),
    /// A group is named that is not there.
    #[error(
        "authorization.toml: role `{role}` names the group `{group}`, which is not there: add it under [groups]"
    )]
    Group {
        /// The role.
        role: String,
        /// The group.
        group: String,
    },
    /// A path is not absolute, or not clean.
    #[error(
        "authorization.toml: the path `{path}` of `{role}` must begin with `/` and have no `.`, `..` or `//` in it"
    )]
    Path {
        /// The role.
        role: String,
        /// The path.
        path: String,
    },
}

impl Setup {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is not well formed, or names what is not there.
    pub fn parse(text: &str) -> Result<Self, SetupError> {
        let setup: Self =
            toml::from_str(text).map_err(|error| SetupError::Syntax(error.to_string()))?;
        for (role, members) in &setup.roles {
            for group in members
                .iter()
                .filter_map(|name| name.strip_prefix("group:"))
            {
                if !setup.groups.contains_key(group) {
                    return Err(SetupError::Group {
                        role: role.clone(),
                        group: group.to_owned(),
                    });
                }
            }
        }
        for (role, paths) in &setup.paths {
            for path in paths {
                let clean = path
                    .split('/')
                    .skip(1)
                    .all(|part| !matches!(part, "" | "." | ".."));
                if !path.starts_with('/') || !(clean || path == "/") {
                    return Err(SetupError::Path {
                        role: role.clone(),
                        path: path.clone(),
                    });
                }
            }
        }
        Ok(setup)
    }

    /// The groups of a user.
    pub(crate) fn groups_of(&self, user: &str) -> impl Iterator<Item = &str> {
        let groups = self.groups.iter();
        groups
            .filter(move |(_, members)| members.contains(user))
            .map(|(name, _)| name.as_str())
    }

    /// The roles of a user, by itself or by a group.
    pub(crate) fn roles_of(&self, user: &str) -> Vec<&str> {
        let groups: BTreeSet<&str> = self.groups_of(user).collect();
        let has = |members: &BTreeSet<String>| {
            members
                .iter()
                .any(|member| match member.strip_prefix("group:") {
                    Some(group) => groups.contains(group),
                    None => member == user,
                })
        };
        let roles = self.roles.iter();
        roles
            .filter(|(_, members)| has(members))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// The sets that a path of the host is in.
    pub(crate) fn sets_of(&self, path: &str) -> Vec<&str> {
        let below = |folder: &String| {
            folder == "/"
                || path
                    .strip_prefix(folder.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let sets = self.paths.iter();
        sets.filter(|(_, folders)| folders.iter().any(below))
            .map(|(name, _)| name.as_str())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        [groups]
        developers = ["alice", "bob"]
        [roles]
        admin = ["local"]
        developer = ["group:developers", "carol"]
        [paths]
        ci-runner = ["/srv/ci"]
    "#;

    #[test]
    fn roles_come_by_name_and_by_group() {
        let setup = Setup::parse(FILE).unwrap();
        assert_eq!(setup.mode, Mode::Enforce);
        assert_eq!(setup.roles_of("alice"), ["developer"]);
        assert_eq!(setup.roles_of("carol"), ["developer"]);
        assert_eq!(setup.roles_of("local"), ["admin"]);
        assert!(setup.roles_of("group:developers").is_empty());
        assert_eq!(setup.sets_of("/srv/ci/a"), ["ci-runner"]);
        assert_eq!(setup.sets_of("/srv/ci"), ["ci-runner"]);
        assert!(setup.sets_of("/srv/cia").is_empty());
    }

    #[test]
    fn faults_are_told() {
        for (text, said) in [
            ("mode = \"off\"", "mode"),
            ("[rolse]\na=[]", "rolse"),
            ("[roles]\na=[\"group:x\"]", "`x`"),
            ("[paths]\na=[\"srv\"]", "`srv`"),
            ("[paths]\na=[\"/srv/../etc\"]", "/srv/../etc"),
        ] {
            let error = Setup::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
