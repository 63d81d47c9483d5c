//! The time, and names made of it.

use drover_control_api::record::UnixSeconds;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// Seconds since 1970-01-01 UTC.
pub(crate) fn now() -> UnixSeconds {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// A time as RFC 3339; `None` for one that has no such form.
pub(crate) fn rfc3339(seconds: UnixSeconds) -> Option<String> {
    moment(seconds)?.format(&Rfc3339).ok()
}

/// A time as a part of a name, `20261130T013000Z`.
pub(crate) fn stamp(seconds: UnixSeconds) -> String {
    let form = format_description!("[year][month][day]T[hour][minute][second]Z");
    let text = moment(seconds).and_then(|moment| moment.format(&form).ok());
    text.unwrap_or_else(|| seconds.to_string())
}

fn moment(seconds: UnixSeconds) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
}

/// That many random hexadecimal digits, two a byte.
pub(crate) fn random_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
