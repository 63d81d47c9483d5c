//! Tells the coordinator how many endpoints each network has here, and that an engine has started.
//! Never on the way of a call: what cannot be told now is told when the coordinator is back.

use std::collections::BTreeMap;
use std::time::Duration;

use drover_control_api::coordinator::{EngineStarted, ReportAttachments};
use drover_daemon::Backoff;
use drover_http::{Client, control};
use drover_model::NetworkId;
use tokio::sync::watch;
use tracing::debug;

const LIMIT: Duration = Duration::from_secs(5);

/// What there is to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// How many endpoints each network has; `None` until the owner has looked.
    attachments: Option<BTreeMap<NetworkId, u32>>,
    /// How many engine processes have activated the plugin.
    engines: u64,
}

/// The owner's end.
#[derive(Debug)]
pub(crate) struct Reporter(watch::Sender<News>);

impl Reporter {
    /// Sets the counts.
    pub(crate) fn attachments(&self, counts: BTreeMap<NetworkId, u32>) {
        self.0.send_if_modified(|news| {
            let changed = news.attachments.as_ref() != Some(&counts);
            news.attachments = Some(counts);
            changed
        });
    }

    /// An engine process has activated the plugin.
    pub(crate) fn engine_started(&self) {
        self.0
            .send_modify(|news| news.engines = news.engines.wrapping_add(1));
    }
}

/// Both ends.
pub(crate) fn channel() -> (Reporter, watch::Receiver<News>) {
    let (sender, receiver) = watch::channel(News::default());
    (Reporter(sender), receiver)
}

/// Tells the news as they come, and again whenever the coordinator was away.
pub(crate) async fn run(
    coordinator: Client,
    mut news: watch::Receiver<News>,
    mut connected: watch::Receiver<u64>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut engines_told = 0;
    loop {
        connected.mark_unchanged();
        let now = news.borrow_and_update().clone();
        match tell(&coordinator, &now, engines_told).await {
            Ok(()) => {
                engines_told = now.engines;
                backoff.reset();
                // Both arms are cancel-safe: a change that was seen by neither is seen next time.
                tokio::select! {
                    changed = news.changed() => if changed.is_err() { return },
                    changed = connected.changed() => if changed.is_err() { return },
                }
            }
            Err(error) => {
                debug!(%error, "the coordinator was not told");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

async fn tell(
    coordinator: &Client,
    news: &News,
    engines_told: u64,
) -> Result<(), control::CallError> {
    if let Some(networks) = news.attachments.clone() {
        control::call(coordinator, &ReportAttachments { networks }, LIMIT).await?;
    }
    if news.engines != engines_told {
        control::call(coordinator, &EngineStarted {}, LIMIT).await?;
    }
    Ok(())
}
