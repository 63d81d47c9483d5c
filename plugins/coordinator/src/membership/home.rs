//! The files of this host's membership, all in the state directory, all mode 0600.
//!
//! | file | what it is |
//! |---|---|
//! | `cluster.json` | which cluster this host is in; it is there exactly while it is in one |
//! | `host.json` | who this host is while it is alone |
//! | `store.redb` | the embedded store; while in a cluster, `store-before-cluster.redb` |
//! | `pki/authority.pem` | the certificate of the cluster's authority |
//! | `pki/authority-key.pem` | its key, on the first host alone |
//! | `pki/host.pem` | this host's certificate and key, in one file so that they change together |
//! | `join.json` | a join that has begun: its member id and key, so that it can be begun again |
//! | `etcd.left-over/`, `pki.left-over/` | of a cluster this host is no longer in, for a person to look at |
//! | `etcd/` | data, log and process id of the etcd that the first host runs |
//! | `etcd-tls/{ca,certificate,key}.pem` | put there by a person, for an etcd of their own that wants TLS |

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use drover_control_api::Failure;
use drover_control_api::record::UnixSeconds;
use drover_daemon::{ClusterSettings, Settings};
use drover_model::HostName;
use drover_pki::{Authority, Certificate, HostKey, Trust, file};
use drover_store::EtcdConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Signer;
use super::etcd::EtcdPlan;
use super::failure::{internal, invalid};

/// What every key begins with in etcd.
pub(super) const PREFIX: &str = "/drover/";

/// Which cluster this host is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClusterFile {
    /// Version of this file's form: 1.
    pub(super) version: u32,
    /// The cluster's id.
    pub(super) cluster: String,
    /// This host's name in it.
    pub(super) host: HostName,
    /// This host's member id.
    pub(super) member: String,
    /// Where other hosts reach this one.
    pub(super) advertise: IpAddr,
    /// What this host is in it.
    pub(super) role: Role,
    /// Whose etcd it is.
    pub(super) etcd: EtcdKind,
    /// The client URLs of etcd.
    pub(super) endpoints: Vec<String>,
    /// When this host joined.
    pub(super) joined_at: UnixSeconds,
}

/// What a host is in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub(super) enum Role {
    /// The host that made the cluster: it has the authority.
    First,
    /// Another.
    Member {
        /// The name of the first host.
        first: HostName,
        /// Where it lets hosts in and renews certificates.
        address: String,
    },
}

/// Whose etcd it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EtcdKind {
    /// Drover's: the first host runs it, with the cluster's certificates.
    Own,
    /// One that was there before.
    Given,
}

/// Who a host is while it is alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AloneFile {
    /// Version of this file's form: 1.
    pub(super) version: u32,
    /// Its name.
    pub(super) host: HostName,
    /// Its member id.
    pub(super) member: String,
}

/// Where the files are, and the settings that matter here.
#[derive(Debug, Clone)]
pub(super) struct Home {
    state_dir: PathBuf,
    pub(super) settings: ClusterSettings,
    /// The etcd program: a name to be looked up, or a path.
    pub(super) etcd_program: PathBuf,
}

