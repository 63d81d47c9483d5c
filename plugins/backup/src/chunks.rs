//! The content of a file in a repository, chunk by chunk, read by several threads and each compared with its hash.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use drover_backup_protocol::Failure;
use rustic_core::repofile::Node;

use crate::failure::{Result, internal};
use crate::index::Index;
use crate::repository::Session;

/// So many chunks are fetched beside each other.
const READERS: usize = 4;

/// Calls `take` with the number and the content of each chunk, in no order, from several threads.
pub(crate) fn each(
    session: &Session,
    index: &Index,
    node: &Node,
    take: impl Fn(u64, &[u8]) -> Result<()> + Sync,
) -> Result<()> {
    let content = node.content.as_deref().unwrap_or_default();
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    let fail = |failure: Failure| {
        failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(failure);
        next.store(usize::MAX / 2, Ordering::Relaxed);
    };
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(id) = content.get(number) else {
                return Ok(());
            };
            let plain = index.read_data(&session.files, &session.codec, id)?;
            take(u64::try_from(number).map_err(internal)?, &plain)?;
            session
                .reporter
                .advance(u64::try_from(plain.len()).map_err(internal)?);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..READERS.min(content.len()) {
            scope.spawn(|| {
                if let Err(failure) = work() {
                    fail(failure);
                }
            });
        }
    });
    failed
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}
