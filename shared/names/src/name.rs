//! Which texts are names, and how they are compared.

/// The longest name as text: 255 bytes on the wire.
const LONGEST: usize = 253;
/// The longest label.
const LONGEST_LABEL: usize = 63;

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It, or one of its labels, is empty.
    #[error("it has an empty label")]
    Empty,
    /// It is too long.
    #[error("it has more than {LONGEST} bytes")]
    TooLong,
    /// One of its labels is too long.
    #[error("a label of it has more than {LONGEST_LABEL} bytes")]
    LabelTooLong,
    /// It has another character.
    #[error("it has other characters than letters, digits, `-`, `_` and dots")]
    Character,
}

/// A name in the form in which names are compared: lower case, no dot at its end.
pub(crate) fn fold(text: &str) -> Result<String, NameError> {
    if text.len() > LONGEST {
        return Err(NameError::TooLong);
    }
    for label in text.split('.') {
        if label.is_empty() {
            return Err(NameError::Empty);
        }
        if !label.bytes().all(is_inner) {
            return Err(NameError::Character);
        }
        if label.len() > LONGEST_LABEL {
            return Err(NameError::LabelTooLong);
        }
    }
    Ok(text.to_ascii_lowercase())
}

/// Labels as they came over the wire, in the same form; `None` when no container can be called so.
pub(crate) fn fold_labels<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut name = String::with_capacity(64);
    for label in labels {
        if !label.iter().copied().all(is_inner) {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(
            label
                .iter()
                .map(|byte| char::from(byte.to_ascii_lowercase())),
        );
    }
    (!name.is_empty()).then_some(name)
}

/// A text that somebody chose, for a person's eyes: short, and without control characters.
pub(crate) fn printable(text: &str) -> String {
    let harmless = |character: char| {
        if character.is_control() {
            '?'
        } else {
            character
        }
    };
    text.chars().take(80).map(harmless).collect()
}

const fn is_inner(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_name_and_what_is_not() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        for (text, expected) in [
            ("web", Ok("web")),
            ("Web_1", Ok("web_1")),
            ("api.example.com", Ok("api.example.com")),
            (&label, Ok(label.as_str())),
            (&longest, Ok(longest.as_str())),
            ("", Err(NameError::Empty)),
            ("a..b", Err(NameError::Empty)),
            ("web.", Err(NameError::Empty)),
            ("a b", Err(NameError::Character)),
            ("a\u{7}b", Err(NameError::Character)),
            ("bücher", Err(NameError::Character)),
            (&format!("{label}a"), Err(NameError::LabelTooLong)),
            (&format!("{longest}b"), Err(NameError::TooLong)),
        ] {
            assert_eq!(fold(text).as_deref(), expected.as_deref(), "{text:?}");
        }
    }

    #[test]
    fn labels_from_the_wire_are_compared_in_the_same_form() {
        let folded = |labels: &[&[u8]]| fold_labels(labels.iter().copied());
        assert_eq!(folded(&[b"wEb", b"App"]).as_deref(), Some("web.app"));
        assert_eq!(
            folded(&[b"a.b"]),
            None,
            "a dot inside of a label parts none"
        );
        assert_eq!(folded(&[b"\xff"]), None);
        assert_eq!(folded(&[]), None);
    }

    #[test]
    fn what_somebody_chose_does_not_disturb_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a?[2Jb?");
        assert_eq!(printable(&"x".repeat(500)).len(), 80);
    }
}