impl Home {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            state_dir: settings.state_dir.clone(),
            settings: settings.cluster.clone(),
            etcd_program: "etcd".into(),
        }
    }

    pub(super) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    pub(super) fn cluster_path(&self) -> PathBuf {
        self.state_dir.join("cluster.json")
    }

    pub(super) fn embedded(&self) -> PathBuf {
        self.state_dir.join("store.redb")
    }

    pub(super) fn join_path(&self) -> PathBuf {
        self.state_dir.join("join.json")
    }

    fn alone_path(&self) -> PathBuf {
        self.state_dir.join("host.json")
    }

    pub(super) fn pki(&self) -> PathBuf {
        self.state_dir.join("pki")
    }

    pub(super) fn authority_path(&self) -> PathBuf {
        self.pki().join("authority.pem")
    }

    pub(super) fn authority_key_path(&self) -> PathBuf {
        self.pki().join("authority-key.pem")
    }

    pub(super) fn identity_path(&self) -> PathBuf {
        self.pki().join("host.pem")
    }

    pub(super) fn etcd_dir(&self) -> PathBuf {
        self.state_dir.join("etcd")
    }

    /// The cluster this host is in, if it is in one.
    pub(super) fn cluster(&self) -> Result<Option<ClusterFile>, Failure> {
        read_json(&self.cluster_path())
    }

    pub(super) fn write_cluster(&self, cluster: &ClusterFile) -> Result<(), Failure> {
        write_json(&self.cluster_path(), cluster)
    }

    pub(super) fn alone(&self) -> Result<Option<AloneFile>, Failure> {
        read_json(&self.alone_path())
    }

    pub(super) fn write_alone(&self, alone: &AloneFile) -> Result<(), Failure> {
        write_json(&self.alone_path(), alone)
    }

    /// After this, the host is alone; the rest is clearing away.
    pub(super) fn forget_cluster(&self) -> Result<(), Failure> {
        file::remove(&self.cluster_path()).map_err(|error| internal(&error))
    }

    pub(super) fn forget_alone(&self) -> Result<(), Failure> {
        file::remove(&self.alone_path()).map_err(|error| internal(&error))
    }

    /// At a start without a cluster: ends the etcd of one, and sets aside what it has left. It is not
    /// deleted, since the cluster's file could have been lost by an accident.
    pub(super) async fn set_left_overs_aside(&self) -> Result<(), Failure> {
        self.stop_any_etcd().await?;
        for directory in [self.etcd_dir(), self.pki()] {
            if directory.exists() {
                let aside = left_over(&directory);
                remove_directory(&aside)?;
                std::fs::rename(&directory, &aside).map_err(|error| internal(&error))?;
                tracing::warn!(
                    aside = %aside.display(),
                    "this host is in no cluster; what one has left here was set aside"
                );
            }
        }
        Ok(())
    }

    async fn stop_any_etcd(&self) -> Result<(), Failure> {
        self.etcd(String::new(), String::new(), IpAddr::from([127, 0, 0, 1]))
            .stop()
            .await
    }

    /// Deletes what a cluster that this host has left had here, or one that was not made to the end.
    pub(super) async fn clear_left_overs(&self) -> Result<(), Failure> {
        self.stop_any_etcd().await?;
        for directory in [self.etcd_dir(), self.pki()] {
            remove_directory(&left_over(&directory))?;
            remove_directory(&directory)?;
        }
        Ok(())
    }

    /// In a cluster the embedded store is not used; it is kept for a person who has lost everything else.
    pub(super) fn set_embedded_aside(&self) -> Result<(), Failure> {
        let aside = self.state_dir.join("store-before-cluster.redb");
        match std::fs::rename(self.embedded(), &aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(internal(&error)),
            _ => Ok(()),
        }
    }

    /// This host's certificate; `None` when it is alone.
    pub(super) fn certificate(&self) -> Result<Option<Certificate>, Failure> {
        if !self.identity_path().exists() {
            return Ok(None);
        }
        let pem = file::read(&self.identity_path()).map_err(|error| internal(&error))?;
        Certificate::from_pem(&pem)
            .map(Some)
            .map_err(|error| internal(&error))
    }

    /// Writes this host's certificate and key, and the authority's certificate.
    pub(super) fn write_identity(
        &self,
        certificate: &str,
        key: &str,
        authority: &str,
    ) -> Result<(), Failure> {
        let write = || {
            file::make_directory(&self.pki())?;
            file::write(&self.authority_path(), authority.as_bytes())?;
            let both = zeroize::Zeroizing::new(format!("{certificate}\n{key}"));
            file::write(&self.identity_path(), both.as_bytes())
        };
        write().map_err(|error: drover_pki::Error| internal(&error))
    }

    /// This host's certificate and key, and the authority's certificate.
    pub(super) fn read_identity(&self) -> Result<Identity, Failure> {
        let read = |path: &Path| file::read(path).map_err(|error| internal(&error));
        let (both, authority) = (read(&self.identity_path())?, read(&self.authority_path())?);
        Ok(Identity { both, authority })
    }

    /// What this host signs with; `None` when it is alone.
    pub(super) fn signer(&self) -> Result<Option<Signer>, Failure> {
        if !self.identity_path().exists() {
            return Ok(None);
        }
        let Identity { both, authority } = self.read_identity()?;
        let certificate = Certificate::from_pem(&both).map_err(|error| internal(&error))?;
        let key = HostKey::from_pem(&both).map_err(|error| internal(&error))?;
        let trust = Trust::new(&authority).map_err(|error| internal(&error))?;
        Ok(Some(Signer {
            key,
            certificate: certificate.pem().to_owned(),
            trust,
        }))
    }

    /// The cluster's authority, on the first host.
    pub(super) fn authority(&self) -> Result<Authority, Failure> {
        let load = || {
            let key = file::read(&self.authority_key_path())?;
            Authority::load(&file::read(&self.authority_path())?, &key)
        };
        load().map_err(|error| internal(&error))
    }

    /// How to reach the cluster's etcd.
    pub(super) fn etcd_config(&self, file: &ClusterFile) -> Result<EtcdConfig, Failure> {
        match file.etcd {
            EtcdKind::Own => {
                let identity = self.read_identity()?;
                Ok(EtcdConfig {
                    endpoints: file.endpoints.clone(),
                    ca: Some(identity.authority.as_bytes().to_vec()),
                    certificate: Some(identity.both.as_bytes().to_vec()),
                    key: Some(identity.both.as_bytes().to_vec()),
                    prefix: PREFIX.to_owned(),
                })
            }
            EtcdKind::Given => self.given_etcd(&file.endpoints),
        }
    }

    /// How to reach an etcd of the user's.
    pub(super) fn given_etcd(&self, endpoints: &[String]) -> Result<EtcdConfig, Failure> {
        let mut config = EtcdConfig {
            endpoints: endpoints.to_vec(),
            prefix: PREFIX.to_owned(),
            ..EtcdConfig::default()
        };
        let secure = |endpoint: &String| endpoint.starts_with("https://");
        for endpoint in endpoints {
            if !secure(endpoint) && !endpoint.starts_with("http://") {
                return Err(invalid(format!(
                    "etcd endpoint `{endpoint}` is not a URL such as https://192.0.2.10:2379"
                )));
            }
        }
        if endpoints.iter().any(secure) {
            let read = |name: &str| -> Result<Option<Vec<u8>>, Failure> {
                let path = self.state_dir.join("etcd-tls").join(name);
                let found = path.exists().then(|| file::read(&path)).transpose();
                let found = found.map_err(|error| internal(&error))?;
                Ok(found.map(|text| text.as_bytes().to_vec()))
            };
            config.ca = read("ca.pem")?;
            config.certificate = read("certificate.pem")?;
            config.key = read("key.pem")?;
            if config.ca.is_none() {
                let path = self.state_dir.join("etcd-tls/ca.pem");
                return Err(invalid(format!(
                    "etcd wants TLS: put the certificate of its authority into {} (and, if it wants \
                     one of its clients, certificate.pem and key.pem beside it) on every host",
                    path.display()
                )));
            }
        }
        Ok(config)
    }

    /// The etcd that this host is to run; `None` when it runs none.
    pub(super) fn etcd_plan(&self, file: &ClusterFile) -> Option<EtcdPlan> {
        let runs = file.role == Role::First && file.etcd == EtcdKind::Own;
        runs.then(|| self.etcd(file.host.to_string(), file.cluster.clone(), file.advertise))
    }

    pub(super) fn etcd(&self, name: String, cluster: String, advertise: IpAddr) -> EtcdPlan {
        EtcdPlan {
            program: self.etcd_program.clone(),
            dir: self.etcd_dir(),
            name,
            cluster,
            advertise,
            client_port: self.settings.etcd_client_port,
            peer_port: self.settings.etcd_peer_port,
            identity: self.identity_path(),
            authority: self.authority_path(),
        }
    }
}

