//! Looks for damage: every file's content against its name, the index against the packs, the trees against the index,
//! and which backups suffer from what was found.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use drover_backup_protocol::{Checked, Phase, Problem, Unit};
use rustic_core::{ALL_FILE_TYPES, FileType, Id};

use crate::catalog;
use crate::codec::hash;
use crate::failure::{Result, internal};
use crate::files::path_of;
use crate::index::{self, Index};
use crate::lock::Mode;
use crate::pack::read_header;
use crate::repository::Session;

/// So many files are read beside each other.
const READERS: usize = 4;

/// What is wrong, by the path of the file.
type Faults = BTreeMap<String, String>;

/// Looks for damage.
pub(crate) fn check(session: &Session, read_data: bool) -> Result<Checked> {
    let lock = session.lock(Mode::Shared)?;
    // A backup may end meanwhile. What refers to something else is looked at before that: it was there first.
    let snapshots = session.files.list(FileType::Snapshot)?;
    let mut faults = Faults::new();
    let (index, expected) = load_index(session, &mut faults)?;
    let listed = list(session)?;
    let packs: HashMap<Id, u64> = listed
        .iter()
        .filter(|(kind, _, _)| *kind == FileType::Pack)
        .map(|(_, id, size)| (*id, *size))
        .collect();
    compare(&expected, &packs, &mut faults);
    faults.extend(hashes(session, &listed, read_data)?);
    headers(session, &packs, &index, &mut faults)?;
    let mut problems = backups(session, &snapshots, (&index, &packs), &mut faults)?;
    // What no backup needs is told all the same; `backups` has taken out what it told.
    problems.extend(faults.into_iter().map(|(file, what)| Problem {
        file: Some(file),
        what,
        backups: Vec::new(),
    }));
    problems.sort();
    lock.held()?;
    Ok(Checked {
        files: u64::try_from(listed.len()).map_err(internal)? + 1,
        problems,
    })
}

type Listed = (FileType, Id, u64);

fn list(session: &Session) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for kind in ALL_FILE_TYPES {
        let files = session.files.list(kind)?;
        listed.extend(files.into_iter().map(|(id, size)| (kind, id, size)));
    }
    Ok(listed)
}

