//! The calls.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_http::{Answer, Client, ClientError, Method};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api_version::ApiVersion;
use crate::container::{Container, ContainerDetail};
use crate::error::Error;
use crate::event::{EventFilter, Events};
use crate::network::{CreateNetwork, Network};
use crate::nullable::or_default;
use crate::volume::Volume;

/// How long a question may take.
const QUESTION: Duration = Duration::from_secs(10);
/// How long a change may take: the engine asks the plugins meanwhile, and waits up to 15 s for each.
const CHANGE: Duration = Duration::from_secs(60);

/// An engine. Cheap to clone; the clones share what was learned of it.
#[derive(Clone)]
pub struct Engine {
    address: String,
    client: Client,
    version: Arc<Mutex<Option<ApiVersion>>>,
}

/// Which engine it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    /// The version of the engine.
    pub version: String,
    /// The newest version of the API that it speaks.
    pub api_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VolumeList {
    #[serde(default, deserialize_with = "or_default")]
    volumes: Vec<Volume>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ExecState {
    #[serde(default)]
    exit_code: Option<i64>,
}

/// A command in a container that was not begun yet.
#[derive(Debug, Deserialize)]
pub struct Prepared {
    #[serde(rename = "Id")]
    id: String,
}

/// What came of a command in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Its exit code.
    pub exit_code: i64,
    /// What it wrote, both streams together.
    pub output: String,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

impl Engine {
    /// The engine at `address`: `unix:///var/run/docker.sock` or `tcp://host:port`.
    ///
    /// # Errors
    /// When the address has neither form.
    pub fn new(address: &str) -> Result<Self, Error> {
        let client = Client::tcp_docker_host(address).map_err(|source| Error::Address {
            address: address.to_owned(),
            source,
        })?;
        Ok(Self {
            address: address.to_owned(),
            client,
            version: Arc::default(),
        })
    }

    /// The same with a header that every call gets, if there is one; not over a network, where others would read it.
    #[must_use]
    pub fn with_header(self, name: &'static str, value: Option<String>) -> Self {
        match value {
            Some(value) if self.address.starts_with("unix:") => Self {
                client: self.client.with_header(name, &value),
                ..self
            },
            _ => self,
        }
    }

    /// The address it was made with.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Which engine answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn version(&self) -> Result<Version, Error> {
        self.get("/version").await
    }

    /// Every network, without endpoints.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn networks(&self) -> Result<Vec<Network>, Error> {
        self.get("/networks").await
    }

    /// A network with its endpoints.
    ///
    /// # Errors
    /// When it is not there, or the engine does not answer.
    pub async fn network(&self, id: &str) -> Result<Network, Error> {
        self.get(&format!("/networks/{}", segment(id))).await
    }

    /// Creates a network and returns its id; refuses a second one of the name.
    ///
    /// # Errors
    /// When the engine or a plugin refuses, or the engine does not answer.
    pub async fn create_network(&self, create: &CreateNetwork) -> Result<String, Error> {
        let version = self.api_version().await?;
        let create = CreateNetwork {
            check_duplicate: version < ApiVersion::UNIQUE_NAMES,
            ..create.clone()
        };
        let created: Created = self
            .change(Method::POST, "/networks/create", &create)
            .await?;
        Ok(created.id)
    }

    /// Removes a network.
    ///
    /// # Errors
    /// When it is not there, has endpoints, or the engine does not answer.
    pub async fn remove_network(&self, id: &str) -> Result<(), Error> {
        let path = format!("/networks/{}", segment(id));
        self.send(Method::DELETE, &path, None, CHANGE)
            .await
            .map(|_| ())
    }

    /// The containers that run, paused ones included.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn running_containers(&self) -> Result<Vec<Container>, Error> {
        self.get("/containers/json").await
    }

    /// Every container, those that do not run included.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn containers(&self) -> Result<Vec<Container>, Error> {
        self.get("/containers/json?all=1").await
    }

    /// Every container that refers to a volume, those that do not run included.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn containers_of_volume(&self, volume: &str) -> Result<Vec<Container>, Error> {
        let filter = segment(&serde_json::json!({ "volume": [volume] }).to_string());
        self.get(&format!("/containers/json?all=1&filters={filter}"))
            .await
    }

    /// Every volume with a label of that value. The engine asks its volume plugins meanwhile.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn volumes_labelled(&self, label: &str, value: &str) -> Result<Vec<Volume>, Error> {
        let label = format!("{label}={value}");
        let filter = segment(&serde_json::json!({ "label": [label] }).to_string());
        let list: VolumeList = self.get(&format!("/volumes?filters={filter}")).await?;
        Ok(list.volumes)
    }

    /// Prepares a command in a container. Nothing runs yet: a failure means that nothing was begun.
    ///
    /// # Errors
    /// When the container is not there, does not run or is paused, or the engine does not answer.
    pub async fn prepare(&self, container: &str, command: &[&str]) -> Result<Prepared, Error> {
        let create = serde_json::json!({
            "Cmd": command, "AttachStdout": true, "AttachStderr": true, "Tty": true,
        });
        let path = format!("/containers/{}/exec", segment(container));
        self.change(Method::POST, &path, &create).await
    }

    /// Runs a prepared command to its end, and returns its exit code and what it wrote. One that takes longer than
    /// `limit` goes on: an engine ends no command.
    ///
    /// # Errors
    /// When the command cannot be started, or takes longer. It may have been begun, unless the engine refuses with 409: the
    /// container is stopped or paused.
    pub async fn execute(&self, command: Prepared, limit: Duration) -> Result<Executed, Error> {
        let start = serde_json::json!({ "Detach": false, "Tty": true });
        let path = format!("/exec/{}/start", segment(&command.id));
        let body = Some(start.to_string().into_bytes());
        let answer = self.send(Method::POST, &path, body, limit).await?;
        let done: ExecState = self
            .get(&format!("/exec/{}/json", segment(&command.id)))
            .await?;
        Ok(Executed {
            exit_code: done.exit_code.unwrap_or(-1),
            output: String::from_utf8_lossy(&answer.body).trim().to_owned(),
        })
    }

    /// A container in full. The engine answers once it has finished what it is doing with it.
    ///
    /// # Errors
    /// When it is not there, or the engine does not answer.
    pub async fn container(&self, id: &str) -> Result<ContainerDetail, Error> {
        self.get(&format!("/containers/{}/json", segment(id))).await
    }

    /// What has happened since `since` (seconds since 1970) and what happens from now on.
    ///
    /// The engine answers before it subscribes: with `since` at the time of the call, what
    /// happens in between is not lost.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn events(&self, filter: EventFilter, since: u64) -> Result<Events, Error> {
        let version = self.api_version().await?;
        let path = format!(
            "/v{version}/events?since={since}&filters={}",
            filter.query()
        );
        let call = format!("GET {path}");
        match self.client.lines(&path).await {
            Ok(lines) => Ok(Events { call, lines }),
            Err(source) => Err(self.unreachable(call, source)),
        }
    }

    /// The version of the API that calls are made in.
    ///
    /// # Errors
    /// When the engine does not answer, or names none.
    pub async fn api_version(&self) -> Result<ApiVersion, Error> {
        let known = *self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = known {
            return Ok(version);
        }
        // `/version` is the one path that is asked for without a version, to learn it.
        let call = "GET /version".to_owned();
        let answer = self
            .client
            .send(Method::GET, "/version", None, QUESTION)
            .await
            .map_err(|source| self.unreachable(call.clone(), source))?;
        let version: Version = read(&call, &answer)?;
        let newest: ApiVersion = version.api_version.parse().map_err(Error::NoApiVersion)?;
        let agreed = newest.min(ApiVersion::NEWEST);
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(agreed);
        Ok(agreed)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let answer = self.send(Method::GET, path, None, QUESTION).await?;
        read(&format!("GET {path}"), &answer)
    }

    async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let call = format!("{method} {path}");
        let body = serde_json::to_vec(body).map_err(|source| Error::Unreadable {
            call: call.clone(),
            source,
        })?;
        read(&call, &self.send(method, path, Some(body), CHANGE).await?)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<Answer, Error> {
        let version = self.api_version().await?;
        let call = format!("{method} {path}");
        let path = format!("/v{version}{path}");
        let answer = self.client.send(method, &path, body, limit).await;
        answer
            .map_err(|source| self.unreachable(call.clone(), source))
            .and_then(|answer| {
                if (200..300).contains(&answer.status) {
                    return Ok(answer);
                }
                if answer.status == 400 {
                    // Perhaps another engine answers now, which has no such version.
                    self.forget_version();
                }
                Err(Error::Refused {
                    call,
                    status: answer.status,
                    message: refusal(&answer),
                })
            })
    }

    /// Another engine may answer at this address next, so what was learned is forgotten.
    fn unreachable(&self, call: String, source: ClientError) -> Error {
        self.forget_version();
        Error::Unreachable { call, source }
    }

    fn forget_version(&self) {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn read<T: DeserializeOwned>(call: &str, answer: &Answer) -> Result<T, Error> {
    serde_json::from_slice(&answer.body).map_err(|source| Error::Unreadable {
        call: call.to_owned(),
        source,
    })
}

fn refusal(answer: &Answer) -> String {
    serde_json::from_slice::<Refusal>(&answer.body).map_or_else(
        |_| {
            String::from_utf8_lossy(&answer.body)
                .trim()
                .chars()
                .take(500)
                .collect()
        },
        |refusal| refusal.message,
    )
}

/// An id or a name as one path segment.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_path_segment() {
        assert_eq!(segment("shop_default"), "shop_default");
        assert_eq!(segment("a/../b c"), "a%2F..%2Fb%20c");
    }
}
