//! `drover volume`, `drover snapshot`: volumes and their snapshots.

use std::time::Duration;

use drover_control_api::Method;
use drover_control_api::catalogue::{Catalogue, CatalogueTable};
use drover_control_api::volume::{
    CompareSnapshot, CreateSnapshot, MountSnapshot, PauseVolume, RemoveSnapshot, ResizeVolume,
    RestoreTrash, RollBack, SnapshotProject, Snapshots, Volumes,
};
use drover_daemon::{Exit, Settings};
use drover_model::VolumeName;
use drover_volumes::options::SnapshotSelector;

use crate::arguments::{
    ProjectCommand, SnapshotArguments, SnapshotCommand, VolumeArguments, VolumeCommand,
};
use crate::ask::{CommandError, LIMIT, ask};
use crate::output;
use crate::process::Process;
use crate::view::catalogue::{EverySnapshotView, EveryVolumeView};
use crate::view::show;
use crate::view::volumes::{DifferenceView, SnapshotsView, VolumeView, VolumesView};

/// How long a change may take: programs in containers are asked first, each for at most five minutes.
const CHANGE: Duration = Duration::from_secs(900);

/// Does what was asked of volumes.
pub(crate) async fn run(settings: &Settings, command: VolumeCommand) -> Result<(), CommandError> {
    match command {
        VolumeCommand::Ls(ls) if ls.all => {
            let table = catalogue(settings, None).await?;
            show(&EveryVolumeView::new(table, ls.trash), ls.form.json);
        }
        VolumeCommand::Ls(ls) => {
            let (name, removed) = (None, ls.trash);
            let table = tell(settings, &Volumes { name, removed }).await?;
            show(&VolumesView::new(table), ls.form.json);
        }
        VolumeCommand::Inspect(asked) => inspect(settings, asked).await?,
        VolumeCommand::Resize(asked) => {
            let (volume, size) = (asked.volume, asked.size);
            let entry = tell(settings, &ResizeVolume { volume, size }).await?;
            show(&VolumeView(entry), asked.form.json);
        }
        VolumeCommand::RestoreTrash(asked) => {
            let (volume, new_name) = (asked.volume, asked.new_name);
            let entry = tell(settings, &RestoreTrash { volume, new_name }).await?;
            show(&VolumeView(entry), asked.form.json);
        }
        VolumeCommand::Pause(asked) => pause(settings, asked, true).await?,
        VolumeCommand::Resume(asked) => pause(settings, asked, false).await?,
        VolumeCommand::Snapshot(command) => snapshot(settings, command).await?,
    }
    Ok(())
}

async fn tell<M: Method>(settings: &Settings, request: &M) -> Result<M::Answer, CommandError> {
    ask(settings, Process::Volumes, request, CHANGE).await
}

/// What the coordinator knows of the volumes of all hosts.
pub(crate) async fn catalogue(
    settings: &Settings,
    volume: Option<VolumeName>,
) -> Result<CatalogueTable, CommandError> {
    ask(settings, Process::Coordinator, &Catalogue { volume }, LIMIT).await
}

async fn inspect(settings: &Settings, asked: VolumeArguments) -> Result<(), CommandError> {
    let name = asked.volume.clone();
    let request = Volumes {
        name: Some(name.clone()),
        removed: false,
    };
    let table = tell(settings, &request).await?;
    let Some(entry) = table.volumes.into_iter().next() else {
        return Err(CommandError::refused(format!(
            "there is no volume `{name}`"
        )));
    };
    show(&VolumeView(entry), asked.form.json);
    Ok(())
}

async fn pause(
    settings: &Settings,
    asked: VolumeArguments,
    paused: bool,
) -> Result<(), CommandError> {
    let volume = asked.volume;
    let entry = tell(settings, &PauseVolume { volume, paused }).await?;
    show(&VolumeView(entry), asked.form.json);
    Ok(())
}

async fn snapshot(settings: &Settings, command: SnapshotCommand) -> Result<(), CommandError> {
    match command {
        SnapshotCommand::Create(asked) => {
            let request = create(asked.snapshots)?;
            let table = tell(settings, &request).await?;
            show(&SnapshotsView::new(table), asked.form.json);
        }
        SnapshotCommand::Ls(asked) if asked.all => {
            let table = catalogue(settings, asked.volume).await?;
            show(&EverySnapshotView::new(table), asked.form.json);
        }
        SnapshotCommand::Ls(asked) => {
            let volume = asked.volume;
            let table = tell(settings, &Snapshots { volume }).await?;
            show(&SnapshotsView::new(table), asked.form.json);
        }
        SnapshotCommand::Rm(asked) => {
            let SnapshotSelector { volume, snapshot } = asked.snapshot;
            let done = tell(settings, &RemoveSnapshot { volume, snapshot }).await?;
            if asked.form.json {
                output::json(&done);
            }
        }
        SnapshotCommand::Diff(asked) => {
            let SnapshotSelector { volume, snapshot } = asked.snapshot;
            let request = CompareSnapshot {
                volume,
                snapshot,
                with: asked.with,
            };
            let differences = tell(settings, &request).await?;
            show(&DifferenceView(differences), asked.form.json);
        }
        SnapshotCommand::Mount(asked) => mount(settings, asked, true).await?,
        SnapshotCommand::Umount(asked) => mount(settings, asked, false).await?,
        SnapshotCommand::Rollback(asked) => {
            let SnapshotSelector { volume, snapshot } = asked.snapshot;
            let entry = tell(settings, &RollBack { volume, snapshot }).await?;
            show(&VolumeView(entry), asked.form.json);
        }
    }
    Ok(())
}

/// Snapshots of one instant have one name.
fn create(selectors: Vec<SnapshotSelector>) -> Result<CreateSnapshot, CommandError> {
    let usage = |sentence: String| CommandError::Other {
        sentence,
        code: Exit::Usage.code(),
    };
    let mut volumes: Vec<VolumeName> = Vec::new();
    let mut name = None;
    for selector in selectors {
        let first = name.get_or_insert_with(|| selector.snapshot.clone());
        if *first != selector.snapshot {
            return Err(usage(format!(
                "snapshots that are taken together have one name: `{first}` or `{}`",
                selector.snapshot
            )));
        }
        volumes.push(selector.volume);
    }
    let name = name.ok_or_else(|| usage("no volume was named".to_owned()))?;
    Ok(CreateSnapshot { volumes, name })
}

async fn mount(
    settings: &Settings,
    asked: SnapshotArguments,
    mounted: bool,
) -> Result<(), CommandError> {
    let SnapshotSelector { volume, snapshot } = asked.snapshot;
    let request = MountSnapshot {
        volume,
        snapshot,
        mounted,
    };
    let entry = tell(settings, &request).await?;
    if asked.form.json {
        output::json(&entry);
    } else if let Some(at) = &entry.mount_point {
        output::line(&at.display().to_string());
    }
    Ok(())
}

/// Takes snapshots of a project's volumes.
pub(crate) async fn snapshot_project(
    settings: &Settings,
    command: ProjectCommand,
) -> Result<(), CommandError> {
    let ProjectCommand::Project(asked) = command;
    let (project, name) = (asked.project, asked.name);
    let table = tell(settings, &SnapshotProject { project, name }).await?;
    show(&SnapshotsView::new(table), asked.form.json);
    Ok(())
}
