//! What sockets there are to be: a file each in the folder `sockets` of the policy folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};
use serde::Deserialize;

use crate::identity;

/// The folder of the files, in the policy folder.
const FOLDER: &str = "sockets";
/// The longest path of a socket: `sun_path` of unix(7) has room for 107 bytes, and the socket is bound under a longer name first.
const LONGEST_PATH: usize = 100;

/// A socket, as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SocketSettings {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The role of whoever comes by it.
    pub(crate) role: String,
    /// Who that is; `socket:ROLE` when nobody is named.
    pub(crate) user: Option<String>,
    /// Whose file it is: a name or a number.
    pub(crate) owner: Option<String>,
    /// The group of the file: a name or a number.
    pub(crate) group: Option<String>,
    /// Its mode, octal; `0660` when a group is named, else `0600`.
    pub(crate) mode: Option<String>,
    /// Whether denials are logged alone. Not by `mode` in `authorization.toml`: a socket is made to hold somebody back.
    #[serde(default)]
    pub(crate) monitor: bool,
}

impl SocketSettings {
    /// Reads a file's text.
    ///
    /// # Errors
    /// With what is wrong with it, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let settings: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        settings.check()?;
        Ok(settings)
    }

    /// Whether it can be served.
    pub(crate) fn check(&self) -> Result<(), String> {
        let path = self.path.display();
        let clean = self
            .path
            .components()
            .all(|part| !matches!(part, std::path::Component::ParentDir));
        if !self.path.is_absolute() || !clean || self.path.file_name().is_none() {
            return Err(format!("the path `{path}` is not absolute and clean"));
        }
        if self.path.as_os_str().len() > LONGEST_PATH {
            return Err(format!(
                "the path `{path}` is longer than {LONGEST_PATH} bytes"
            ));
        }
        let plain = |text: &str| {
            !text.is_empty() && !text.contains(|c: char| c.is_control() || c == '"' || c == '\\')
        };
        if !plain(&path.to_string()) || !plain(&self.role) {
            return Err(format!(
                "the path `{path}` or the role `{}` has a character that is not used there",
                self.role.escape_debug()
            ));
        }
        if let Some(user) = &self.user {
            if !plain(user) {
                return Err(format!("the user `{}` is no name", user.escape_debug()));
            }
            identity::check(user)?;
        }
        self.mode()?;
        self.owner_id()?;
        self.group_id()?;
        Ok(())
    }

    /// The name of whoever comes by it.
    pub(crate) fn user_name(&self) -> String {
        let own = || format!("{}{}", identity::SOCKET, self.role);
        self.user.clone().unwrap_or_else(own)
    }

    /// The mode of its file.
    pub(crate) fn mode(&self) -> Result<u32, String> {
        let Some(mode) = &self.mode else {
            return Ok(if self.group.is_some() { 0o660 } else { 0o600 });
        };
        u32::from_str_radix(mode, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| format!("the mode `{mode}` is not one such as 0660"))
    }

    /// The owner of its file.
    pub(crate) fn owner_id(&self) -> Result<Option<u32>, String> {
        let found = |name: &str| {
            let user = User::from_name(name).ok().flatten();
            user.map(|user| user.uid.as_raw())
        };
        id(self.owner.as_deref(), "user", found)
    }

    /// The group of its file.
    pub(crate) fn group_id(&self) -> Result<Option<u32>, String> {
        let found = |name: &str| {
            let group = Group::from_name(name).ok().flatten();
            group.map(|group| group.gid.as_raw())
        };
        id(self.group.as_deref(), "group", found)
    }

    /// The text of its file.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "path = \"{}\"\nrole = \"{}\"\n",
            self.path.display(),
            self.role
        );
        let rest = [
            ("user", &self.user),
            ("owner", &self.owner),
            ("group", &self.group),
            ("mode", &self.mode),
        ];
        for (key, value) in rest {
            if let Some(value) = value {
                text.push_str(&format!("{key} = \"{value}\"\n"));
            }
        }
        if self.monitor {
            text.push_str("monitor = true\n");
        }
        text
    }
}

/// A number, or the number of a name.
fn id(
    name: Option<&str>,
    kind: &str,
    find: impl Fn(&str) -> Option<u32>,
) -> Result<Option<u32>, String> {
    let Some(name) = name else {
        return Ok(None);
    };
    let number = name.parse::<u32>().ok().or_else(|| find(name));
    number
        .map(Some)
        .ok_or_else(|| format!("there is no {kind} `{}` on this host", name.escape_debug()))
}

/// The file of a socket.
pub(crate) fn file(policy_dir: &Path, socket: &Path) -> PathBuf {
    let name = socket.to_string_lossy();
    let name = name.trim_start_matches('/').replace('/', "-");
    policy_dir.join(FOLDER).join(format!("{name}.toml"))
}

/// A file, and what it says; or what is wrong with it.
pub(crate) type File = (PathBuf, Result<SocketSettings, String>);

/// What the files say, each with its path; or why one of them, or the folder, cannot be read.
pub(crate) fn read(policy_dir: &Path) -> Result<Vec<File>, String> {
    let folder = policy_dir.join(FOLDER);
    let failed = |error: io::Error| format!("cannot read `{}`: {error}", folder.display());
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
    }
    files.sort();
    let read = |path: PathBuf| {
        let settings = fs::read_to_string(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| SocketSettings::parse(&text))
            .map_err(|fault| format!("`{}`: {}", path.display(), fault.trim_end()));
        (path, settings)
    };
    Ok(files.into_iter().map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let text = "path = \"/run/drover-sockets/traefik/docker.sock\"\nrole = \"traefik-reader\"\nuser = \"proxy\"\n\
                    owner = \"0\"\ngroup = \"root\"\nmode = \"0640\"\nmonitor = true\n";
        let settings = SocketSettings::parse(text).unwrap();
        assert_eq!(settings.text(), text);
        assert_eq!(settings.mode(), Ok(0o640));
        assert_eq!(settings.group_id(), Ok(Some(0)));
        assert_eq!(settings.user_name(), "proxy");
        let plain = SocketSettings::parse("path = \"/a/b\"\nrole = \"reader\"\n").unwrap();
        assert_eq!(plain.user_name(), "socket:reader");
        assert_eq!((plain.mode(), plain.owner_id()), (Ok(0o600), Ok(None)));
    }

    #[test]
    fn faults_are_told() {
        let long = format!("path = \"/{}\"\nrole = \"a\"", "x".repeat(110));
        for (text, said) in [
            ("path = \"run/x\"\nrole = \"a\"", "run/x"),
            ("path = \"/run/../x\"\nrole = \"a\"", "/run/../x"),
            ("path = \"/x\"\nrole = \"\"", "role"),
            ("path = \"/x\"\nrole = \"a\"\nuser = \"local\"", "local"),
            (
                "path = \"/x\"\nrole = \"a\"\nuser = \"socket:admin\"",
                "socket:admin",
            ),
            ("path = \"/x\"\nrole = \"a\"\nmode = \"999\"", "999"),
            (
                "path = \"/x\"\nrole = \"a\"\ngroup = \"no-such-group\"",
                "no-such-group",
            ),
            ("path = \"/x\"\nrole = \"a\"\nrolle = \"b\"", "rolle"),
            (long.as_str(), "longer"),
        ] {
            let fault = SocketSettings::parse(text).unwrap_err();
            assert!(fault.contains(said), "{text}: {fault}");
        }
    }
}
