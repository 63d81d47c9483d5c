//! Command lines of a test, and waiting for what they bring about.

#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by a panic, and says on its standard error what a command complained of"
)]

use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// How long a condition is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a command line, whose words are separated by spaces, and says whether it succeeded; what it complained of is printed.
///
/// # Panics
/// When there is no such program.
#[must_use]
pub fn succeeds(line: &str) -> bool {
    let output = output(line);
    if !output.status.success() {
        eprintln!("{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

/// Runs a command line that must succeed, and gives what it printed.
///
/// # Panics
/// When it fails.
pub fn run(line: &str) -> String {
    let output = output(line);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

fn output(line: &str) -> Output {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output();
    output.unwrap_or_else(|error| panic!("`{program}` cannot be run: {error}"))
}

/// Waits for a condition, half a minute at most.
///
/// # Panics
/// When it does not come about; `what` says what was waited for.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
