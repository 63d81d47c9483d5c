//! Programs of the system, run with a time limit and nothing of our environment.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Where programs are looked for.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of what a program says is told.
const TOLD: usize = 400;

/// Whether a program is installed.
#[must_use]
pub fn is_installed(name: &str) -> bool {
    std::env::split_paths(PATH).any(|folder| folder.join(name).is_file())
}

/// Runs a program to its end, and returns what it wrote.
///
/// # Errors
/// When it cannot be started, fails, or takes longer than `limit`; it is ended then.
pub fn run<A: AsRef<OsStr>>(
    program: &'static str,
    arguments: impl IntoIterator<Item = A>,
    limit: Duration,
) -> Result<String> {
    let failed = |output: String| Error::Program { program, output };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let readers = [
        child.stdout.take().map(|pipe| read_all(Box::new(pipe))),
        child.stderr.take().map(|pipe| read_all(Box::new(pipe))),
    ];
    let began = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if began.elapsed() < limit => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => break Err(format!("was not done within {limit:?}")),
            Err(error) => break Err(error.to_string()),
        }
    };
    if status.is_err() {
        drop(child.kill());
        drop(child.wait());
    }
    let texts = readers.map(|reader| reader.and_then(|it| it.join().ok()).unwrap_or_default());
    let [output, errors] = texts;
    match status {
        Ok(status) if status.success() => Ok(output),
        Ok(status) => {
            let said = if errors.trim().is_empty() {
                &output
            } else {
                &errors
            };
            let said = said.trim().replace('\n', "; ");
            Err(failed(format!(
                "{status}: {}",
                said.chars().take(TOLD).collect::<String>()
            )))
        }
        Err(problem) => Err(failed(problem)),
    }
}

fn read_all(mut pipe: Box<dyn Read + Send>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before a failure is told all the same.
        drop(pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_told_and_one_that_hangs_is_ended() {
        let limit = Duration::from_secs(5);
        assert_eq!(run("echo", ["a"], limit).unwrap(), "a\n");
        let error = run("sh", ["-c", "echo why >&2; exit 3"], limit).unwrap_err();
        assert!(error.to_string().contains("3: why"), "{error}");
        let error = run("sleep", ["60"], Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("was not done within"), "{error}");
        assert!(!is_installed("no-such-program"));
    }
}
