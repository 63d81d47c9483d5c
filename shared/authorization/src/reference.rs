//! References of images, in their full form.

/// The full form: `alpine` is `docker.io/library/alpine:latest`. An id (`sha256:...`) stays as it is.
#[must_use]
pub fn canonical(reference: &str) -> String {
    if reference.is_empty() || reference.starts_with("sha256:") {
        return reference.to_owned();
    }
    let (domain, rest) = match reference.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        _ => ("docker.io", reference),
    };
    let domain = if domain == "index.docker.io" {
        "docker.io"
    } else {
        domain
    };
    let library = if domain == "docker.io" && !rest.contains('/') {
        "library/"
    } else {
        ""
    };
    let last = rest.rsplit('/').next().unwrap_or(rest);
    let tag = if last.contains([':', '@']) || rest.contains('@') {
        ""
    } else {
        ":latest"
    };
    format!("{domain}/{library}{rest}{tag}")
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn short_forms_are_filled_in() {
        for (short, full) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3", "docker.io/library/alpine:3"),
            ("a/b", "docker.io/a/b:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/a/b:1", "docker.io/a/b:1"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("a@sha256:00", "docker.io/library/a@sha256:00"),
            ("sha256:00", "sha256:00"),
        ] {
            assert_eq!(canonical(short), full);
        }
    }
}
