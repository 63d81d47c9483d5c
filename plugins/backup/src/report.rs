//! What is told while the work goes on: lines of JSON, few enough that nobody drowns in them.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use drover_backup_protocol::{Event, Phase, Progress, Unit};
use rustic_core::{ProgressBars, ProgressType, RusticProgress};

use crate::meter::Meter;

/// No two lines of progress are nearer to each other, but for the first that knows the sum.
const INTERVAL: Duration = Duration::from_millis(250);

/// Where events go.
#[derive(Clone)]
pub struct Reporter {
    inner: Arc<Inner>,
}

struct Inner {
    out: Mutex<Box<dyn Write + Send>>,
    state: Mutex<State>,
    done: AtomicU64,
    meter: Meter,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    unit: Unit,
    total: Option<u64>,
    told: Option<Instant>,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reporter").finish_non_exhaustive()
    }
}

impl Reporter {
    /// Events go to `out`, a line each.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        let state = State {
            phase: Phase::Opening,
            unit: Unit::Items,
            total: None,
            told: None,
        };
        Self {
            inner: Arc::new(Inner {
                out: Mutex::new(out),
                state: Mutex::new(state),
                done: AtomicU64::new(0),
                meter: Meter::default(),
            }),
        }
    }

    /// What counts the bytes that go to and come from the target.
    pub(crate) fn meter(&self) -> &Meter {
        &self.inner.meter
    }

    /// Another phase begins.
    pub(crate) fn begin(&self, phase: Phase, unit: Unit, total: Option<u64>) {
        let mut state = self.lock();
        *state = State {
            phase,
            unit,
            total,
            told: None,
        };
        self.inner.done.store(0, Ordering::Relaxed);
        drop(state);
        self.advance(0);
    }

    /// So much is to be done in this phase.
    pub(crate) fn set_total(&self, total: u64) {
        let mut state = self.lock();
        if state.total == Some(total) {
            return;
        }
        state.total = Some(total);
        state.told = None;
        drop(state);
        self.advance(0);
    }

    /// So much more is done.
    pub(crate) fn advance(&self, by: u64) {
        let done = self.inner.done.fetch_add(by, Ordering::Relaxed) + by;
        let mut state = self.lock();
        let now = Instant::now();
        if state.told.is_some_and(|told| now - told < INTERVAL) {
            return;
        }
        state.told = Some(now);
        let progress = Progress {
            phase: state.phase,
            unit: state.unit,
            done,
            total: state.total,
            sent: self.inner.meter.sent(),
            fetched: self.inner.meter.fetched(),
        };
        drop(state);
        self.event(&Event::Progress(progress));
    }

    /// A person should know this.
    pub(crate) fn warn(&self, message: String) {
        self.event(&Event::Warning { message });
    }

    /// Writes an event. Whoever reads them may be gone; the work goes on.
    pub fn event(&self, event: &Event) {
        let Ok(mut line) = serde_json::to_vec(event) else {
            return;
        };
        line.push(b'\n');
        let mut out = self
            .inner
            .out
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            // Nobody listens any more.
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The library's own progress, told as ours when it counts bytes.
#[derive(Debug, Clone)]
pub(crate) struct Bars(pub(crate) Reporter);

impl ProgressBars for Bars {
    fn progress(&self, kind: ProgressType, _prefix: &str) -> rustic_core::Progress {
        match kind {
            ProgressType::Bytes => rustic_core::Progress::new(Bar(self.0.clone())),
            ProgressType::Spinner | ProgressType::Counter => rustic_core::Progress::hidden(),
        }
    }
}

#[derive(Debug)]
struct Bar(Reporter);

impl RusticProgress for Bar {
    fn is_hidden(&self) -> bool {
        false
    }

    fn set_length(&self, length: u64) {
        self.0.set_total(length);
    }

    fn set_title(&self, _title: &str) {}

    fn inc(&self, by: u64) {
        self.0.advance(by);
    }

    fn finish(&self) {}
}
