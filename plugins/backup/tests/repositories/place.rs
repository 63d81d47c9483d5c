//! A folder with a repository, a password and something to back up; the worker and restic as their users run them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use drover_backup_protocol::{
    Backup, Created, Event, Failure, Operation, Outcome, Repository, Request, Source,
};

pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) repository: Repository,
    /// What the worker and restic find in their environment besides.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Keys are derived once: it takes a second where nothing is optimised.
    _memory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        let url = folder.path().join("repository");
        let password_file = folder.path().join("password");
        secret(&password_file, PASSWORD);
        let repository = Repository {
            url: url.to_str().unwrap().to_owned(),
            password_file,
            options_file: None,
            cache: None,
            keys: Some(memory.path().to_path_buf()),
            bandwidth: None,
        };
        Self {
            folder,
            repository,
            environment: Vec::new(),
            _memory: memory,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn request(&self, operation: Operation) -> Request {
        Request {
            repository: self.repository.clone(),
            operation,
        }
    }

    /// What the worker answers, all of it.
    pub(crate) fn events(&self, operation: Operation) -> Vec<Event> {
        events(&self.worker(operation).wait_with_output().unwrap())
    }

    /// A worker that has its request.
    pub(crate) fn worker(&self, operation: Operation) -> Child {
        let mut command = Command::new(program());
        command.envs(self.environment.iter().cloned());
        asked(command, &self.request(operation))
    }

    pub(crate) fn work(&self, operation: Operation) -> Result<Outcome, Failure> {
        ended(self.events(operation))
    }

    pub(crate) fn create(&self, volume: &str, source: Source) -> Created {
        match self.work(create(volume, source)) {
            Ok(Outcome::Created(created)) => created,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn backups(&self) -> Vec<Backup> {
        match self.work(Operation::List { volume: None }) {
            Ok(Outcome::Listed { backups }) => backups,
            other => panic!("{other:?}"),
        }
    }

    /// What restic says; it has to succeed.
    pub(crate) fn restic(&self, arguments: &[&str]) -> String {
        let done = self.try_restic(arguments);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        let complained = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "restic {arguments:?}: {said}{complained}"
        );
        said
    }

    pub(crate) fn try_restic(&self, arguments: &[&str]) -> Output {
        self.restic_command(arguments)
            .output()
            .expect("restic is installed by run-tests")
    }

    pub(crate) fn restic_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("restic");
        command
            .args([
                "--no-cache",
                "--repo",
                &self.repository.url,
                "--password-file",
            ])
            .arg(&self.repository.password_file)
            .envs(self.environment.iter().cloned())
            .args(arguments);
        command
    }

    /// All files of the repository, with their paths in it.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        all_files(Path::new(&self.repository.url))
    }
}

/// All files beneath a folder.
pub(crate) fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(folder, &mut found);
    found.sort();
    found
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

pub(crate) fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn create(volume: &str, source: Source) -> Operation {
    Operation::Create(drover_backup_protocol::Create {
        volume: volume.to_owned(),
        host: "one".to_owned(),
        time: None,
        tags: Vec::new(),
        facts: [("fs".to_owned(), "ext4".to_owned())].into(),
        source,
        parent: None,
        init: true,
    })
}

/// The worker, which cargo builds beside this program.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let programs = tests.parent().and_then(Path::parent).unwrap();
    programs.join("drover-backup")
}

fn asked(mut command: Command, request: &Request) -> Child {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    serde_json::to_writer(&mut stdin, request).unwrap();
    child
}

pub(crate) fn events(done: &Output) -> Vec<Event> {
    let said = String::from_utf8_lossy(&done.stdout);
    let complained = String::from_utf8_lossy(&done.stderr);
    assert_eq!(complained, "", "standard error stays empty");
    assert!(!said.contains(PASSWORD), "the password is told: {said}");
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn ended(events: Vec<Event>) -> Result<Outcome, Failure> {
    match events.into_iter().next_back() {
        Some(Event::Done { outcome }) => Ok(outcome),
        Some(Event::Failed(failure)) => Err(failure),
        other => panic!("the last event is {other:?}"),
    }
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}
