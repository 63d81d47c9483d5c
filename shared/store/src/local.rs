//! Durable typed tables: the own state of one process, in one file.
//!
//! A write is on the disk when the call returns. Calls block for less than a millisecond, so they may be
//! made from asynchronous code.

use std::fs::{self, OpenOptions};
use std::marker::PhantomData;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redb::{
    DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::error::{Error, Result};

/// How long the end of a predecessor is waited for, and how often it is looked for.
const PREDECESSOR: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(50);

/// A file of tables. A clone is the same file.
#[derive(Debug, Clone)]
pub struct Database(Arc<redb::Database>);

impl Database {
    /// Opens the file, and makes it (mode 0600) if it is not there.
    ///
    /// # Errors
    /// When the file cannot be opened, or another process has it open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self(Arc::new(open_file(path.as_ref())?)))
    }

    /// Opens the state of a process: waits some seconds while a predecessor that ends has it open, and reads all of it to
    /// see that it is sound. Its folder is made if it is missing.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is not sound; when another process keeps it open, or it cannot be opened.
    pub async fn open_own(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(|source| Error::Open {
            path: path.to_owned(),
            source: source.into(),
        })?;
        let began = Instant::now();
        let file = loop {
            match open_sound(path) {
                Err(Error::InUse { .. }) if began.elapsed() < PREDECESSOR => sleep(AGAIN).await,
                other => break other?,
            }
        };
        Ok(Self(Arc::new(file)))
    }

    /// Makes all changes of the batch, or none.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn commit(&self, batch: Batch) -> Result<()> {
        let transaction = self.0.begin_write()?;
        for (table, key, value) in &batch.0 {
            let mut table = transaction.open_table(definition(table))?;
            match value {
                Some(value) => drop(table.insert(key.as_str(), value.as_slice())?),
                None => drop(table.remove(key.as_str())?),
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Changes of any tables of one file that are made together.
#[derive(Debug, Clone, Default)]
#[must_use = "a batch does nothing until it is committed"]
pub struct Batch(Vec<(String, String, Option<Vec<u8>>)>);

impl Batch {
    /// No change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value.
    ///
    /// # Errors
    /// When the value cannot be written as JSON.
    pub fn put<V: Serialize + DeserializeOwned>(
        mut self,
        table: &Table<V>,
        key: &str,
        value: &V,
    ) -> Result<Self> {
        let failed = |source| Error::Record {
            key: key.to_owned(),
            source,
        };
        let value = serde_json::to_vec(value).map_err(failed)?;
        self.0
            .push((table.name.clone(), key.to_owned(), Some(value)));
        Ok(self)
    }

    /// Deletes a key; one that is not there is no fault.
    pub fn delete<V>(mut self, table: &Table<V>, key: &str) -> Self {
        self.0.push((table.name.clone(), key.to_owned(), None));
        self
    }

    /// Whether it would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A table from text keys to values of one type. A clone is the same table.
#[derive(Debug)]
pub struct Table<V> {
    database: Database,
    name: String,
    values: PhantomData<fn() -> V>,
}

impl<V> Clone for Table<V> {
    fn clone(&self) -> Self {
        Self {
            database: self.database.clone(),
            name: self.name.clone(),
            values: PhantomData,
        }
    }
}

impl<V: Serialize + DeserializeOwned> Table<V> {
    /// The table of that name; it is made if it is not there.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(database: &Database, name: &str) -> Result<Self> {
        let transaction = database.0.begin_read()?;
        match transaction.open_table(definition(name)) {
            Ok(_) => {}
            Err(TableError::TableDoesNotExist(_)) => {
                let transaction = database.0.begin_write()?;
                drop(transaction.open_table(definition(name))?);
                transaction.commit()?;
            }
            Err(other) => return Err(other.into()),
        }
        Ok(Self {
            database: database.clone(),
            name: name.to_owned(),
            values: PhantomData,
        })
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When the file cannot be read, or the value is not of this type.
    pub fn get(&self, key: &str) -> Result<Option<V>> {
        let table = self
            .database
            .0
            .begin_read()?
            .open_table(definition(&self.name))?;
        let value = table.get(key)?;
        value.map(|value| decode(key, value.value())).transpose()
    }

    /// Every key and its value, by key.
    ///
    /// # Errors
    /// When the file cannot be read, or a value is not of this type.
    pub fn list(&self) -> Result<Vec<(String, V)>> {
        let table = self
            .database
            .0
            .begin_read()?
            .open_table(definition(&self.name))?;
        let mut all = Vec::new();
        for pair in table.iter()? {
            let (key, value) = pair?;
            all.push((key.value().to_owned(), decode(key.value(), value.value())?));
        }
        Ok(all)
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// When the file cannot be written, or the value cannot be written as JSON.
    pub fn put(&self, key: &str, value: &V) -> Result<()> {
        self.database.commit(Batch::new().put(self, key, value)?)
    }

    /// Deletes a key; one that is not there is no fault.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn delete(&self, key: &str) -> Result<()> {
        self.database.commit(Batch::new().delete(self, key))
    }
}

fn definition(name: &str) -> TableDefinition<'_, &'static str, &'static [u8]> {
    TableDefinition::new(name)
}

fn decode<V: DeserializeOwned>(key: &str, value: &[u8]) -> Result<V> {
    serde_json::from_slice(value).map_err(|source| Error::Record {
        key: key.to_owned(),
        source,
    })
}

/// Opens or makes a redb file that only its owner can read.
pub(crate) fn open_file(path: &Path) -> Result<redb::Database> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Open {
        path: path.to_owned(),
        source,
    };
    // redb would make the file with the default mode; it takes an empty one that is there.
    let options = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .to_owned();
    options.open(path).map_err(|source| failed(source.into()))?;
    redb::Database::create(path).map_err(|error| cannot_open(path, error))
}

/// Opens a file and reads all of it.
fn open_sound(path: &Path) -> Result<redb::Database> {
    // The library panics at some damage; where a panic ends the process, whoever starts it again has to see that.
    let opened = std::panic::catch_unwind(|| {
        let mut file = open_file(path)?;
        // What it had to repair after a kill is repaired.
        file.check_integrity()
            .map_err(|error| cannot_open(path, error))?;
        Ok(file)
    });
    opened.unwrap_or_else(|_| {
        Err(Error::Damaged {
            path: path.to_owned(),
            source: "its parts contradict each other".into(),
        })
    })
}

fn cannot_open(path: &Path, error: DatabaseError) -> Error {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            Error::InUse { path }
        }
        // There has been one format of ours only.
        DatabaseError::Storage(StorageError::Corrupted(_))
        | DatabaseError::UpgradeRequired(_)
        | DatabaseError::RepairAborted => Error::Damaged {
            path,
            source: error.into(),
        },
        DatabaseError::Storage(StorageError::Io(cause)) if is_damage(&cause) => Error::Damaged {
            path,
            source: cause.into(),
        },
        other => Error::Open {
            path,
            source: other.into(),
        },
    }
}

