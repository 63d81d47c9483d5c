//! The policy in force: read from the policy folder, and anew when it changes. A folder that is not usable changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_policy::{Policy, Source};
use tracing::{error, info};

/// How often is looked whether a file has changed. A change counts when the next look finds nothing new: a file may be under way.
const LOOK: Duration = Duration::from_millis(500);
/// Who is in which role.
const SETUP: &str = "authorization.toml";

/// The policy in force, and what is wrong with what lies in the folder.
#[derive(Debug)]
pub(crate) struct InForce {
    folder: PathBuf,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    policy: Option<Arc<Policy>>,
    fault: Option<String>,
    /// What was read last.
    seen: Vec<Seen>,
    /// What was found changed by the last look, and is not read yet.
    changed: Vec<Seen>,
}

/// A file as it was seen: another one is another row.
type Seen = (PathBuf, u64, i64, i64, u64);

impl InForce {
    /// Reads the folder. Without a usable policy everything is denied.
    pub(crate) fn load(folder: &Path) -> Self {
        let this = Self {
            folder: folder.to_owned(),
            now: Mutex::default(),
        };
        // Nothing is in force yet that could stay in force meanwhile.
        this.now().changed = survey(folder);
        this.look();
        this
    }

    /// The policy, if there is one.
    pub(crate) fn policy(&self) -> Option<Arc<Policy>> {
        self.now().policy.clone()
    }

    /// What is wrong with what lies in the folder.
    pub(crate) fn fault(&self) -> Option<String> {
        self.now().fault.clone()
    }

    fn now(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the folder again if something in it has changed.
    fn look(&self) {
        let seen = survey(&self.folder);
        {
            let mut now = self.now();
            if now.seen == seen && !seen.is_empty() {
                return;
            }
            if now.changed != seen {
                now.changed = seen;
                return;
            }
        }
        let read = read(&self.folder);
        let after = survey(&self.folder);
        let mut now = self.now();
        if after != seen {
            now.changed = after;
            return;
        }
        now.seen = seen;
        match read {
            Ok(policy) => {
                info!(folder = %self.folder.display(), rules = policy.rules(), "policies are in force");
                now.policy = Some(Arc::new(policy));
                now.fault = None;
            }
            Err(fault) if now.fault.as_ref() == Some(&fault) => {}
            Err(fault) => {
                let instead = if now.policy.is_some() {
                    "those from before stay in force"
                } else {
                    "every call is denied"
                };
                error!(folder = %self.folder.display(), "policies are not usable, {instead}: {fault}");
                now.fault = Some(fault);
            }
        }
    }
}

/// Reads the folder whenever it changes.
pub(crate) async fn follow(in_force: Arc<InForce>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let in_force = in_force.clone();
        // Rules are parsed and checked, which takes longer than calls should wait.
        let looked = tokio::task::spawn_blocking(move || in_force.look()).await;
        if looked.is_err() {
            error!("looking at the policies has failed: those from before stay in force");
        }
    }
}

/// The files of a policy folder that count.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "cedar")
        })
        .collect();
    files.sort();
    files
}

fn survey(folder: &Path) -> Vec<Seen> {
    let paths = files(folder).into_iter().chain([folder.join(SETUP)]);
    paths
        .filter_map(|path| {
            let found = fs::metadata(&path).ok()?;
            Some((
                path,
                found.ino(),
                found.mtime(),
                found.mtime_nsec(),
                found.size(),
            ))
        })
        .collect()
}

/// Reads a policy folder.
///
/// # Errors
/// With what is wrong in it, in words.
pub(crate) fn read(folder: &Path) -> Result<Policy, String> {
    let text = |path: &Path| {
        fs::read_to_string(path)
            .map_err(|error| format!("cannot read `{}`: {error}", path.display()))
    };
    let setup = text(&folder.join(SETUP))?;
    let mut sources = Vec::new();
    for path in files(folder) {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        sources.push(Source {
            name,
            text: text(&path)?,
        });
    }
    Policy::load(&setup, &sources).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_policy_leaves_the_old_one_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let setup = folder.path().join(SETUP);
        let in_force = InForce::load(folder.path());
        assert!(in_force.policy().is_none() && in_force.fault().is_some());
        fs::write(&setup, "[roles]\nadmin = [\"local\"]\n").unwrap();
        let look_twice = || {
            in_force.look();
            in_force.look();
        };
        look_twice();
        let first = in_force.policy().unwrap();
        assert_eq!(in_force.fault(), None);
        let site = folder.path().join("site.cedar");
        fs::write(
            &site,
            "permit (principal, action == Action::\"Nothing\", resource);",
        )
        .unwrap();
        look_twice();
        assert!(Arc::ptr_eq(&in_force.policy().unwrap(), &first));
        assert!(in_force.fault().unwrap().contains("Nothing"));
        fs::write(
            &site,
            "permit (principal, action == Action::\"SystemPing\", resource);",
        )
        .unwrap();
        look_twice();
        assert_eq!(in_force.policy().unwrap().rules(), first.rules() + 1);
        assert_eq!(in_force.fault(), None);
        fs::remove_file(&setup).unwrap();
        look_twice();
        assert!(in_force.policy().is_some() && in_force.fault().is_some());
    }

    #[test]
    fn a_file_that_is_being_written_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at(SETUP), "[roles]\nadmin = [\"local\"]\n").unwrap();
        let in_force = InForce::load(folder.path());
        let first = in_force.policy().unwrap();
        let rule = "permit (principal, action == Action::\"SystemPing\", resource);\n";
        for count in 1..4 {
            fs::write(at("site.cedar"), rule.repeat(count)).unwrap();
            in_force.look();
            assert!(Arc::ptr_eq(&in_force.policy().unwrap(), &first), "{count}");
        }
        in_force.look();
        assert_eq!(in_force.policy().unwrap().rules(), first.rules() + 3);
    }
}
