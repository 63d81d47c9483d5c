//! Puts blobs into packs and packs into the repository: compression and encryption on every processor, uploads beside
//! them, and never more in memory than a few packs.
//!
//! ```text
//! reader --chunks--> sealers (one a processor) --blobs--> packer --packs--> uploaders --entries--> index file
//!                                          tree --blob-->
//! ```

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rustic_core::Id;
use rustic_core::repofile::{BlobType, IndexFile, IndexPack};

use crate::adopt;
use crate::codec::{Sealer, hash};
use crate::failure::{Result, internal};
use crate::index::Index;
use crate::pack::{Filling, Pack, Sealed};
use crate::repository::{PACK_SIZE, Session};

/// So many packs are uploaded beside each other.
const UPLOADS: usize = 3;

/// An index file is written after so many packs, or so long: what is lost by a crash is then found by its packs anyway.
const INDEX_PACKS: usize = 64;
const INDEX_AGE: Duration = Duration::from_secs(120);

/// A part of the source, by its number.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Which part it is.
    pub(super) number: usize,
    /// Its content.
    pub(super) content: Vec<u8>,
}

/// What became of the chunks.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// The ids of the chunks' contents, by number.
    pub(super) ids: Vec<(usize, Id)>,
    /// What of them was new, bytes.
    pub(super) new: u64,
}

struct Shared<'a> {
    session: &'a Session,
    index: &'a Index,
    /// What this run has sent already.
    sent: Mutex<HashSet<Id>>,
    written: Mutex<Written>,
}

/// Takes chunks, then the tree that lists them, until it is finished.
pub(super) struct Writer<'scope> {
    chunks: Option<SyncSender<Chunk>>,
    blobs: SyncSender<Sealed>,
    sealers: Vec<Thread<'scope>>,
    threads: Vec<Thread<'scope>>,
    shared: Arc<Shared<'scope>>,
}

type Thread<'scope> = ScopedJoinHandle<'scope, Result<()>>;

impl<'scope> Writer<'scope> {
    /// Starts the threads of a writer.
    pub(super) fn start(
        scope: &'scope Scope<'scope, '_>,
        session: &'scope Session,
        index: &'scope Index,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            session,
            index,
            sent: Mutex::default(),
            written: Mutex::default(),
        });
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let processors = processors.min(4);
        let (chunks, taken) = sync_channel(processors);
        let (blobs, sealed) = sync_channel(1);
        let (packs, closed) = sync_channel(1);
        let (entries, indexed) = sync_channel(UPLOADS);
        let taken = Arc::new(Mutex::new(taken));
        let closed = Arc::new(Mutex::new(closed));
        let (mut sealers, mut threads) = (Vec::new(), Vec::new());
        for _ in 0..processors {
            let (shared, taken, blobs) = (Arc::clone(&shared), Arc::clone(&taken), blobs.clone());
            sealers.push(scope.spawn(move || seal(&shared, &taken, &blobs)));
        }
        threads.push(scope.spawn(move || pack(session, &sealed, &packs)));
        for _ in 0..UPLOADS {
            let (closed, entries) = (Arc::clone(&closed), entries.clone());
            threads.push(scope.spawn(move || upload(session, &closed, &entries)));
        }
        threads.push(scope.spawn(move || index_packs(session, &indexed)));
        Ok(Self {
            chunks: Some(chunks),
            blobs,
            sealers,
            threads,
            shared,
        })
    }

    /// Hands a chunk over; `false` when the threads have failed and `finish` tells why.
    pub(super) fn put(&self, chunk: Chunk) -> bool {
        let chunks = self.chunks.as_ref();
        chunks.is_some_and(|chunks| chunks.send(chunk).is_ok())
    }

    /// Waits until all chunks are hashed; no more are taken.
    pub(super) fn written(&mut self) -> Result<Written> {
        self.chunks = None;
        joined(self.sealers.drain(..))?;
        Ok(std::mem::take(&mut lock(&self.shared.written)))
    }

    /// Hands a tree over; gives its id.
    pub(super) fn put_tree(&self, json: &[u8]) -> Result<Id> {
        let id = hash(json);
        if self.shared.index.has_tree(&id) {
            return Ok(id);
        }
        let tree = Sealed {
            id,
            kind: BlobType::Tree,
            plain: u32::try_from(json.len()).map_err(internal)?,
            bytes: Sealer::new(self.shared.session.codec.clone())?
                .seal(json)?
                .into(),
        };
        match self.blobs.send(tree) {
            // When nobody takes it, `finish` hears from those who should have.
            Ok(()) | Err(_) => Ok(id),
        }
    }

    /// Waits until everything is in the repository.
    pub(super) fn finish(self) -> Result<()> {
        drop((self.chunks, self.blobs));
        joined(self.sealers.into_iter().chain(self.threads))
    }
}

