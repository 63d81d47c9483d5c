//! Tables for a person: aligned columns, no lines.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

/// A table as text, without a line break at its end. Columns in `right` are aligned to the right.
pub(crate) fn table(headers: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headers.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for (position, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&position) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.to_string();
    let lines = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands where there is nothing to say.
pub(crate) const NOTHING_TO_SAY: &str = "-";

/// A value, or the sign that there is none.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| NOTHING_TO_SAY.to_owned(), |value| value.to_string())
}

/// Joined by commas, or the sign that there is none.
pub(crate) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() {
        NOTHING_TO_SAY.to_owned()
    } else {
        items.join(", ")
    }
}

/// How many items of a list a cell holds.
const CELL: usize = 4;

/// Like [`list`], with no more than a cell holds; the rest is counted.
pub(crate) fn short_list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    // One more takes no more room than saying so.
    let more = items.len().saturating_sub(CELL);
    if more <= 1 {
        return list(items);
    }
    format!(
        "{} and {more} more",
        items.into_iter().take(CELL).collect::<Vec<_>>().join(", ")
    )
}

/// How long something is from now, in words of one unit.
pub(crate) fn until(now: u64, then: u64) -> String {
    let (distance, past) = if then >= now {
        (then - now, false)
    } else {
        (now - then, true)
    };
    let (amount, unit) = match distance {
        0..120 => (distance, "second"),
        120..7200 => (rounded(distance, 60), "minute"),
        7200..172_800 => (rounded(distance, 3600), "hour"),
        _ => (rounded(distance, 86_400), "day"),
    };
    let plural = if amount == 1 { "" } else { "s" };
    if past {
        format!("{amount} {unit}{plural} ago")
    } else {
        format!("in {amount} {unit}{plural}")
    }
}

const fn rounded(distance: u64, unit: u64) -> u64 {
    distance.saturating_add(unit / 2) / unit
}

/// Seconds since 1970-01-01 UTC.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_stands_at_the_end_of_a_line() {
        let rows = vec![
            vec!["h1".to_owned(), "7".to_owned(), "x".to_owned()],
            vec!["long-name".to_owned(), "1234".to_owned(), String::new()],
        ];
        let text = table(&["HOST", "COUNT", "PATH"], &[1], rows);
        assert_eq!(
            text,
            "HOST       COUNT  PATH\nh1             7  x\nlong-name   1234"
        );
    }

    #[test]
    fn a_cell_holds_so_many_items_and_counts_the_rest() {
        assert_eq!(short_list(Vec::<u8>::new()), "-");
        assert_eq!(short_list(1..=5), "1, 2, 3, 4, 5");
        assert_eq!(short_list(1..=6), "1, 2, 3, 4 and 2 more");
    }

    #[test]
    fn times_are_said_in_one_unit() {
        assert_eq!(until(1000, 1001), "in 1 second");
        assert_eq!(until(0, 3600), "in 60 minutes");
        assert_eq!(until(0, 30 * 86_400 - 5), "in 30 days");
        assert_eq!(until(7200, 0), "2 hours ago");
    }
}
