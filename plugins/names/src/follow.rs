//! Follows the coordinator's registry stream. While it is cut, what was told last is kept, and marked.

use std::sync::Arc;
use std::time::Duration;

use drover_control_api::registry::PATH;
use drover_daemon::Backoff;
use drover_http::control::{self, StreamError};
use drover_http::{Client, Lines};
use tracing::{debug, info, warn};

use crate::known::Known;

/// How many events are taken in before others have their turn.
const AT_ONCE: u32 = 256;

/// Follows the stream for ever.
pub(crate) async fn run(coordinator: Client, known: Arc<Known>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    loop {
        match coordinator.lines(PATH).await {
            Ok(lines) => {
                info!("follows the registry");
                let cut = follow_once(lines, &known, &mut backoff).await;
                known.cut();
                if let Err(error) = cut {
                    warn!(
                        "the registry stream was cut: {:#}",
                        anyhow::Error::from(error)
                    );
                }
            }
            Err(error) => debug!(%error, "the coordinator does not answer"),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn follow_once(
    mut lines: Lines,
    known: &Known,
    backoff: &mut Backoff,
) -> Result<(), StreamError> {
    let mut count = 0_u32;
    while let Some(event) = control::next_event(&mut lines).await? {
        known.apply(event);
        if known.is_followed() {
            backoff.reset();
        }
        count = count.wrapping_add(1);
        if count.is_multiple_of(AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
