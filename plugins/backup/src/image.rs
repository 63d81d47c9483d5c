//! The image of a device, mounted for as long as something is copied out of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use drover_backup_protocol::FailureKind;

use crate::failure::{Result, failure, internal, unwritable};

/// A scratch image; dropped, it is unmounted and removed.
#[derive(Debug)]
pub(crate) struct Image {
    folder: PathBuf,
    image: PathBuf,
    mount: PathBuf,
    mounted: std::cell::Cell<bool>,
}

impl Image {
    /// A place for an image, on the file system of a folder.
    pub(crate) fn beside(folder: &Path) -> Result<Self> {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(internal)?;
        let number = u32::from_le_bytes(random);
        let folder = folder.join(format!(".drover-restore-{number:08x}"));
        let mount = folder.join("mount");
        std::fs::create_dir_all(&mount).map_err(|error| unwritable(&mount, &error))?;
        Ok(Self {
            image: folder.join("image"),
            folder,
            mount,
            mounted: std::cell::Cell::new(false),
        })
    }

    /// Where the image is to be written.
    pub(crate) fn path(&self) -> &Path {
        &self.image
    }

    /// Mounts the image and copies a path out of it; gives how many files and bytes.
    pub(crate) fn copy_out(&self, inner: &Path, path: &Path) -> Result<(u64, u64)> {
        self.mount()?;
        let from = self.mount.join(inner);
        // The last component may be a link, which is copied as one; those before it may not lead out.
        let parent = from.parent().unwrap_or(&self.mount);
        let resolved = parent.canonicalize().ok();
        let mount = self.mount.canonicalize().map_err(internal)?;
        let inside = resolved.is_some_and(|parent| parent.starts_with(&mount));
        if !inside || from.symlink_metadata().is_err() {
            let message = format!("there is no `{}` in the backup", inner.display());
            return Err(failure(FailureKind::NotFound, message));
        }
        run(Command::new("cp")
            .args([
                "--archive",
                "--sparse=always",
                "--no-target-directory",
                "--",
            ])
            .arg(&from)
            .arg(path))?;
        count(path).map_err(|error| unwritable(path, &error))
    }

    fn mount(&self) -> Result<()> {
        // After a crash the journal has to be replayed, which only a mount that may write does; the image is ours.
        run(Command::new("mount")
            .args(["-o", "loop,nosuid,nodev,noexec"])
            .arg(&self.image)
            .arg(&self.mount))?;
        self.mounted.set(true);
        Ok(())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.mounted.get() && run(Command::new("umount").arg(&self.mount)).is_err() {
            // Nothing beneath it may be removed now.
            return;
        }
        if std::fs::remove_dir_all(&self.folder).is_err() {
            // It is a folder too many, whose name tells whose it is.
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.output().map_err(|error| {
        failure(
            FailureKind::Source,
            format!("starting `{program}`: {error}"),
        )
    })?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(failure(
        FailureKind::Source,
        format!("`{program}` failed: {said}"),
    ))
}

fn count(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = path.symlink_metadata()?;
    if !metadata.is_dir() {
        return Ok((1, metadata.len()));
    }
    let (mut files, mut bytes) = (0, 0);
    for entry in path.read_dir()? {
        let (more, long) = count(&entry?.path())?;
        files += more;
        bytes += long;
    }
    Ok((files, bytes))
}