/// Compares the content of files with their names.
fn hashes(session: &Session, listed: &[Listed], read_data: bool) -> Result<Faults> {
    let chosen: Vec<&Listed> = listed
        .iter()
        .filter(|(kind, _, _)| read_data || *kind != FileType::Pack)
        .collect();
    let total = chosen.iter().map(|(_, _, size)| size).sum();
    session
        .reporter
        .begin(Phase::Checking, Unit::Bytes, Some(total));
    let next = AtomicUsize::new(0);
    let faults = Mutex::new(Faults::new());
    let failed = Mutex::new(None);
    let work = || {
        while let Some((kind, id, size)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            let path = path_of(*kind, id);
            let what = match session.files.read_path(&path) {
                Ok(Some(content)) if hash(&content) == *id => None,
                Ok(Some(_)) => Some("its content is not what was written".to_owned()),
                // It was removed meanwhile, which only happens to files that nobody needs.
                Ok(None) => None,
                Err(failure) => {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                    return;
                }
            };
            if let Some(what) = what {
                let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
                faults.insert(path, what);
            }
            session.reporter.advance(*size);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(work);
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => Ok(faults.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// Reads the index as far as it can be read; tells which packs it knows, with the sizes that they should have.
fn load_index(session: &Session, faults: &mut Faults) -> Result<(Index, HashMap<Id, u64>)> {
    let mut whole = Index::default();
    let mut expected = HashMap::new();
    for (id, _) in session.files.list(FileType::Index)? {
        let path = path_of(FileType::Index, &id);
        let Some(sealed) = session.files.read_path(&path)? else {
            continue;
        };
        let file = match index::read(&session.codec, &path, &sealed) {
            Ok(file) => file,
            Err(_) => {
                faults.insert(path, "it cannot be read".to_owned());
                continue;
            }
        };
        for pack in &file.packs {
            whole.add(pack);
            expected.insert(*pack.id, u64::from(pack.pack_size()));
        }
    }
    Ok((whole, expected))
}

/// Compares the packs that the index knows with those that are there.
fn compare(expected: &HashMap<Id, u64>, packs: &HashMap<Id, u64>, faults: &mut Faults) {
    for (pack, expected) in expected {
        let what = match packs.get(pack) {
            None => "it is not there".to_owned(),
            Some(size) if size != expected => {
                format!("it has {size} bytes, and should have {expected}")
            }
            Some(_) => continue,
        };
        faults.insert(path_of(FileType::Pack, pack), what);
    }
}

/// Packs that no index knows are of a backup that runs, or of one that did not end, unless they cannot be read.
fn headers(
    session: &Session,
    packs: &HashMap<Id, u64>,
    index: &Index,
    faults: &mut Faults,
) -> Result<()> {
    for (id, size) in packs.iter().filter(|(id, _)| !index.knows_pack(id)) {
        if let Err(failure) = read_header(&session.files, &session.codec, id, *size) {
            let path = path_of(FileType::Pack, id);
            faults.entry(path).or_insert_with(|| {
                format!(
                    "no backup needs it, and {}; `drover backup prune` removes it",
                    failure.message
                )
            });
        }
    }
    Ok(())
}

/// What each backup needs, and which problems it meets there.
fn backups(
    session: &Session,
    snapshots: &[(Id, u64)],
    (index, packs): (&Index, &HashMap<Id, u64>),
    faults: &mut Faults,
) -> Result<Vec<Problem>> {
    let bad: HashSet<Id> = packs
        .keys()
        .filter(|id| faults.contains_key(&path_of(FileType::Pack, id)))
        .copied()
        .collect();
    let mut walk = Walk {
        session,
        index,
        packs,
        bad: &bad,
        seen: HashMap::new(),
        found: BTreeMap::new(),
    };
    for (id, _) in snapshots {
        let path = path_of(FileType::Snapshot, id);
        let name = catalog::text_of(id);
        let Some(sealed) = session.files.read_path(&path)? else {
            continue;
        };
        let json = session.codec.unseal_file(&sealed);
        let snapshot = json.and_then(|json| {
            serde_json::from_slice::<rustic_core::repofile::SnapshotFile>(&json).ok()
        });
        let Some(snapshot) = snapshot else {
            walk.found
                .entry((path, "it cannot be read".to_owned()))
                .or_default()
                .insert(name);
            continue;
        };
        let mut needs = BTreeSet::new();
        walk.tree(&snapshot.tree, &mut needs);
        for problem in needs {
            walk.found.entry(problem).or_default().insert(name.clone());
        }
    }
    Ok(walk
        .found
        .into_iter()
        .map(|((file, what), backups)| {
            let what = faults.remove(&file).unwrap_or(what);
            Problem {
                file: Some(file),
                what,
                backups: backups.into_iter().collect(),
            }
        })
        .collect())
}

/// A file of the repository, and what is wrong with it.
type Named = (String, String);

struct Walk<'a> {
    session: &'a Session,
    index: &'a Index,
    packs: &'a HashMap<Id, u64>,
    bad: &'a HashSet<Id>,
    /// What is wrong beneath each tree that was gone through.
    seen: HashMap<Id, BTreeSet<Named>>,
    found: BTreeMap<Named, BTreeSet<String>>,
}

impl Walk<'_> {
    fn tree(&mut self, id: &Id, needs: &mut BTreeSet<Named>) {
        if let Some(known) = self.seen.get(id) {
            needs.extend(known.iter().cloned());
            return;
        }
        let mut own = BTreeSet::new();
        self.pack(self.index.pack_of_tree(id), id, &mut own);
        let (files, codec) = (&self.session.files, &self.session.codec);
        match self.index.read_tree(files, codec, id) {
            Ok(tree) => {
                for node in tree.nodes {
                    if let Some(subtree) = &node.subtree {
                        self.tree(subtree, &mut own);
                    }
                    for content in node.content.unwrap_or_default() {
                        self.pack(self.index.pack_of_data(&content), &content, &mut own);
                    }
                }
            }
            Err(failure) if own.is_empty() => {
                let file = self
                    .index
                    .pack_of_tree(id)
                    .map_or_else(|| "index".to_owned(), |pack| path_of(FileType::Pack, pack));
                own.insert((file, failure.message));
            }
            Err(_) => {}
        }
        needs.extend(own.iter().cloned());
        self.seen.insert(*id, own);
    }

    fn pack(&self, pack: Option<&Id>, blob: &Id, needs: &mut BTreeSet<Named>) {
        match pack {
            None => {
                let what = format!("it knows no pack with blob `{}`", catalog::text_of(blob));
                needs.insert(("index".to_owned(), what));
            }
            Some(pack) if self.bad.contains(pack) || !self.packs.contains_key(pack) => {
                let what = "it is not there, or not what was written".to_owned();
                needs.insert((path_of(FileType::Pack, pack), what));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use drover_backup_protocol::{Create, Source};

    use super::*;
    use crate::report::Reporter;
    use crate::repository::Make;
    use crate::storage;
    use crate::storage::watched::{Watch, Watched, place};

    /// The names of all files beneath a folder.
    fn names(folder: &Path) -> HashSet<String> {
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        let names = entries.flat_map(|entry| match entry.path().is_dir() {
            true => names(&entry.path()),
            false => HashSet::from([entry.file_name().into_string().unwrap()]),
        });
        names.collect()
    }

    #[test]
    fn a_backup_that_ends_meanwhile_is_no_damage() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("password"), "x").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path("password"), mode).unwrap();
        let place = place(folder.path());
        let reporter = Reporter::new(Box::new(std::io::sink()));
        let (session, _) = Session::open(&place, Make::IfMissing, &reporter).unwrap();
        let before = names(&path("repository"));
        std::fs::write(path("image"), [7; 100_000]).unwrap();
        let create = Create {
            volume: "disk".to_owned(),
            host: "one".to_owned(),
            time: None,
            tags: Vec::new(),
            facts: BTreeMap::new(),
            source: Source::Block {
                path: path("image"),
                size: 100_000,
                changed: None,
            },
            parent: None,
            init: false,
        };
        crate::save::create(&session, &create).unwrap();
        let late = &names(&path("repository")) - &before;
        assert_eq!(late.len(), 4, "two packs, an index, a snapshot: {late:?}");
        // Opening, locking and checking list less often.
        for after in 0..20 {
            let watch = Watch {
                late: late.clone(),
                after,
                ..Watch::default()
            };
            let watched = Watched {
                inner: storage::open(&place).unwrap(),
                watch: watch.into(),
            };
            let session = Session::of(Box::new(watched), &place, Make::Never, &reporter);
            let checked = check(&session.unwrap().0, true).unwrap();
            assert_eq!(checked.problems, [], "after {after} lists");
        }
    }
}
