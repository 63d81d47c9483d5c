//! The backends of this host: which one new volumes are made on, and those that earlier ones lie on.

mod claims;
mod notices;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_daemon::{BackendChoice, Settings, VolumeSettings};
use drover_model::BackendKind;
use drover_storage::{
    Backend, Btrfs, Directory, LoopPool, Thin, ThinPlace, find_thin_group, is_btrfs,
};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::error::{Error, Result};
use claims::Claims;
use notices::Notices;
pub(crate) use notices::{figures, filling};

/// How long a call waits for a pool that is being opened.
const OPENING: Duration = Duration::from_secs(60);
/// The loop file of thin pools.
const THIN_FILE: &str = "thin.img";

/// A pool that is open.
#[derive(Clone)]
pub(crate) struct Pool {
    pub(crate) backend: Arc<dyn Backend>,
    /// Why it is this one.
    pub(crate) reason: String,
}

/// What became of opening.
#[derive(Clone, Default)]
enum Choice {
    /// It is under way.
    #[default]
    Opening,
    /// A loop file will be made with the first volume.
    Planned,
    /// New volumes are made there.
    Made(BackendKind),
    /// There is no place for new volumes, and why; and whether volumes may lie there, that is, whether there is anything of a pool.
    Failed { sentence: String, may_hold: bool },
}

/// The pools of a host.
pub(crate) struct Pools {
    settings: VolumeSettings,
    folder: PathBuf,
    open: Mutex<BTreeMap<BackendKind, Pool>>,
    /// Why pools that volumes lie on are not open.
    failures: Notices,
    notices: Notices,
    choice: watch::Sender<Choice>,
    /// A pool is made by one at a time.
    making: tokio::sync::Mutex<()>,
    claims: Claims,
}

/// Whether a loop file is made where there is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Making {
    /// It is.
    Now,
    /// Only with the first volume: a host without volumes is left as it is.
    Later,
}

