//! Help with a name that was mistyped.

/// The candidate nearest to `given`, if it is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(given: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(given, candidate), *candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len().max(given.len()) / 2)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_typing_slip_is_recognised_and_a_stranger_is_not() {
        let known = ["encryption", "com.docker.network.driver.mtu"];
        assert_eq!(nearest("encrypton", &known), Some("encryption"));
        assert_eq!(nearest("colour", &known), None);
    }
}
