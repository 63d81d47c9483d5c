//! Where the programs are: beside this one, else in `PATH`.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::process::Process;

/// A program is missing.
#[derive(Debug, thiserror::Error)]
#[error("the program `{name}` is neither beside `{}` nor in PATH: install it there", .beside.display())]
pub(crate) struct MissingProgram {
    name: &'static str,
    beside: PathBuf,
}

/// Finds the program of a process.
pub(crate) fn find(process: Process) -> Result<PathBuf, MissingProgram> {
    find_named(process.name())
}

/// Finds a program of Drover.
pub(crate) fn find_named(name: &'static str) -> Result<PathBuf, MissingProgram> {
    let own = env::current_exe().unwrap_or_default();
    let beside = own.parent().map(Path::to_owned).unwrap_or_default();
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(beside)
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|program| is_executable(program))
        .ok_or(MissingProgram { name, beside: own })
}

fn is_executable(program: &Path) -> bool {
    fs::metadata(program)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