/// Waits for threads; tells what befell the first that failed.
fn joined<'scope>(threads: impl Iterator<Item = Thread<'scope>>) -> Result<()> {
    let mut first = Ok(());
    for thread in threads {
        let ended = thread
            .join()
            .unwrap_or_else(|_| Err(internal("a thread panicked")));
        first = first.and(ended);
    }
    first
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next of a queue that several threads take from.
fn next<T>(queue: &Mutex<Receiver<T>>) -> Option<T> {
    lock(queue).recv().ok()
}

/// Hashes chunks; compresses and encrypts those that are new.
fn seal(
    shared: &Shared<'_>,
    chunks: &Mutex<Receiver<Chunk>>,
    blobs: &SyncSender<Sealed>,
) -> Result<()> {
    let mut sealer = Sealer::new(shared.session.codec.clone())?;
    while let Some(chunk) = next(chunks) {
        let id = hash(&chunk.content);
        let length = chunk.content.len();
        let plain = u64::try_from(length).map_err(internal)?;
        lock(&shared.written).ids.push((chunk.number, id));
        shared.session.reporter.advance(plain);
        if shared.index.has_data(&id) || !lock(&shared.sent).insert(id) {
            continue;
        }
        let bytes = sealer.seal(&chunk.content)?.into();
        lock(&shared.written).new += plain;
        let sealed = Sealed {
            id,
            kind: BlobType::Data,
            plain: u32::try_from(length).map_err(internal)?,
            bytes,
        };
        if blobs.send(sealed).is_err() {
            break;
        }
    }
    Ok(())
}

/// Fills packs: data and trees are not in the same ones.
fn pack(session: &Session, blobs: &Receiver<Sealed>, packs: &SyncSender<Pack>) -> Result<()> {
    let full = u32::try_from(PACK_SIZE).map_err(internal)?;
    let (mut data, mut trees) = (Filling::default(), Filling::default());
    for sealed in blobs {
        let filling = match sealed.kind {
            BlobType::Data => &mut data,
            BlobType::Tree => &mut trees,
        };
        filling.add(sealed)?;
        if filling.size() >= full
            && packs
                .send(std::mem::take(filling).close(&session.codec)?)
                .is_err()
        {
            return Ok(());
        }
    }
    for filling in [data, trees] {
        if !filling.is_empty() && packs.send(filling.close(&session.codec)?).is_err() {
            // When nobody takes it, `finish` hears from those who should have.
            return Ok(());
        }
    }
    Ok(())
}

fn upload(
    session: &Session,
    packs: &Mutex<Receiver<Pack>>,
    entries: &SyncSender<IndexPack>,
) -> Result<()> {
    while let Some(pack) = next(packs) {
        let entry = write(session, pack)?;
        if entries.send(entry).is_err() {
            break;
        }
    }
    Ok(())
}

fn write(session: &Session, pack: Pack) -> Result<IndexPack> {
    session
        .files
        .write(rustic_core::FileType::Pack, &pack.id, &pack.content)?;
    Ok(pack.entry)
}

/// Writes index files.
fn index_packs(session: &Session, entries: &Receiver<IndexPack>) -> Result<()> {
    let mut file = IndexFile::default();
    let mut begun = Instant::now();
    for entry in entries {
        file.packs.push(entry);
        if file.packs.len() >= INDEX_PACKS || begun.elapsed() >= INDEX_AGE {
            adopt::save(session, &file)?;
            file = IndexFile::default();
            begun = Instant::now();
        }
    }
    if file.packs.is_empty() {
        return Ok(());
    }
    adopt::save(session, &file)
}
