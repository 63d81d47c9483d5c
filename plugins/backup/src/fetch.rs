//! Content that is fetched from packs: what lies beside each other at once, by several threads, each blob compared with its hash.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use drover_backup_protocol::Failure;
use rustic_core::Id;
use rustic_core::repofile::Node;

use crate::codec::hash;
use crate::failure::{Result, internal};
use crate::index::{Blob, Index};
use crate::repository::Session;

/// So many requests are made beside each other.
const READERS: usize = 4;

/// No more is asked for at once, bytes, unless a single blob has more.
const RUN: u32 = 4 << 20;

/// A blob that is wanted, and what for.
#[derive(Debug)]
pub(crate) struct Wanted<T> {
    blob: Blob,
    id: Id,
    /// What it is wanted for.
    pub(crate) target: T,
}

impl<T> Wanted<T> {
    /// Some content of the repository.
    pub(crate) fn new(index: &Index, id: Id, target: T) -> Result<Self> {
        let blob = index.blob(&id)?;
        Ok(Self { blob, id, target })
    }

    /// How long the content is, bytes.
    pub(crate) fn length(&self) -> u64 {
        self.blob.length().into()
    }

    /// Whether this is the content.
    pub(crate) fn is(&self, content: &[u8]) -> bool {
        hash(content) == self.id
    }
}

/// The content of a file of the repository, each part with its place in the file; and how long the file is.
pub(crate) fn content<T>(
    index: &Index,
    node: &Node,
    target: impl Fn(u64) -> T,
) -> Result<(Vec<Wanted<T>>, u64)> {
    let mut begin = 0;
    let mut wanted = Vec::with_capacity(node.content.as_ref().map_or(0, Vec::len));
    for id in node.content.as_deref().unwrap_or_default() {
        let part = Wanted::new(index, **id, target(begin))?;
        begin += part.length();
        wanted.push(part);
    }
    Ok((wanted, begin))
}

/// Calls `take` with the content of each blob, once, and all that it is wanted for; in no order, from several threads.
pub(crate) fn each<T: Send + Sync>(
    session: &Session,
    index: &Index,
    mut wanted: Vec<Wanted<T>>,
    take: impl Fn(&[u8], &[Wanted<T>]) -> Result<()> + Sync,
) -> Result<()> {
    wanted.sort_unstable_by_key(|it| it.blob);
    beside(&runs(&wanted), |run| fetch(session, index, run, &take))
}

/// Does something with each of many, by several threads; tells what befell the first that failed.
pub(crate) fn beside<T: Sync>(all: &[T], act: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    let work = || {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(failure) = act(one) {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(failure);
                next.store(all.len(), Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..READERS.min(all.len()) {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), Err)
}

/// What is fetched at once each: blobs that lie behind each other in a pack.
fn runs<T>(mut sorted: &[Wanted<T>]) -> Vec<&[Wanted<T>]> {
    let mut runs = Vec::new();
    while let Some(first) = sorted.first() {
        let mut end = first.blob.end();
        let fits = |it: &Wanted<T>| {
            let is_beside = it.blob.pack == first.blob.pack && it.blob.offset <= end;
            let fits = is_beside && it.blob.end() - first.blob.offset <= RUN.max(first.blob.size);
            end = end.max(it.blob.end());
            fits
        };
        let count = sorted.iter().map(fits).take_while(|fits| *fits).count();
        let (run, rest) = sorted.split_at(count);
        runs.push(run);
        sorted = rest;
    }
    runs
}

fn fetch<T>(
    session: &Session,
    index: &Index,
    run: &[Wanted<T>],
    take: &impl Fn(&[u8], &[Wanted<T>]) -> Result<()>,
) -> Result<()> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return Ok(());
    };
    let begin = first.blob.offset;
    let sealed = index.read_run(&session.files, &first.blob, last.blob.end() - begin)?;
    for same in run.chunk_by(|one, other| one.blob == other.blob) {
        let Some(one) = same.first() else { continue };
        let from = usize::try_from(one.blob.offset - begin).map_err(internal)?;
        let size = usize::try_from(one.blob.size).map_err(internal)?;
        let part = sealed.get(from..from + size).unwrap_or_default();
        let plain = index.unseal(&session.codec, &one.id, &one.blob, part)?;
        take(&plain, same)?;
        let each = u64::try_from(plain.len()).map_err(internal)?;
        let all = each * u64::try_from(same.len()).map_err(internal)?;
        session.reporter.advance(all);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(pack: u32, offset: u32, size: u32) -> Wanted<()> {
        Wanted {
            blob: Blob {
                pack,
                offset,
                size,
                plain: None,
            },
            id: Id::default(),
            target: (),
        }
    }

    #[test]
    fn what_lies_beside_each_other_is_fetched_at_once() {
        let counts = |wanted: &[Wanted<()>]| -> Vec<usize> {
            runs(wanted).into_iter().map(<[_]>::len).collect()
        };
        let beside = [wanted(1, 0, 10), wanted(1, 10, 10), wanted(1, 10, 10)];
        assert_eq!(counts(&beside), [3]);
        assert_eq!(counts(&[wanted(1, 0, 10), wanted(1, 11, 10)]), [1, 1]);
        assert_eq!(counts(&[wanted(1, 0, 10), wanted(2, 10, 10)]), [1, 1]);
        let long = [wanted(1, 0, RUN), wanted(1, RUN, 1), wanted(1, RUN + 1, 1)];
        assert_eq!(counts(&long), [1, 2]);
        assert_eq!(counts(&[wanted(1, 0, RUN + 1)]), [1]);
        assert!(counts(&[]).is_empty());
    }
}
