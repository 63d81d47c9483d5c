//! The record of owners as it lies on the disk: what it was when it was last written whole, and behind that a line for each change since,
//! so that a call that makes something does not wait until everything that there is has been written.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tracing::{error, warn};

use super::{Change, Record, VERSION};

/// After so many changes a record is written whole, if it has not more owners than that itself.
const CHANGES: usize = 1000;

/// The file of a record.
#[derive(Debug)]
pub(in crate::owners) struct RecordFile {
    path: PathBuf,
    /// Where changes are added, when what is there is whole.
    end: Option<File>,
    /// How many have been added since.
    changes: usize,
}

impl RecordFile {
    /// What is on the disk, and since when; nothing when there is nothing, or nothing that can be read.
    pub(in crate::owners) fn open(path: PathBuf) -> (Self, Option<(Record, SystemTime)>) {
        let modified = path.metadata().and_then(|found| found.modified());
        let written = modified.unwrap_or_else(|_| SystemTime::now());
        let record = read(&path).map(|record| (record, written));
        let file = Self {
            path,
            end: None,
            changes: 0,
        };
        (file, record)
    }

    pub(in crate::owners) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds changes, which the record has already.
    pub(in crate::owners) fn add(&mut self, changes: &[Change], record: &Record) {
        let enough = record.owners.len().max(CHANGES);
        let is_there = |end: &File| end.metadata().is_ok_and(|found| found.nlink() > 0);
        let end = self.end.take();
        let end = end.filter(|end| self.changes < enough && is_there(end));
        let Some(mut end) = end else {
            return self.replace(record);
        };
        match lines(changes).and_then(|lines| end.write_all(&lines)) {
            Ok(()) => {
                self.changes += changes.len();
                self.end = Some(end);
            }
            // Half a line may be there now, and nothing can be added behind it.
            Err(_) => self.replace(record),
        }
    }

    /// Writes the record whole.
    pub(in crate::owners) fn replace(&mut self, record: &Record) {
        self.changes = 0;
        self.end = match replace(&self.path, record) {
            Ok(file) => Some(file),
            Err(error) => {
                warn!(file = %self.path.display(), %error, "the record of owners is not on the disk");
                None
            }
        };
    }
}

fn lines(changes: &[Change]) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for change in changes {
        serde_json::to_writer(&mut lines, change)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Puts the record in the place of what is on the disk.
fn replace(path: &Path, record: &Record) -> io::Result<File> {
    let under_way = path.with_extension("new");
    let mut text = serde_json::to_vec(record)?;
    text.push(b'\n');
    let mut file = File::create(&under_way)?;
    file.write_all(&text)?;
    fs::rename(under_way, path)?;
    Ok(file)
}

fn read(path: &Path) -> Option<Record> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                error!(file = %path.display(), %error, "the record of owners cannot be read");
            }
            return None;
        }
    };
    let (record, fault) = parse(&text);
    if let Some(fault) = fault {
        let kept = drover_daemon::set_aside(path);
        error!(file = %path.display(), %fault, ?kept, "the record of owners cannot be read, and is set aside");
    }
    record
}

/// A record as far as it can be read, and what is wrong with it.
fn parse(text: &[u8]) -> (Option<Record>, Option<String>) {
    // What a loss of power has left of a line was the answer to nobody.
    let whole = text.iter().rposition(|byte| *byte == b'\n');
    let text = whole.and_then(|end| text.get(..end)).unwrap_or(text);
    let mut lines = text.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let mut record = match serde_json::from_slice::<Record>(first) {
        Ok(record) if record.version == VERSION => record,
        Ok(_) => return (None, Some("it is of another version".to_owned())),
        Err(error) => return (None, Some(error.to_string())),
    };
    for (number, line) in (2..).zip(lines) {
        match serde_json::from_slice(line) {
            Ok(change) => record.apply(&change),
            Err(error) => {
                let fault = format!("line {number}: {error}; what was before it is used");
                return (Some(record), Some(fault));
            }
        };
    }
    (Some(record), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(key: &str, owner: &str) -> Change {
        let (key, owner) = (key.to_owned(), owner.to_owned());
        Change::Owner { key, owner }
    }

    /// A file to which changes have been added, and the record that it is to have.
    fn added(path: &Path, changes: &[Change]) -> Record {
        let (mut file, found) = RecordFile::open(path.to_owned());
        let mut record = found.map_or_else(Record::default, |(record, _)| record);
        for change in changes {
            record.apply(change);
            file.add(std::slice::from_ref(change), &record);
        }
        record
    }

    #[test]
    fn what_is_added_is_read_with_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owners.json");
        added(
            &path,
            &[owner("Container/a", "ann"), owner("Container/b", "ann")],
        );
        let first = fs::read(&path).unwrap();
        let key = "Container/a".to_owned();
        let changes = [
            owner("Volume/v", "bob"),
            Change::Forget { key },
            owner("Volume/v", "cid"),
        ];
        let record = added(&path, &changes);
        assert_eq!(
            first.iter().filter(|byte| **byte == b'\n').count(),
            2,
            "the second change was added"
        );
        assert_eq!(read(&path).unwrap().owners, record.owners);
        assert_eq!(record.owners.len(), 2);
    }

    #[test]
    fn half_a_line_at_the_end_is_none_and_nothing_is_added_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owners.json");
        added(
            &path,
            &[owner("Container/a", "ann"), owner("Container/b", "ann")],
        );
        let mut text = fs::read(&path).unwrap();
        text.truncate(text.len() - 5);
        fs::write(&path, text).unwrap();
        assert_eq!(read(&path).unwrap().owners.len(), 1);
        added(&path, &[owner("Container/c", "ann")]);
        assert_eq!(read(&path).unwrap().owners.len(), 2);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "it was whole"
        );
    }

    #[test]
    fn a_line_that_is_damaged_is_told_and_kept_with_what_is_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owners.json");
        let changes = ["a", "b", "c"].map(|key| owner(key, "ann"));
        added(&path, &changes);
        let text = fs::read_to_string(&path).unwrap().replace("\"b\"", "\"b");
        fs::write(&path, text).unwrap();
        assert_eq!(read(&path).unwrap().owners.len(), 1);
        assert!(!path.exists(), "it was not set aside");
    }

    #[test]
    fn a_record_does_not_grow_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owners.json");
        let changes: Vec<Change> = (0..CHANGES * 2 + 10)
            .map(|_| owner("Container/a", "ann"))
            .collect();
        added(&path, &changes);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() <= CHANGES + 1);
    }

    #[test]
    fn a_change_that_could_not_be_written_is_there_with_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone/owners.json");
        let (mut file, _) = RecordFile::open(path.clone());
        let mut record = Record::default();
        record.apply(&owner("Container/a", "ann"));
        file.add(&[owner("Container/a", "ann")], &record);
        fs::create_dir(folder.path().join("gone")).unwrap();
        record.apply(&owner("Container/b", "ann"));
        file.add(&[owner("Container/b", "ann")], &record);
        assert_eq!(read(&path).unwrap().owners, record.owners);
    }
}
