//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// How many times longer everything may take here: `DROVER_LAB_PATIENCE`, for machines that are emulated.
#[must_use]
pub fn patience() -> u32 {
    let told = std::env::var("DROVER_LAB_PATIENCE")
        .ok()
        .and_then(|text| text.parse().ok());
    told.unwrap_or(1).max(1)
}

/// Tries until it succeeds, and tells how long that took.
///
/// # Errors
/// Fails with the last failure when the limit has passed.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<(T, Duration)> {
    let begun = Instant::now();
    let limit = limit * patience();
    loop {
        match attempt() {
            Ok(value) => return Ok((value, begun.elapsed())),
            Err(error) if begun.elapsed() >= limit => {
                return Err(error).with_context(|| format!("{what}: not within {limit:?}"));
            }
            // Where everything is slow, looking is too, and takes from what is waited for.
            Err(_) => std::thread::sleep(PAUSE * patience()),
        }
    }
}

/// Checks that a condition stays for a while.
///
/// # Errors
/// Fails as soon as it does.
pub fn throughout(what: &str, span: Duration, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < span {
        check().with_context(|| format!("{what}: not any more after {:?}", begun.elapsed()))?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Seconds, to write limits shortly.
#[must_use]
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
