//! Records in a cluster's store, as whoever has got the certificate of its first host reads and writes them.

use anyhow::Result;

use crate::host::Host;

/// The store of a cluster, asked on its first host.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a>(&'a Host);

impl<'a> Records<'a> {
    /// The store that runs on a host.
    #[must_use]
    pub const fn of(host: &'a Host) -> Self {
        Self(host)
    }

    /// The host that is asked.
    #[must_use]
    pub const fn host(&self) -> &'a Host {
        self.0
    }

    /// A record as it was written.
    ///
    /// # Errors
    /// Fails when the store does not answer.
    pub fn get(&self, key: &str) -> Result<String> {
        self.run(&format!("get --print-value-only /drover/{key}"))
    }

    /// The keys under a prefix.
    ///
    /// # Errors
    /// Fails when the store does not answer.
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let listed = self.run(&format!("get --prefix --keys-only /drover/{prefix}"))?;
        let keys = listed
            .lines()
            .filter_map(|line| line.strip_prefix("/drover/"));
        Ok(keys.map(str::to_owned).collect())
    }

    /// Every key and record, into a file of the host.
    ///
    /// # Errors
    /// Fails when the store does not answer.
    pub fn write_all(&self, file: &str) -> Result<()> {
        self.run(&format!("get --prefix '' > {file}")).map(drop)
    }

    /// Puts a record in the place of another.
    ///
    /// # Errors
    /// Fails when the store does not answer.
    pub fn put(&self, key: &str, record: &str) -> Result<()> {
        self.run(&format!("put /drover/{key} <<'END'\n{record}\nEND"))
            .map(drop)
    }

    /// Takes a record away.
    ///
    /// # Errors
    /// Fails when the store does not answer.
    pub fn delete(&self, key: &str) -> Result<()> {
        self.run(&format!("del /drover/{key}")).map(drop)
    }

    fn run(&self, command: &str) -> Result<String> {
        self.0.run(&format!(
            "pki=/var/lib/drover/pki
             export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=https://{}:4749 ETCDCTL_CACERT=$pki/authority.pem
             export ETCDCTL_CERT=$pki/host.pem ETCDCTL_KEY=$pki/host.pem
             etcdctl {command}",
            self.0.address()
        ))
    }
}
