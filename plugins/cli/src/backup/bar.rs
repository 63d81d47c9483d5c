//! How far the worker is, on a terminal: a bar with rate and remaining time.

use drover_backup_protocol::{Phase, Progress, Unit};
use indicatif::{ProgressBar, ProgressStyle};

/// Bytes, of which the sum is known.
const BYTES: &str =
    "{prefix} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left{msg}";
/// Anything else.
const STEPS: &str = "{prefix} {spinner} {elapsed}{msg}";

/// The bar of the phase that is going on.
#[derive(Debug)]
pub(super) struct Bar {
    shown: Option<(Phase, bool, ProgressBar)>,
}

impl Bar {
    /// Nothing is shown yet.
    pub(super) const fn new() -> Self {
        Self { shown: None }
    }

    /// Shows how far it is.
    pub(super) fn show(&mut self, progress: &Progress) {
        let has_total = progress.unit == Unit::Bytes && progress.total.is_some();
        let same = matches!(&self.shown, Some((phase, total, _)) if (*phase, *total) == (progress.phase, has_total));
        if !same {
            self.end();
            let bar = ProgressBar::new(progress.total.unwrap_or(0));
            let template = if has_total { BYTES } else { STEPS };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(word(progress.phase));
            self.shown = Some((progress.phase, has_total, bar));
        }
        if let Some((_, _, bar)) = &self.shown {
            bar.set_length(progress.total.unwrap_or(0));
            bar.set_position(progress.done);
            if progress.sent > 0 && progress.phase == Phase::Saving {
                let sent = indicatif::BinaryBytes(progress.sent);
                bar.set_message(format!(", {sent} sent"));
            }
        }
    }

    /// Says something beside the bar.
    pub(super) fn beside(&self, message: &str) {
        let say = || crate::output::note(message);
        match &self.shown {
            Some((_, _, bar)) => bar.suspend(say),
            None => say(),
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&mut self) {
        if let Some((_, _, bar)) = self.shown.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
    }
}

const fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Opening => "opening",
        Phase::Saving => "saving",
        Phase::Restoring => "restoring",
        Phase::Verifying => "verifying",
        Phase::Checking => "checking",
        Phase::Pruning => "pruning",
    }
}
