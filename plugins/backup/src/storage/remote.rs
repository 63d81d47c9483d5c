//! A repository in an object store or behind ssh, through opendal.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use drover_backup_protocol::{Failure, FailureKind};
use opendal::layers::{RetryLayer, TimeoutLayer};
use opendal::{Buffer, ErrorKind, HttpTransporter, Operator, services};
use opendal_http_transport_reqwest::ReqwestTransport;
use tokio::runtime::Runtime;

use super::{Location, SWEPT, Storage, UNFINISHED};
use crate::failure::{Result, failure, internal};

/// An answer that takes longer is not waited for. A pack is some 16 MiB, so this is 140 kB/s.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a request is made again.
const RETRIES: usize = 5;

/// The repository behind a URL.
#[derive(Debug)]
pub(super) struct Remote {
    runtime: Runtime,
    operator: Operator,
    location: String,
    /// A file there is seen while it is written, and has to be given its name afterwards.
    by_rename: bool,
}

impl Remote {
    /// The repository at a location, with the options of its target.
    pub(super) fn new(
        location: &Location,
        options: BTreeMap<String, String>,
        url: &str,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(internal)?;
        HttpTransporter::install_default(ReqwestTransport::default());
        // Clients take hold of the runtime when they are made.
        let entered = runtime.enter();
        let operator = operator(location, options)
            .map_err(|error| explain(url, "opening", "", &error))?
            .layer(
                TimeoutLayer::new()
                    .with_timeout(PATIENCE)
                    .with_io_timeout(PATIENCE),
            )
            .layer(RetryLayer::new().with_max_times(RETRIES).with_jitter());
        drop(entered);
        Ok(Self {
            runtime,
            operator,
            location: url.to_owned(),
            by_rename: matches!(location, Location::Sftp { .. }),
        })
    }

    fn explain(&self, doing: &str, path: &str, error: &opendal::Error) -> Failure {
        explain(&self.location, doing, path, error)
    }
}

fn operator(
    location: &Location,
    mut options: BTreeMap<String, String>,
) -> opendal::Result<Operator> {
    let mut set = |name: &str, value: &str| options.insert(name.to_owned(), value.to_owned());
    match location {
        Location::Directory(path) => Err(opendal::Error::new(
            ErrorKind::Unsupported,
            path.display().to_string(),
        )),
        Location::S3 { bucket, root } => {
            set("bucket", bucket);
            set("root", root);
            options
                .entry("region".to_owned())
                .or_insert_with(|| "us-east-1".to_owned());
            Operator::from_iter::<services::S3>(options)
        }
        Location::Gcs { bucket, root } => {
            set("bucket", bucket);
            set("root", root);
            Operator::from_iter::<services::Gcs>(options)
        }
        Location::Azure { container, root } => {
            set("container", container);
            set("root", root);
            Operator::from_iter::<services::Azblob>(options)
        }
        Location::Sftp { endpoint, root } => {
            set("endpoint", endpoint);
            set("root", root);
            Operator::from_iter::<services::Sftp>(options)
        }
    }
}

/// One sentence of what opendal tells in many lines; it never holds a secret, and neither does this.
fn explain(location: &str, doing: &str, path: &str, error: &opendal::Error) -> Failure {
    let what = error
        .to_string()
        .split_whitespace()
        .take(60)
        .collect::<Vec<_>>()
        .join(" ");
    let kind = match error.kind() {
        ErrorKind::ConfigInvalid | ErrorKind::Unsupported => FailureKind::InvalidInput,
        _ if what.contains("No space left") || what.contains("QuotaExceeded") => FailureKind::Full,
        _ => FailureKind::Unreachable,
    };
    let object = if path.is_empty() {
        format!("`{location}`")
    } else {
        format!("`{path}` at `{location}`")
    };
    failure(kind, format!("{doing} {object}: {what}"))
}

