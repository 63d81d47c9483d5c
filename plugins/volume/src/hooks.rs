//! Has the programs that use a volume write everything down before a snapshot, by the labels of their containers.
//!
//! | label | what it is |
//! |---|---|
//! | `drover.snapshot.pre` | a command for `sh -c` in the container, before the snapshot |
//! | `drover.snapshot.post` | one after it, always, also when the other failed or the snapshot did |
//! | `drover.snapshot.preset` | `postgres`, `mysql`, `redis` or `sqlite` in the place of both |
//! | `drover.snapshot.timeout` | how many seconds each may take, 1 to 300; 30 otherwise |
//!
//! What comes after is owed from before the first command on ([`owed`]): no kill loses it.

mod command;
pub(crate) mod owed;

use std::collections::BTreeMap;
use std::future::Future;

use drover_engine::{Container, Engine};
use drover_model::VolumeName;
use tracing::{debug, warn};

use crate::error::Result;
use command::{Command, Outcome};
use owed::Owed;

const PRE: &str = "drover.snapshot.pre";
const POST: &str = "drover.snapshot.post";
const PRESET: &str = "drover.snapshot.preset";
const TIMEOUT: &str = "drover.snapshot.timeout";

/// How long a command may take, seconds.
const DEFAULT_TIMEOUT: u64 = 30;
const LONGEST_TIMEOUT: u64 = 300;

/// What the commands of a container are.
#[derive(Debug, PartialEq, Eq)]
struct Hooks {
    pre: Option<Command>,
    post: Option<Command>,
}

/// What came of asking.
#[derive(Debug, Default)]
pub(crate) struct Consistency {
    /// Whether any program was asked.
    pub(crate) asked: bool,
    /// What failed, a sentence each.
    pub(crate) complaints: Vec<String>,
}

impl Consistency {
    fn note(&mut self, label: &str, command: &Command, outcome: &Outcome) {
        let Some(problem) = outcome.problem() else {
            return;
        };
        let container = &command.name;
        warn!(
            container,
            label, problem, "a command around a snapshot failed"
        );
        self.complaints
            .push(format!("`{label}` of container `{container}`: {problem}"));
    }
}

/// Does something between the commands of the containers that use these volumes. The latter command is run whatever came
/// before it; where that is not possible now, later.
pub(crate) async fn around<T>(
    engine: &Engine,
    owed: &Owed,
    volumes: &[VolumeName],
    work: impl Future<Output = Result<T>>,
) -> (Result<T>, Consistency) {
    let mut consistency = Consistency::default();
    let hooks = match find(engine, volumes).await {
        Ok(hooks) => hooks,
        Err(error) => {
            // A snapshot is crash-consistent without anybody being asked.
            debug!(%error, "no container could be asked");
            Vec::new()
        }
    };
    consistency.asked = !hooks.is_empty();
    if consistency.asked {
        // What is owed after an earlier one would undo what is done before this one.
        owed.settle_all(engine).await;
    }
    let after: Vec<&Command> = hooks.iter().filter_map(|it| it.post.as_ref()).collect();
    let keys = match owed.note(&after) {
        Ok(keys) => keys,
        Err(error) => return (Err(error), consistency),
    };
    for command in hooks.iter().filter_map(|it| it.pre.as_ref()) {
        let outcome = command.run(engine).await;
        consistency.note(PRE, command, &outcome);
    }
    let done = work.await;
    for (key, command) in keys.iter().zip(after) {
        let outcome = command.run(engine).await;
        owed.settle(key, command, &outcome);
        consistency.note(POST, command, &outcome);
    }
    (done, consistency)
}

async fn find(
    engine: &Engine,
    volumes: &[VolumeName],
) -> std::result::Result<Vec<Hooks>, drover_engine::Error> {
    let running = engine.running_containers().await?;
    let uses = |container: &Container| {
        let mounts = container.mounts.iter();
        let mut names = mounts.map(|it| it.name.as_str());
        names.any(|name| volumes.iter().any(|volume| volume.as_str() == name))
    };
    let users = running
        .iter()
        .filter(|it| it.state == "running" && uses(it));
    Ok(users.filter_map(hooks).collect())
}