impl Pools {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.volumes.clone(),
            folder: settings.state_dir.join("volumes"),
            open: Mutex::default(),
            failures: Notices::default(),
            notices: Notices::default(),
            choice: watch::Sender::new(Choice::Opening),
            making: tokio::sync::Mutex::default(),
            claims: Claims::default(),
        }
    }

    /// Percent of a pool that are kept for what there is already.
    pub(crate) const fn reserve(&self) -> u8 {
        self.settings.reserve
    }

    /// Opens the pool of new volumes and those of `former` ones. Blocks.
    pub(crate) fn open(&self, former: &[BackendKind], making: Making) {
        if making == Making::Later && self.needs_making() {
            self.open_former(former);
            self.choice.send_replace(Choice::Planned);
            return;
        }
        let made = match self.choose() {
            Ok(pool) => {
                let kind = pool.backend.kind();
                self.leave_a_trace();
                if !matches!(*self.choice.borrow(), Choice::Made(_)) {
                    info!(backend = %kind, reason = pool.reason, "volumes have a place");
                }
                self.insert(pool);
                Choice::Made(kind)
            }
            Err(error) => Choice::Failed {
                sentence: error.sentence(),
                may_hold: self.may_hold(),
            },
        };
        self.open_former(former);
        self.choice.send_replace(made);
    }

    /// A state directory with this folder may have had volumes, whatever becomes of the records.
    fn leave_a_trace(&self) {
        if let Err(error) = std::fs::create_dir_all(&self.folder) {
            warn!(%error, "`{}` cannot be made", self.folder.display());
        }
    }

    fn open_former(&self, former: &[BackendKind]) {
        for kind in former {
            if self.get(*kind).is_none() {
                match self.open_kind(*kind) {
                    Ok(backend) => self.insert(Pool {
                        backend,
                        reason: "earlier volumes lie on it".to_owned(),
                    }),
                    Err(error) => self.failures.set(*kind, Some(error.sentence())),
                }
            }
        }
    }

    /// Lets others use a pool: what a kill left half made there is removed first, while nobody does anything on it.
    fn insert(&self, pool: Pool) {
        if self.get(pool.backend.kind()).is_none()
            && let Err(error) = pool.backend.tidy()
        {
            warn!(%error, "a pool could not be tidied");
        }
        self.failures.set(pool.backend.kind(), None);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(pool.backend.kind(), pool);
    }

    fn get(&self, kind: BackendKind) -> Option<Pool> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&kind).cloned()
    }

    /// Every pool that is open.
    pub(crate) fn all(&self) -> Vec<Pool> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().cloned().collect()
    }

    /// The kinds of backend that there is a place of on this host, whatever is on it.
    pub(crate) fn evident(&self) -> Vec<BackendKind> {
        let is_there = |name: &str| self.folder.join(name).exists();
        let evident = BackendKind::ALL.into_iter().filter(|kind| match kind {
            BackendKind::Btrfs => self.loop_pool().exists() || is_there("btrfs/volumes"),
            BackendKind::Directory => is_there("directory/volumes"),
            BackendKind::Thin => is_there(THIN_FILE) || self.group().is_some(),
        });
        evident.collect()
    }

    /// Whether volumes may lie on this host at a place that cannot be opened: damaged, or another's for now. Of a directory that is
    /// configured and not there, or a volume group, nothing tells so.
    fn may_hold(&self) -> bool {
        let mut evident = self.evident();
        if self.settings.volume_group.is_some() && self.settings.thin_pool.is_none() {
            let state = self.folder.join("thin");
            let found = helper().and_then(|helper| Ok(find_thin_group(&helper, &state)?));
            let is_there = found.is_ok_and(|found| found.is_some());
            evident.retain(|kind| *kind != BackendKind::Thin || is_there);
        }
        !evident.is_empty()
    }

    /// Whether new volumes take a loop file that is not there.
    fn needs_making(&self) -> bool {
        let takes_btrfs = || {
            let has_place = self.settings.path.is_some() || self.is_on_btrfs();
            !has_place && !self.loop_pool().exists()
        };
        match self.settings.backend {
            BackendChoice::Directory => false,
            BackendChoice::Btrfs => takes_btrfs(),
            BackendChoice::Thin => {
                let file = &self.folder.join(THIN_FILE);
                let settings = &self.settings;
                let is_named = settings.volume_group.is_some() || settings.thin_pool.is_some();
                !is_named && !ThinPlace::was_made(file, &self.folder.join("thin"))
            }
            BackendChoice::Auto => takes_btrfs() && self.group().is_none(),
        }
    }

    /// Whether the place for new volumes is made with the first of them.
    pub(crate) fn is_planned(&self) -> bool {
        matches!(*self.choice.borrow(), Choice::Planned)
    }

    /// Where new volumes are made, once that is known; why there is no place, if there is none.
    pub(crate) fn chosen(&self) -> Option<std::result::Result<BackendKind, String>> {
        match &*self.choice.borrow() {
            Choice::Opening | Choice::Planned => None,
            Choice::Made(kind) => Some(Ok(*kind)),
            Choice::Failed { sentence, .. } => Some(Err(sentence.clone())),
        }
    }

    /// Waits until there is no place for new volumes; why not. With `is_bare`, until there is nothing of a pool either.
    pub(crate) async fn failed(&self, is_bare: bool) -> String {
        let mut choice = self.choice.subscribe();
        loop {
            if let Choice::Failed { sentence, may_hold } = &*choice.borrow_and_update()
                && !(is_bare && *may_hold)
            {
                return sentence.clone();
            }
            // With the sender gone the process ends.
            if choice.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The pool of new volumes; waits while it is being opened.
    pub(crate) async fn for_new(self: &Arc<Self>) -> Result<Arc<dyn Backend>> {
        self.opened().await;
        if self.is_planned() {
            let _making = self.making.lock().await;
            if self.is_planned() {
                let pools = self.clone();
                let made = tokio::task::spawn_blocking(move || pools.open(&[], Making::Now));
                made.await.map_err(|error| {
                    Error::Internal(format!("making a pool ended in a bug: {error}"))
                })?;
            }
        }
        let kind = match self.chosen() {
            Some(Ok(kind)) => kind,
            Some(Err(sentence)) => return Err(Error::Unavailable(sentence)),
            None => return Err(still_opening()),
        };
        self.get(kind)
            .map(|pool| pool.backend)
            .ok_or_else(still_opening)
    }

    /// The pool of a kind; waits while pools are being opened.
    pub(crate) async fn of(&self, kind: BackendKind) -> Result<Arc<dyn Backend>> {
        if self.get(kind).is_none() {
            self.opened().await;
        }
        let open = self.get(kind).map(|pool| pool.backend);
        open.ok_or_else(|| self.not_open(kind))
    }

    /// What there is to be said of pools that volumes lie on and that are not open.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let kinds = BackendKind::ALL.into_iter();
        let failed = kinds.filter(|kind| self.failures.of(*kind).is_some());
        failed.map(|kind| self.not_open(kind).sentence()).collect()
    }

    /// Why a pool is not open that volumes lie on.
    pub(crate) fn not_open(&self, kind: BackendKind) -> Error {
        match self.failures.of(kind) {
            None => still_opening(),
            Some(sentence) => Error::Unavailable(format!(
                "the pool `{kind}`, which volumes lie on, cannot be opened, which is tried again and again: {sentence}"
            )),
        }
    }

    /// What is not as it should be with the pool of a kind, as it was seen last.
    pub(crate) fn notice(&self, kind: BackendKind) -> Option<String> {
        match self.get(kind) {
            Some(_) => self.notices.of(kind),
            None => Some(self.not_open(kind).sentence()),
        }
    }

    pub(crate) fn set_notice(&self, kind: BackendKind, sentence: Option<String>) {
        self.notices.set(kind, sentence);
    }

    async fn opened(&self) {
        let mut choice = self.choice.subscribe();
        let done = choice.wait_for(|it| !matches!(it, Choice::Opening));
        // Whoever waited in vain finds no pool, and says so.
        drop(tokio::time::timeout(OPENING, done).await);
    }

    fn choose(&self) -> Result<Pool> {
        let told = |backend, reason: &str| Pool {
            backend,
            reason: reason.to_owned(),
        };
        match self.settings.backend {
            BackendChoice::Btrfs => Ok(told(self.btrfs()?, "`volumes.backend` says so")),
            BackendChoice::Thin => Ok(told(self.thin()?, "`volumes.backend` says so")),
            BackendChoice::Directory => Ok(told(self.directory()?, "`volumes.backend` says so")),
            BackendChoice::Auto => self.choose_alone(),
        }
    }

    /// What was chosen before; else a thin pool in the volume group that is configured; else btrfs where the state directory is on
    /// it, else a thin pool where a volume group has one, else btrfs on a loop file, else plain directories.
    fn choose_alone(&self) -> Result<Pool> {
        let on_btrfs = std::fs::read_dir(self.folder.join("btrfs/volumes"));
        let was_chosen = on_btrfs.is_ok_and(|mut volumes| volumes.next().is_some());
        let has_place = self.settings.path.is_some() || self.loop_pool().exists() || was_chosen;
        let is_asked_for = self.settings.volume_group.is_some();
        if !has_place
            && (is_asked_for || !self.is_on_btrfs())
            && let Some(group) = self.group()
        {
            let reason = if is_asked_for {
                "`volumes.volume_group` says so".to_owned()
            } else {
                format!("the volume group `{group}` has a thin pool")
            };
            let backend = self.thin()?;
            return Ok(Pool { backend, reason });
        }
        match self.btrfs() {
            Ok(backend) => {
                let reason = if self.is_on_btrfs() {
                    "the state directory is on a btrfs"
                } else {
                    "the state directory is on no btrfs, so there is one in a loop file"
                };
                Ok(Pool {
                    backend,
                    reason: reason.to_owned(),
                })
            }
            // Volumes are there, or are wanted there and nowhere else.
            Err(error) if self.loop_pool().exists() || self.settings.path.is_some() => Err(error),
            Err(error) => Ok(Pool {
                backend: self.directory()?,
                reason: format!("no btrfs is to be had: {}", error.sentence()),
            }),
        }
    }

    fn open_kind(&self, kind: BackendKind) -> Result<Arc<dyn Backend>> {
        match kind {
            BackendKind::Btrfs => self.btrfs(),
            BackendKind::Directory => self.directory(),
            BackendKind::Thin => self.thin(),
        }
    }

    fn is_on_btrfs(&self) -> bool {
        let place = self.settings.path.clone();
        let place = place.or_else(|| self.folder.parent().map(PathBuf::from));
        place.is_some_and(|place| is_btrfs(&place).unwrap_or(false))
    }

    fn btrfs(&self) -> Result<Arc<dyn Backend>> {
        // A loop file that there is holds volumes: nothing else is chosen over it.
        if self.settings.path.is_some() || (self.is_on_btrfs() && !self.loop_pool().exists()) {
            let place = self.settings.path.clone();
            let base = place.unwrap_or_else(|| self.folder.join("btrfs"));
            return Ok(Arc::new(Btrfs::open(&base)?));
        }
        Ok(Arc::new(Btrfs::open_loop(&self.loop_pool())?))
    }

    fn directory(&self) -> Result<Arc<dyn Backend>> {
        let place = match self.settings.backend {
            BackendChoice::Directory => self.settings.path.clone(),
            _ => None,
        };
        let base = place.unwrap_or_else(|| self.folder.join("directory"));
        Ok(Arc::new(Directory::open(&base)?))
    }

    fn thin(&self) -> Result<Arc<dyn Backend>> {
        let settings = &self.settings;
        let group = self.group();
        let place = match (&group, &settings.thin_pool) {
            (Some(group), Some(pool)) => ThinPlace::Pool {
                group: group.clone(),
                pool: pool.clone(),
            },
            (Some(group), None) => ThinPlace::Group {
                group: group.clone(),
                size: None,
            },
            (None, Some(pool)) => {
                return Err(Error::Unavailable(format!(
                    "`volumes.thin_pool` is `{pool}`, and there is no `volumes.volume_group`: set it as well"
                )));
            }
            (None, None) => ThinPlace::LoopFile {
                file: self.folder.join(THIN_FILE),
                size: settings.loop_size,
            },
        };
        match &place {
            ThinPlace::Pool { group, pool } => self.claims.take(group, pool)?,
            ThinPlace::Group { group, .. } => self.claims.take(group, ThinPlace::POOL)?,
            // It lies in the state directory, which is this process's alone.
            ThinPlace::LoopFile { .. } => {}
        }
        let thin = Thin::open(place, &helper()?, &self.folder.join("thin"))?;
        Ok(Arc::new(thin))
    }

    /// The volume group that is configured, or else one that has a pool of ours; `None` where a loop file is in use.
    fn group(&self) -> Option<String> {
        let given = self.settings.volume_group.clone();
        if given.is_some() || self.folder.join(THIN_FILE).exists() {
            return given;
        }
        let found = find_thin_group(&helper().ok()?, &self.folder.join("thin"));
        found
            .inspect_err(|error| info!(%error, "no volume group is looked for"))
            .ok()?
    }

    fn loop_pool(&self) -> LoopPool {
        LoopPool {
            file: self.folder.join("btrfs.img"),
            at: self.folder.join("btrfs"),
            size: self.settings.loop_size,
        }
    }
}

/// The program that drives LVM.
fn helper() -> Result<PathBuf> {
    let own =
        std::env::current_exe().map_err(drover_storage::Error::system("find", "/proc/self/exe"))?;
    Ok(own.with_file_name("drover-lvm"))
}

fn still_opening() -> Error {
    Error::Unavailable("the pool of volumes is still being opened: try again".to_owned())
}
