//! URLs of repositories, and the files with what their targets need besides.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use drover_backup_protocol::FailureKind;

use crate::failure::{Result, failure};

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// A directory of this host, or of a file system that is mounted here.
    Directory(PathBuf),
    /// A bucket of Amazon S3, or of anything that speaks its protocol.
    S3 {
        /// The bucket.
        bucket: String,
        /// The repository's path in it.
        root: String,
    },
    /// A bucket of Google Cloud Storage.
    Gcs {
        /// The bucket.
        bucket: String,
        /// The repository's path in it.
        root: String,
    },
    /// A container of Azure Blob Storage.
    Azure {
        /// The container.
        container: String,
        /// The repository's path in it.
        root: String,
    },
    /// A directory behind ssh.
    Sftp {
        /// `ssh://USER@HOST:PORT`.
        endpoint: String,
        /// The repository's path there.
        root: String,
    },
}

/// Reads a repository's URL.
pub(crate) fn parse(url: &str) -> Result<Location> {
    let wrong = |what: &str| {
        failure(
            FailureKind::InvalidInput,
            format!("the repository `{}` {what}", without_secret(url)),
        )
    };
    if url.starts_with('/') {
        return Ok(Location::Directory(PathBuf::from(url)));
    }
    let (scheme, rest) = url.split_once("://").ok_or_else(|| {
        wrong("is not a URL: write an absolute path, or file://, s3://, gs://, azure:// or sftp://")
    })?;
    if scheme == "file" {
        if !rest.starts_with('/') {
            return Err(wrong("needs an absolute path: file:///PATH"));
        }
        return Ok(Location::Directory(PathBuf::from(rest)));
    }
    let (place, root) = rest.split_once('/').unwrap_or((rest, ""));
    if place.is_empty() {
        return Err(wrong("names no bucket, container or host"));
    }
    if place
        .rsplit_once('@')
        .is_some_and(|(user, _)| user.contains(':'))
    {
        return Err(wrong("holds a password: secrets go into the options file"));
    }
    let (place, root) = (place.to_owned(), format!("/{}", root.trim_matches('/')));
    match scheme {
        "s3" => Ok(Location::S3 {
            bucket: place,
            root,
        }),
        "gs" | "gcs" => Ok(Location::Gcs {
            bucket: place,
            root,
        }),
        "azure" | "azblob" => Ok(Location::Azure {
            container: place,
            root,
        }),
        "sftp" => Ok(Location::Sftp {
            endpoint: format!("ssh://{place}"),
            root,
        }),
        _ => Err(wrong(
            "has a scheme that is not known: there are file, s3, gs, azure and sftp",
        )),
    }
}

/// The URL as it may be shown: without what looks like a password.
pub(crate) fn without_secret(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    match place.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:...@{host}/{path}")
        }
        _ => url.to_owned(),
    }
}

/// Reads the options of a target: lines of `name = value`, `#` begins a comment.
pub(crate) fn options(file: Option<&Path>) -> Result<BTreeMap<String, String>> {
    let Some(path) = file else {
        return Ok(BTreeMap::new());
    };
    let text = read_secret(path, "options file")?;
    let mut options = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| {
            failure(
                FailureKind::InvalidInput,
                format!(
                    "line {} of the options file `{}` is not `name = value`",
                    number + 1,
                    path.display()
                ),
            )
        })?;
        let value = value.trim().trim_matches('"');
        options.insert(name.trim().to_lowercase(), value.to_owned());
    }
    Ok(options)
}

/// Reads a file with a secret, which nobody but its owner may write and others may not read.
pub(crate) fn read_secret(path: &Path, what: &str) -> Result<String> {
    let wrong = |fault: String| {
        failure(
            FailureKind::InvalidInput,
            format!("the {what} `{}` {fault}", path.display()),
        )
    };
    let metadata =
        std::fs::metadata(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if metadata.is_file() && metadata.mode() & 0o006 != 0 {
        return Err(wrong(
            "may be read by every user of this host: take that away with `chmod 600`".to_owned(),
        ));
    }
    std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let read = |url| parse(url).unwrap();
        assert_eq!(read("/srv/b"), Location::Directory("/srv/b".into()));
        assert_eq!(read("file:///srv/b"), Location::Directory("/srv/b".into()));
        let bucket = Location::S3 {
            bucket: "b".to_owned(),
            root: "/a/c".to_owned(),
        };
        assert_eq!(read("s3://b/a/c/"), bucket);
        let server = Location::Sftp {
            endpoint: "ssh://u@h:22".to_owned(),
            root: "/srv".to_owned(),
        };
        assert_eq!(read("sftp://u@h:22/srv"), server);
        assert!(matches!(read("gs://b"), Location::Gcs { .. }));
        assert!(matches!(read("azure://c/x"), Location::Azure { .. }));
    }

    #[test]
    fn what_is_no_url_is_refused_with_a_reason() {
        for (url, word) in [
            ("backups", "not a URL"),
            ("file://srv", "absolute"),
            ("s3:///x", "no bucket"),
            ("ftp://h/x", "not known"),
            ("sftp://u:hunter2@h/x", "options file"),
        ] {
            let failure = parse(url).unwrap_err();
            assert!(failure.message.contains(word), "{url}: {}", failure.message);
            assert!(!failure.message.contains("hunter2"), "{}", failure.message);
        }
    }
}