fn hooks(container: &Container) -> Option<Hooks> {
    let labels = &container.labels;
    let label = |name: &str| labels.get(name).filter(|text| !text.trim().is_empty());
    let preset = label(PRESET).map(|name| preset(name.trim(), container));
    let (preset_pre, preset_post) = preset.unwrap_or_default();
    let pre = label(PRE).cloned().or(preset_pre);
    let post = label(POST).cloned().or(preset_post);
    if pre.is_none() && post.is_none() {
        return None;
    }
    let name = container.names.first().map_or("", String::as_str);
    let command = |script: String| Command {
        container: container.id.clone(),
        name: name.trim_start_matches('/').to_owned(),
        script,
        limit: limit(labels),
    };
    Some(Hooks {
        pre: pre.map(command),
        post: post.map(command),
    })
}

/// Seconds.
fn limit(labels: &BTreeMap<String, String>) -> u64 {
    let given = labels
        .get(TIMEOUT)
        .and_then(|text| text.trim().parse().ok());
    given.unwrap_or(DEFAULT_TIMEOUT).clamp(1, LONGEST_TIMEOUT)
}

/// The commands of a preset. Each leaves what it is about in a state that needs no long recovery.
fn preset(name: &str, container: &Container) -> (Option<String>, Option<String>) {
    let both = |pre: &str, post: Option<&str>| (Some(pre.to_owned()), post.map(str::to_owned));
    match name {
        "postgres" => both(
            "psql -X -q -U \"${POSTGRES_USER:-postgres}\" -d \"${POSTGRES_DB:-postgres}\" -c CHECKPOINT",
            None,
        ),
        // InnoDB recovers from any instant; tables of other engines are written down.
        "mysql" => both(
            "MYSQL_PWD=\"$MYSQL_ROOT_PASSWORD\" mysql -u root -e 'FLUSH TABLES; FLUSH ENGINE LOGS'",
            None,
        ),
        "redis" => both("redis-cli SAVE", None),
        "sqlite" => {
            let places = container.mounts.iter().map(|it| quoted(&it.destination));
            let places = places.collect::<Vec<_>>().join(" ");
            // One that fails is told of, as `find -exec` would not.
            let script = format!(
                "find {places} -type f \\( -name '*.db' -o -name '*.sqlite' -o -name '*.sqlite3' \\) -print0 | \
                 xargs -0 -r -n 1 sh -c 'sqlite3 \"$0\" \"PRAGMA wal_checkpoint(TRUNCATE)\"'"
            );
            (Some(script), None)
        }
        other => {
            warn!(
                preset = other,
                "there is no such preset: postgres, mysql, redis, sqlite"
            );
            (None, None)
        }
    }
}

/// As one word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(labels: &[(&str, &str)]) -> Container {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Container {
            id: "a".to_owned(),
            names: vec!["/pg".to_owned()],
            labels: labels.collect(),
            ..Container::default()
        }
    }

    #[test]
    fn a_container_without_labels_is_left_alone() {
        assert_eq!(hooks(&container(&[])), None);
        assert_eq!(hooks(&container(&[(PRESET, "oracle")])), None);
    }

    #[test]
    fn a_label_comes_before_its_preset() {
        let found = hooks(&container(&[(PRESET, "redis"), (POST, "echo done")])).unwrap();
        let (pre, post) = (found.pre.unwrap(), found.post.unwrap());
        assert_eq!(
            (pre.script.as_str(), post.script.as_str()),
            ("redis-cli SAVE", "echo done")
        );
        assert_eq!(pre.name, "pg");
    }

    #[test]
    fn a_limit_is_kept_within_bounds() {
        for (given, seconds) in [("5", 5), ("0", 1), ("9999", 300), ("soon", 30)] {
            let found = hooks(&container(&[(PRE, "true"), (TIMEOUT, given)])).unwrap();
            assert_eq!(found.pre.unwrap().limit, seconds);
        }
    }

    #[test]
    fn a_path_stays_one_word() {
        assert_eq!(quoted("/a b'c"), "'/a b'\\''c'");
    }
}
