//! Where the backups of a volume are, when only its name is given: the cluster's catalogue knows what each host has backed up.

use std::collections::BTreeMap;
use std::time::Duration;

use drover_backup_protocol::{FailureKind, Selector};
use drover_control_api::catalogue::{Catalogue, HostBackup, Presence};
use drover_http::control;
use drover_volumes::VolumeOptions;
use drover_volumes::options::BackupSource;
use tracing::info;

use super::Work;
use crate::clock::rfc3339;
use crate::error::{Error, Result};

/// How long the coordinator may take to answer.
const ASKING: Duration = Duration::from_secs(5);
/// How much of a backup's id names it.
const SHORT: usize = 8;

/// What a new volume is restored from.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The backup in its repository.
    pub(super) selector: Selector,
    /// What the catalogue says of it; `None` where the options say where it is.
    listed: Option<HostBackup>,
}

impl Wanted {
    /// A failure, with what would help if the place is not what it is on the host that has made the backup.
    pub(super) fn explain(&self, error: Error) -> Error {
        match (&self.listed, error) {
            (Some(listed), Error::Backup(mut failure))
                if failure.kind == FailureKind::NoRepository =>
            {
                let (host, to) = (&listed.host, &listed.backup.to);
                let help = if to.contains("://") {
                    "what the target needs may be missing: give `backup-options-file`"
                } else {
                    "share or copy that directory to the same place here, or say where it is with `backup-to`"
                };
                let where_it_is = format!(": it is where host `{host}` has backed up to; {help}");
                failure.message.push_str(&where_it_is);
                Error::Backup(failure)
            }
            (_, error) => error,
        }
    }
}

impl Work {
    /// The options with what the settings say where the options do not.
    pub(super) fn with_settings(
        &self,
        given: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let mut options = given.clone();
        if given.contains_key("backup-to") || given.contains_key("from-backup") {
            let files = [
                ("backup-password-file", &self.backup_password_file),
                ("backup-options-file", &self.backup_options_file),
            ];
            for (name, file) in files {
                if let Some(file) = file
                    && !options.contains_key(name)
                {
                    options.insert(name.to_owned(), file.display().to_string());
                }
            }
        }
        options
    }

    /// The backup that a new volume is made of, if it is of one. Where the options do not say which repository it is in, the catalogue
    /// does, and the options say so from now on.
    pub(super) async fn wanted_backup(
        &self,
        options: &mut VolumeOptions,
    ) -> Result<Option<Wanted>> {
        let Some(source) = options.from_backup.clone() else {
            return Ok(None);
        };
        if options.backup_to.is_some() {
            return Ok(Some(Wanted {
                selector: selector(&source, None),
                listed: None,
            }));
        }
        let listed = choose(&source, self.listed_backups(&source).await?)?;
        let to = listed.backup.to.clone();
        if options.backup_password_file.is_none() {
            let host = &listed.host;
            return Err(Error::Invalid(format!(
                "the backups of `{}` by host `{host}` are in `{to}`, and its password is not known here: give \
                 `backup-password-file`, a file on this host, or set `volumes.backup_password_file`",
                source.volume
            )));
        }
        info!(volume = %source.volume, host = %listed.host, repository = to, "its backups were looked up in the catalogue");
        options.backup_to = Some(to);
        Ok(Some(Wanted {
            selector: selector(&source, Some(listed.backup.by.clone())),
            listed: Some(listed),
        }))
    }

    async fn listed_backups(&self, source: &BackupSource) -> Result<Vec<HostBackup>> {
        let asked = Catalogue {
            volume: Some(source.volume.clone()),
        };
        let answer = control::call(&self.coordinator, &asked, ASKING).await;
        let table = answer.map_err(|error| {
            let reason = drover_control_api::Failure::from(error).message;
            Error::Unavailable(format!(
                "where the backups of `{}` are is not known, as the coordinator does not say ({reason}): give `backup-to`",
                source.volume
            ))
        })?;
        Ok(table.backups)
    }
}

fn selector(wanted: &BackupSource, host: Option<String>) -> Selector {
    Selector {
        volume: wanted.volume.to_string(),
        when: wanted.when.clone(),
        host,
    }
}

/// The one place that a backup can be meant to be in. Whose backup is meant is not guessed.
fn choose(source: &BackupSource, listed: Vec<HostBackup>) -> Result<HostBackup> {
    let by_id = source.when.as_ref().and_then(|when| {
        let mut named = listed.iter().filter(|it| it.backup.id.starts_with(when));
        named.next().filter(|_| named.next().is_none())
    });
    match (by_id, listed.as_slice()) {
        (Some(named), _) => Ok(named.clone()),
        (None, [one]) => Ok(one.clone()),
        (None, []) => Err(Error::Invalid(format!(
            "no host of the cluster has backed up a volume `{}`: `drover backup ls --all` lists what there is; of a repository that \
             the cluster does not know, give `backup-to`",
            source.volume
        ))),
        (None, several) => Err(Error::Invalid(ambiguous(source, several))),
    }
}

fn ambiguous(source: &BackupSource, listed: &[HostBackup]) -> String {
    let choices = listed.iter().map(|it| {
        let id = it.backup.id.get(..SHORT).unwrap_or(&it.backup.id);
        let presence = match it.presence {
            Presence::Present => "",
            Presence::Away => ", which is away",
            Presence::Removed => ", which was removed",
        };
        let taken = rfc3339(it.backup.taken_at).unwrap_or_default();
        format!(
            "`{}@{id}` by host `{}`{presence} in `{}` of {taken}",
            source.volume, it.host, it.backup.to
        )
    });
    let choices: Vec<String> = choices.collect();
    format!(
        "there are backups of volumes `{}` of several hosts or in several repositories: say which with `from-backup`, or the repository \
         with `backup-to`: {}",
        source.volume,
        choices.join("; ")
    )
}

#[cfg(test)]
mod tests;
