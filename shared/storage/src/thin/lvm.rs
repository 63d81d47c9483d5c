//! Commands of LVM on one volume group, and what their failures mean.

use std::path::Path;

use drover_lvm_protocol::{Answer, Metadata, Request, TargetStatus};

use super::helper::{Helper, unexpected};
use super::name;
use super::report::{self, LogicalVolume, PhysicalVolume};
use crate::error::{Error, Result};

/// `LVM2_COMMAND_SUCCEEDED`.
const SUCCEEDED: i32 = 1;
/// How much of what LVM says is told.
const TOLD: usize = 600;

/// LVM, for one pool.
#[derive(Debug)]
pub(super) struct Lvm {
    helper: Helper,
    /// Settings of LVM that differ from the system's, as for `--config`.
    config: Option<String>,
    /// The volume group; empty until it is known.
    pub(super) group: String,
    /// The pool in it.
    pub(super) pool: String,
}

impl Lvm {
    pub(super) fn new(helper: Helper) -> Self {
        Self {
            helper,
            config: None,
            group: String::new(),
            pool: name::POOL.to_owned(),
        }
    }

    /// Confines LVM to one device, which it looks at whatever the system's settings are.
    pub(super) fn confine(&mut self, device: &Path) {
        let device = device.display();
        // A pool on a loop file is ours alone: nobody extends it, and its metadata is in no need of copies in /etc.
        self.config = Some(format!(
            "devices{{use_devicesfile=0 filter=[\"a|^{device}$|\",\"r|.*|\"] global_filter=[\"a|^{device}$|\",\"r|.*|\"]}} \
             backup{{backup=0 archive=0}} activation{{monitoring=0}}"
        ));
    }

    /// The name of the pool in full.
    pub(super) fn pool_path(&self) -> String {
        format!("{}/{}", self.group, self.pool)
    }

    /// The name of a logical volume in full.
    pub(super) fn path(&self, volume: &str) -> String {
        format!("{}/{volume}", self.group)
    }

    /// What device-mapper can call the pool itself: there is a layer above it once it has a volume.
    fn pool_devices(&self) -> [String; 2] {
        let device = name::device(&self.group, &self.pool);
        [format!("{device}-tpool"), device]
    }

    /// What device-mapper calls the pool itself.
    pub(super) fn pool_device(&self) -> Result<String> {
        let [beneath, device] = self.pool_devices();
        let is_there = self.status(&beneath)?.is_some();
        Ok(if is_there { beneath } else { device })
    }

    /// How the first target of a device is; `None` when there is no such device.
    pub(super) fn status(&self, device: &str) -> Result<Option<TargetStatus>> {
        let device = device.to_owned();
        match self.call(&Request::Status { device })? {
            Answer::Status { target } => Ok(target),
            other => Err(unexpected(&other)),
        }
    }

    fn metadata(&self) -> Result<Metadata> {
        Ok(Metadata {
            pool: self.pool_device()?,
            metadata: format!("{}_tmeta", name::device(&self.group, &self.pool)),
        })
    }

    fn call(&self, request: &Request) -> Result<Answer> {
        self.helper.call(request, self.recovery().as_ref())
    }

    /// The size of a block in bytes, and number and mapped blocks of each thin device.
    pub(super) fn thin_devices(&self) -> Result<(u64, Vec<(u32, u64)>)> {
        match self.call(&Request::ThinDevices(self.metadata()?))? {
            Answer::ThinDevices {
                block_size,
                devices,
            } => Ok((block_size, devices)),
            other => Err(unexpected(&other)),
        }
    }

    fn recovery(&self) -> Option<Request> {
        (!self.group.is_empty()).then(|| Request::Recover {
            prefix: name::device_prefix(&self.group),
            pools: self.pool_devices().to_vec(),
        })
    }

    fn command(&self, words: &[&str]) -> Vec<String> {
        let mut command: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        if let Some(config) = &self.config {
            command.splice(1..1, ["--config".to_owned(), config.clone()]);
        }
        command
    }

    /// Runs a command: what it prints.
    pub(super) fn run(&self, words: &[&str]) -> Result<Vec<String>> {
        let arguments = self.command(words);
        self.ask(&Request::Lvm { arguments })
    }

    /// Makes thin devices snapshots of others (origin first) while devices are suspended.
    pub(super) fn make_snapshots(
        &self,
        suspend: Vec<String>,
        snapshots: Vec<(u32, u32)>,
    ) -> Result<()> {
        let request = Request::ThinSnapshots {
            pool: self.pool_device()?,
            suspend,
            snapshots,
        };
        match self.call(&request)? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Undoes what a process that was killed has left.
    pub(super) fn recover(&self) -> Result<()> {
        if let Some(recover) = self.recovery() {
            self.helper.call(&recover, None)?;
        }
        Ok(())
    }

    /// Offset and length of the ranges in which a thin device differs from an older one.
    pub(super) fn changes(&self, old: Option<u32>, new: u32) -> Result<Vec<(u64, u64)>> {
        let request = Request::ThinChanges {
            metadata: self.metadata()?,
            old,
            new,
        };
        match self.call(&request)? {
            Answer::ThinChanges { ranges } => Ok(ranges),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Vec<String>> {
        match self.call(request)? {
            Answer::Output { code, lines, .. } if code == SUCCEEDED => Ok(lines),
            Answer::Output { lines, errors, .. } => Err(self.failure(&errors, &lines)),
            other => Err(unexpected(&other)),
        }
    }

    /// What LVM's words mean.
    fn failure(&self, errors: &[String], lines: &[String]) -> Error {
        let said = if errors.is_empty() { lines } else { errors };
        let said: String = said.join("; ").chars().take(TOLD).collect();
        let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if any(&["Manual repair required", "needs_check", "Check of pool"]) {
            return Error::Unavailable(format!(
                "the metadata of the thin pool `{}` is damaged: nothing was changed; repair it with `lvconvert --repair {}` \
                 ({said})",
                self.pool_path(),
                self.pool_path()
            ));
        }
        if any(&["in use", "contains a filesystem"]) {
            return Error::Busy(said);
        }
        if any(&[
            "insufficient free space",
            "Insufficient free space",
            "free data space",
        ]) {
            return Error::Full(format!("the volume group `{}`: {said}", self.group));
        }
        Error::Program {
            program: "lvm",
            output: said,
        }
    }

    /// The logical volumes of the group, internal ones left out; of every group while there is no group.
    pub(super) fn logical_volumes(&self) -> Result<Vec<LogicalVolume>> {
        let mut words = vec![
            "lvs",
            "--reportformat",
            "json",
            "--units",
            "b",
            "--nosuffix",
            "-o",
            report::LOGICAL_FIELDS,
        ];
        if !self.group.is_empty() {
            words.push(&self.group);
        }
        self.report(&words)
    }

    /// The group that a device is a physical volume of; `Some("")` when it is one of none.
    pub(super) fn group_of(&self, device: &str) -> Option<String> {
        let words = ["pvs", "--reportformat", "json", "-o", "vg_name", device];
        let found: Vec<PhysicalVolume> = self.report(&words).ok()?;
        found.into_iter().next().map(|volume| volume.group)
    }

    fn report<T: serde::de::DeserializeOwned>(&self, words: &[&str]) -> Result<Vec<T>> {
        let lines = self.run(words)?;
        report::rows(&lines).map_err(|error| Error::Program {
            program: "lvm",
            output: format!("its report cannot be read: {error}"),
        })
    }
}