impl Storage for Remote {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        let folder = format!("{folder}/");
        let listed: opendal::Result<_> = self.runtime.block_on(async {
            let entries = self.operator.list_with(&folder).recursive(true).await?;
            let mut found = Vec::with_capacity(entries.len());
            for entry in entries {
                let metadata = entry.metadata();
                if !metadata.is_file() {
                    continue;
                }
                // Some targets list no sizes.
                let size = match metadata.content_length() {
                    0 => self.operator.stat(entry.path()).await?.content_length(),
                    size => size,
                };
                found.push((entry.name().to_owned(), size));
            }
            Ok(found)
        });
        match listed {
            Ok(found) => Ok(found),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.explain("listing", &folder, &error)),
        }
    }

    fn read(&self, path: &str) -> Result<Option<Bytes>> {
        match self.runtime.block_on(self.operator.read(path)) {
            Ok(content) => Ok(Some(content.to_bytes())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.explain("reading", path, &error)),
        }
    }

    fn read_range(&self, path: &str, offset: u64, length: u64) -> Result<Bytes> {
        let range = offset..offset.saturating_add(length);
        let content = self
            .runtime
            .block_on(async { self.operator.read_with(path).range(range).await })
            .map_err(|error| self.explain("reading", path, &error))?
            .to_bytes();
        if u64::try_from(content.len()).is_ok_and(|got| got == length) {
            return Ok(content);
        }
        let got = content.len();
        let message = format!(
            "reading `{path}` at `{}`: {got} bytes came where {length} were asked for",
            self.location
        );
        Err(failure(FailureKind::Unreachable, message))
    }

    fn write(&self, path: &str, content: &[Bytes]) -> Result<()> {
        let buffer: Buffer = content.iter().cloned().collect();
        let written = self.runtime.block_on(async {
            if !self.by_rename {
                return self.operator.write(path, buffer).await.map(|_| ());
            }
            let unfinished = format!("{path}{UNFINISHED}{}", std::process::id());
            self.operator.write(&unfinished, buffer).await?;
            // A server refuses to rename onto a file that is there; one of the same name has the same content.
            match self.operator.rename(&unfinished, path).await {
                Err(_) if self.operator.exists(path).await? => {
                    self.operator.delete(&unfinished).await
                }
                renamed => renamed,
            }
        });
        written.map_err(|error| self.explain("writing", path, &error))
    }

    fn write_new(&self, path: &str, content: &[Bytes]) -> Result<bool> {
        if !self.operator.info().capability().write_with_if_not_exists {
            if self.size(path)?.is_some() {
                return Ok(false);
            }
            return self.write(path, content).map(|()| true);
        }
        let buffer: Buffer = content.iter().cloned().collect();
        let written = self.runtime.block_on(async {
            self.operator
                .write_with(path, buffer)
                .if_not_exists(true)
                .await
        });
        match written {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::ConditionNotMatch => Ok(false),
            Err(error) => Err(self.explain("writing", path, &error)),
        }
    }

    fn remove(&self, path: &str) -> Result<()> {
        match self.runtime.block_on(self.operator.delete(path)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.explain("removing", path, &error)),
        }
    }

    fn size(&self, path: &str) -> Result<Option<u64>> {
        match self.runtime.block_on(self.operator.stat(path)) {
            Ok(metadata) => Ok(Some(metadata.content_length())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.explain("looking for", path, &error)),
        }
    }

    fn sweep(&self) -> Result<()> {
        if !self.by_rename {
            return Ok(());
        }
        for folder in SWEPT.map(|folder| format!("{folder}/")) {
            let swept: opendal::Result<()> = self.runtime.block_on(async {
                for entry in self.operator.list_with(&folder).recursive(true).await? {
                    if entry.name().contains(UNFINISHED) {
                        self.operator.delete(entry.path()).await?;
                    }
                }
                Ok(())
            });
            match swept {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(self.explain("clearing", &folder, &error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn create(&self) -> Result<()> {
        Ok(())
    }
}
