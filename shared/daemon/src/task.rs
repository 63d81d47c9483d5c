//! Tasks that run as long as the process: each has a name, and none dies unseen.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tracing::error;

use crate::Exit;

/// Spawns a task. If it panics, the process ends with [`Exit::Bug`]: a process that has lost a task
/// is not half-alive.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(async move {
        match AssertUnwindSafe(future).catch_unwind().await {
            Ok(output) => output,
            Err(_) => end_loudly(name),
        }
    })
}

/// Like [`spawn`], for a task that can fail: the failure is logged with the task's name.
pub fn spawn_fallible<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    spawn(name, async move {
        if let Err(error) = future.await {
            error!(task = name, "{error:#}");
        }
    })
}

#[expect(
    clippy::exit,
    reason = "the one place that ends a process with a dead task"
)]
fn end_loudly(name: &str) -> ! {
    error!(
        task = name,
        "a task panicked: this is a bug, and the process ends"
    );
    std::process::exit(i32::from(Exit::Bug.code()))
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_task_gives_its_output_and_can_be_aborted() {
        assert_eq!(super::spawn("answer", async { 42 }).await.unwrap(), 42);
        let endless = super::spawn("endless", std::future::pending::<()>());
        endless.abort();
        assert!(endless.await.unwrap_err().is_cancelled());
    }
}
