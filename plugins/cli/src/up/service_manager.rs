//! What systemd is told when it has started this process (`Type=notify`, sd_notify(3)); nothing where it has not.

use sd_notify::NotifyState;
use tracing::warn;

/// How far the start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Every process answers.
    Up,
    /// Some do not yet; what waits for us need not wait longer.
    Incomplete,
    /// It ends.
    Stopping,
}

/// Tells it. A failure is no reason to do anything else.
pub(crate) fn tell(state: State) {
    let message: &[NotifyState<'_>] = match state {
        State::Up => &[
            NotifyState::Ready,
            NotifyState::Status("every process answers"),
        ],
        State::Incomplete => &[
            NotifyState::Ready,
            NotifyState::Status("not every process answers yet"),
        ],
        State::Stopping => &[NotifyState::Stopping],
    };
    if let Err(error) = sd_notify::notify(message) {
        warn!(%error, "the service manager cannot be told: {state:?}");
    }
}
