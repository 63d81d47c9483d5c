//! The backends of this host: which one new volumes are made on, and those that earlier ones lie on.

mod claims;
mod notices;
mod places;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_daemon::{Settings, VolumeSettings};
use drover_model::BackendKind;
use drover_storage::Backend;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::error::{Error, Result};
use claims::Claims;
use notices::Notices;
pub(crate) use notices::{figures, filling};

/// How long a call waits for a pool that is being opened.
const OPENING: Duration = Duration::from_secs(60);

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
}

fn still_opening() -> Error {
    Error::Unavailable("the pool of volumes is still being opened: try again".to_owned())
}
