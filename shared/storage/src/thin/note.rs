//! Notes beside objects as tags of LVM, which takes no other text. A tag has at most 1024 characters of few kinds.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What the tags of a note begin with; a digit that tells their order follows, `=`, and a part of the note.
const NOTE: &str = "drover.note";
/// How much of a note a tag has.
const PART: usize = 900;
/// How many tags a note can have.
const MOST: usize = 10;

/// The tags of a note; `None` for one that is too long.
pub(super) fn tags(text: &str) -> Option<Vec<String>> {
    let encoded = URL_SAFE_NO_PAD.encode(text);
    let parts = encoded.as_bytes().chunks(PART);
    if parts.len() > MOST {
        return None;
    }
    let tags = parts.enumerate().map(|(number, part)| {
        let part = String::from_utf8_lossy(part);
        format!("{NOTE}{number}={part}")
    });
    Some(tags.collect())
}

/// Those of the tags that are a note's.
pub(super) fn among(tags: &BTreeSet<String>) -> impl Iterator<Item = &String> {
    // In the order of their numbers, as the set is.
    tags.iter().filter(|tag| tag.starts_with(NOTE))
}

/// The note that tags hold; `None` without one.
pub(super) fn read(tags: &BTreeSet<String>) -> Option<String> {
    let parts = among(tags).filter_map(|tag| tag.split_once('='));
    let encoded: String = parts.map(|(_, part)| part).collect();
    if encoded.is_empty() {
        return None;
    }
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_from_its_tags() {
        for text in ["{}", &"ü".repeat(1500)] {
            let mut set: BTreeSet<String> = tags(text).unwrap().into_iter().collect();
            assert!(set.iter().all(|tag| tag.len() < 1024));
            set.extend(["drover".to_owned(), "drover.ready".to_owned()]);
            assert_eq!(read(&set).as_deref(), Some(text));
        }
        assert_eq!(read(&BTreeSet::from(["drover".to_owned()])), None);
        assert_eq!(tags(&"x".repeat(10_000)), None);
    }
}