/// What is not a redb file at all, or ends before its end.
fn is_damage(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    matches!(error.kind(), InvalidData | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_put_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        {
            let database = Database::open(&path).unwrap();
            let numbers: Table<u32> = Table::open(&database, "numbers").unwrap();
            let names: Table<String> = Table::open(&database, "names").unwrap();
            let batch = Batch::new().put(&numbers, "b", &2).unwrap();
            let batch = batch.put(&numbers, "a", &1).unwrap();
            let batch = batch.put(&names, "a", &"eins".to_owned()).unwrap();
            database.commit(batch).unwrap();
            numbers.put("c", &3).unwrap();
            numbers.delete("b").unwrap();
            numbers.delete("never there").unwrap();
        }
        let database = Database::open(&path).unwrap();
        let numbers: Table<u32> = Table::open(&database, "numbers").unwrap();
        assert_eq!(
            numbers.list().unwrap(),
            [("a".to_owned(), 1), ("c".to_owned(), 3)]
        );
        assert_eq!(numbers.get("b").unwrap(), None);
        let names: Table<String> = Table::open(&database, "names").unwrap();
        assert_eq!(names.get("a").unwrap().as_deref(), Some("eins"));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_second_opener_and_a_foreign_value_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let database = Database::open(&path).unwrap();
        let refused = Database::open(&path).unwrap_err().to_string();
        assert!(refused.contains("state.redb"), "{refused}");
        let words: Table<String> = Table::open(&database, "mixed").unwrap();
        words.put("key", &"word".to_owned()).unwrap();
        let numbers: Table<u32> = Table::open(&database, "mixed").unwrap();
        assert!(matches!(numbers.get("key"), Err(Error::Record { key, .. }) if key == "key"));
    }

    /// Bytes all over the file are others, one at a time: it is damaged, or as it was after the last commit or the one before
    /// it, and never something else.
    #[tokio::test]
    async fn a_file_that_is_damaged_is_told_from_one_that_is_sound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/state.redb");
        let all: Vec<(String, u32)> = (0..50).map(|it| (format!("key-{it:02}"), it)).collect();
        {
            let database = Database::open_own(&path).await.unwrap();
            let numbers: Table<u32> = Table::open(&database, "numbers").unwrap();
            for (key, value) in &all {
                numbers.put(key, value).unwrap();
            }
        }
        let sound = fs::read(&path).unwrap();
        let mut damaged = 0;
        // The head whole, and some of the rest, of which little is in use.
        let head = (0..512).step_by(4);
        for at in head.chain((512..sound.len()).step_by(sound.len() / 150)) {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x55;
            fs::write(&path, bytes).unwrap();
            match Database::open_own(&path).await {
                Ok(database) => {
                    let numbers: Table<u32> = Table::open(&database, "numbers").unwrap();
                    let list = numbers.list().unwrap();
                    assert!(all.starts_with(&list), "byte {at}: {list:?}");
                    assert!(list.len() + 1 >= all.len(), "byte {at}: {list:?}");
                }
                Err(Error::Damaged { .. }) => damaged += 1,
                Err(other) => panic!("byte {at}: {other}"),
            }
        }
        assert!(damaged > 10, "{damaged}");
        for garbage in [&b"garbage"[..], &sound[..sound.len() / 2], &sound[..100]] {
            fs::write(&path, garbage).unwrap();
            let error = Database::open_own(&path).await.unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
        }
    }
}
