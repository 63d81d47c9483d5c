//! What was told last, on the disk: a process that begins while the coordinator is away answers from it.
//!
//! It is written now and then, and whole or not at all; what it lacks, the registry tells. A file that cannot
//! be read is as good as none.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use drover_control_api::record::UnixSeconds;
use drover_control_api::registry::RegistryEvent;
use tracing::{info, warn};

use crate::known::Known;

/// How often it is written, if something has changed.
const SPAN: Duration = Duration::from_secs(10);

/// Reads what was written last.
pub(crate) fn recall(file: &Path, known: &Known) {
    match read(file) {
        Ok(Some((events, since))) => {
            let count = events.len();
            known.recall(events, since);
            info!(events = count, "remembers what was told last");
        }
        Ok(None) => {}
        Err(error) => warn!("cannot remember what was told last: {error:#}"),
    }
}

/// Writes what is known for ever.
pub(crate) async fn keep(file: PathBuf, known: Arc<Known>) {
    let mut written = known.changes();
    let mut ticks = tokio::time::interval(SPAN);
    loop {
        ticks.tick().await;
        let changes = known.changes();
        if changes == written || !known.is_followed() {
            continue;
        }
        let (file, known) = (file.clone(), known.clone());
        let kept = tokio::task::spawn_blocking(move || write(&file, &known)).await;
        match kept.map_err(anyhow::Error::new).and_then(|kept| kept) {
            Ok(()) => written = changes,
            Err(error) => warn!("cannot keep what was told: {error:#}"),
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Option<(Vec<RegistryEvent>, UnixSeconds)>> {
    let opened = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(|| format!("cannot open `{}`", file.display()))?,
    };
    let written = opened.metadata().and_then(|found| found.modified());
    let written = written.context("it has no time")?;
    let since = written.duration_since(SystemTime::UNIX_EPOCH);
    let mut events = Vec::new();
    for line in BufReader::new(opened).lines() {
        let line = line.with_context(|| format!("cannot read `{}`", file.display()))?;
        let event = serde_json::from_str(&line);
        events.push(event.with_context(|| format!("`{}` is damaged", file.display()))?);
    }
    Ok(Some((events, since.unwrap_or_default().as_secs())))
}

fn write(file: &Path, known: &Known) -> anyhow::Result<()> {
    // Written down without holding up those who ask.
    let events: Vec<RegistryEvent> = known.read(|directory| directory.events().collect());
    let folder = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let under_way = file.with_extension("new");
    let failed = || format!("cannot write `{}`", under_way.display());
    let mut out = BufWriter::new(File::create(&under_way).with_context(failed)?);
    for event in events {
        serde_json::to_writer(&mut out, &event).with_context(failed)?;
        out.write_all(b"\n").with_context(failed)?;
    }
    let out = out.into_inner().map_err(io::IntoInnerError::into_error);
    out.and_then(|out| out.sync_all()).with_context(failed)?;
    fs::rename(&under_way, file).with_context(|| format!("cannot write `{}`", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_remembered_and_marked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state/names.ndjson");
        let told = [
            r#"{"event":"reset","this_host":"a"}"#,
            r#"{"event":"host","name":"a","member":"m","alive":true}"#,
            r#"{"event":"synced"}"#,
        ];
        let known = Known::new();
        for line in told {
            known.apply(serde_json::from_str(line).unwrap());
        }
        write(&file, &known).unwrap();
        let again = Known::new();
        recall(&file, &again);
        assert!(!again.is_followed());
        again.read(|directory| {
            assert_eq!(directory.this_host().unwrap().as_str(), "a");
            assert!(directory.is_complete() && directory.stale_since().is_some());
        });
        fs::write(&file, "damaged").unwrap();
        let nothing = Known::new();
        recall(&file, &nothing);
        nothing.read(|directory| assert!(directory.this_host().is_none()));
    }
}