/// A host's certificate with its key, and its authority's certificate, PEM.
pub(super) struct Identity {
    /// Certificate and key, one after the other.
    pub(super) both: zeroize::Zeroizing<String>,
    /// The authority's certificate.
    pub(super) authority: zeroize::Zeroizing<String>,
}

impl Identity {
    pub(super) fn tls(&self) -> drover_pki::tls::Identity<'_> {
        drover_pki::tls::Identity {
            certificate: &self.both,
            key: &self.both,
            authority: &self.authority,
        }
    }
}

/// Reads a file of ours; `None` when there is none.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    if !path.exists() {
        return Ok(None);
    }
    let text = file::read(path).map_err(|error| internal(&error))?;
    let damaged = |error| {
        Failure::new(
            drover_control_api::FailureKind::Internal,
            format!(
                "{} is damaged ({error}); restore it, or run `drover reset`",
                path.display()
            ),
        )
    };
    serde_json::from_str(&text).map(Some).map_err(damaged)
}

/// Writes a file of ours, whole or not at all.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| internal(&error))?;
    let text = zeroize::Zeroizing::new(text);
    file::write(path, &text).map_err(|error| internal(&error))
}

fn left_over(directory: &Path) -> PathBuf {
    directory.with_extension("left-over")
}

fn remove_directory(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(internal(&error)),
        _ => Ok(()),
    }
}
