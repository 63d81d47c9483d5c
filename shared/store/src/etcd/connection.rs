//! The connection to etcd.

use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

use crate::error::{Error, Result};

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// After this much silence the other side is asked whether it is there.
const PROBE_AFTER: Duration = Duration::from_secs(5);

/// Where etcd is, and what to show it.
#[derive(Clone, Default)]
pub struct EtcdConfig {
    /// `http://HOST:PORT` or `https://HOST:PORT`, each a member of one cluster.
    pub endpoints: Vec<String>,
    /// The authority that the members' certificates are checked with, PEM.
    pub ca: Option<Vec<u8>>,
    /// The certificate of this host, PEM.
    pub certificate: Option<Vec<u8>>,
    /// Its private key, PEM.
    pub key: Option<Vec<u8>>,
    /// What every key begins with in etcd, such as `/drover/`.
    pub prefix: String,
}

impl std::fmt::Debug for EtcdConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// A client and where it leads.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) endpoints: Vec<String>,
}

impl Connection {
    pub(super) async fn open(config: &EtcdConfig) -> Result<Self> {
        let problem = |problem: &str| Error::Config {
            problem: problem.to_owned(),
        };
        if config.endpoints.is_empty() {
            return Err(problem("no endpoint is given"));
        }
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_LIMIT)
            .with_keep_alive(PROBE_AFTER, CONNECT_LIMIT)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if config
            .endpoints
            .iter()
            .any(|endpoint| endpoint.starts_with("https://"))
        {
            let Some(ca) = &config.ca else {
                return Err(problem(
                    "an https endpoint needs the certificate of its authority",
                ));
            };
            let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
            tls = match (&config.certificate, &config.key) {
                (Some(certificate), Some(key)) => {
                    tls.identity(Identity::from_pem(certificate, key))
                }
                (None, None) => tls,
                _ => return Err(problem("a certificate and its key are needed together")),
            };
            options = options.with_tls(tls);
        }
        let client = Client::connect(&config.endpoints, Some(options)).await;
        let client = client.map_err(|error| Error::Config {
            problem: error.to_string(),
        })?;
        Ok(Self {
            client,
            endpoints: config.endpoints.clone(),
        })
    }
}
