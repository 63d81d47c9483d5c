//! `drover join`: from a host alone to a member.

use std::net::IpAddr;

use drover_control_api::Failure;
use drover_control_api::coordinator::{Join, Joined};
use drover_control_api::record::{ClusterRecord, UnixSeconds};
use drover_model::HostName;
use drover_pki::{Certificate, HostKey, Token, TokenError, file, tls};
use drover_store::Store;
use serde::{Deserialize, Serialize};

use super::client::Connection;
use super::failure::{conflict, internal, invalid, unavailable};
use super::home::{ClusterFile, Home, Role, read_json, write_json};
use super::protocol::{JOIN, JoinAnswer, JoinRequest, WITHDRAW, WithdrawRequest};
use super::random_id;
use crate::host::{Facts, NoAddress};
use crate::mirror::chain;

/// What this host is told to other hosts; the argument is the address it reaches the first host from.
pub(super) type FactsFrom<'a> = dyn Fn(IpAddr) -> Result<Facts, NoAddress> + Send + Sync + 'a;

/// A host that wants to join.
pub(super) struct Joining<'a> {
    pub(super) home: &'a Home,
    /// The name it wants.
    pub(super) host: HostName,
    /// The Drover networks it has.
    pub(super) networks: &'a [String],
    /// Its clock.
    pub(super) clock: UnixSeconds,
    pub(super) facts: &'a FactsFrom<'a>,
}

/// A join that has begun. With it, a join that was cut off in the middle is gone on with by the same
/// command: the first host knows the member again.
#[derive(Serialize, Deserialize)]
struct Intent {
    /// Version of this file's form: 1.
    version: u32,
    /// The hash of the token.
    token: String,
    host: HostName,
    member: String,
    /// This host's key, PEM.
    key: String,
    /// The signing request for it, PEM.
    request: String,
}

impl Joining<'_> {
    pub(super) async fn join(&self, request: &Join) -> Result<Joined, Failure> {
        self.refuse()?;
        let damaged = |error: TokenError| invalid(chain(&error));
        let token: Token = request.token.parse().map_err(damaged)?;
        let config = tls::joining_client(token.authority()).map_err(|error| internal(&error))?;
        let connection = Connection::open(&request.address, config).await?;
        let facts = (self.facts)(connection.local()).map_err(|error| internal(&error))?;
        let intent = self.intend(&token)?;
        let advertise = facts.advertise;
        let asked = self.request(&token, &intent, facts);
        let answer: JoinAnswer = connection.post(JOIN, &asked).await?;
        let file = ClusterFile {
            version: 1,
            cluster: token.cluster(),
            host: self.host.clone(),
            member: intent.member.clone(),
            advertise,
            role: Role::Member {
                first: answer.first.clone(),
                address: request.address.clone(),
            },
            etcd: answer.etcd,
            endpoints: answer.endpoints.clone(),
            joined_at: self.clock,
        };
        if let Err(failure) = self.settle(&token, &intent, &answer, &file).await {
            return Err(self
                .withdraw(&token, &intent, &request.address, failure)
                .await);
        }
        file::remove(&self.home.join_path()).map_err(|error| internal(&error))?;
        Ok(Joined {
            cluster: file.cluster,
            host: file.host,
            hosts: answer.hosts,
        })
    }

    fn refuse(&self) -> Result<(), Failure> {
        if let Some(file) = self.home.cluster()? {
            return Err(conflict(format!(
                "host `{}` is in a cluster already ({}): run `drover leave` first",
                file.host, file.cluster
            )));
        }
        if !self.networks.is_empty() {
            return Err(conflict(format!(
                "this host has Drover networks of its own ({}), whose addresses the cluster knows nothing \
                 of: remove them with `docker network rm`, join, and create them again",
                self.networks.join(", ")
            )));
        }
        Ok(())
    }

    fn intend(&self, token: &Token) -> Result<Intent, Failure> {
        let path = self.home.join_path();
        let begun: Option<Intent> = read_json(&path)?;
        let same = |begun: &Intent| begun.token == token.hash() && begun.host == self.host;
        if let Some(begun) = begun.filter(same) {
            return Ok(begun);
        }
        let key = HostKey::generate().map_err(|error| internal(&error))?;
        let intent = Intent {
            version: 1,
            token: token.hash(),
            host: self.host.clone(),
            member: random_id()?,
            key: key.pem().to_string(),
            request: key
                .request(self.host.as_str())
                .map_err(|error| internal(&error))?,
        };
        write_json(&path, &intent)?;
        Ok(intent)
    }

    fn request(&self, token: &Token, intent: &Intent, facts: Facts) -> JoinRequest {
        JoinRequest {
            cluster: token.cluster(),
            secret: token.secret().to_string(),
            host: self.host.clone(),
            member: intent.member.clone(),
            request: intent.request.clone(),
            clock: self.clock,
            advertise: facts.advertise,
            link: facts.link,
            underlay_mtu: facts.underlay_mtu,
            prefixes: facts.prefixes,
            software: drover_daemon::VERSION.to_owned(),
        }
    }

    /// Checks that the cluster's store can be used from here, and makes the membership stand.
    async fn settle(
        &self,
        token: &Token,
        intent: &Intent,
        answer: &JoinAnswer,
        file: &ClusterFile,
    ) -> Result<(), Failure> {
        let authority =
            Certificate::from_pem(&answer.authority).map_err(|error| internal(&error))?;
        if authority.fingerprint() != token.authority() {
            return Err(conflict(
                "the first host sent an authority that is not the token's",
            ));
        }
        self.home
            .write_identity(&answer.certificate, &intent.key, &answer.authority)?;
        let config = self.home.etcd_config(file)?;
        let store = Store::connect_etcd(config)
            .await
            .map_err(|error| internal(&error))?;
        let found = store.get_record::<ClusterRecord>("cluster").await.map_err(|error| {
            unavailable(format!(
                "the cluster's store cannot be used from this host; check that its port is not blocked: {}",
                chain(&error)
            ))
        })?;
        if found.is_none_or(|(record, _)| record.id != file.cluster) {
            let endpoints = file.endpoints.join(", ");
            return Err(conflict(format!(
                "etcd at {endpoints} is not the cluster's: from this host another answers there"
            )));
        }
        self.home.write_cluster(file)
    }

    /// Undoes a join that the first host has already made.
    async fn withdraw(
        &self,
        token: &Token,
        intent: &Intent,
        address: &str,
        cause: Failure,
    ) -> Failure {
        let withdraw = async {
            let identity = self.home.read_identity()?;
            let config = tls::client(identity.tls()).map_err(|error| internal(&error))?;
            let request = WithdrawRequest {
                member: intent.member.clone(),
                secret: token.secret().to_string(),
            };
            let connection = Connection::open(address, config).await?;
            connection
                .post::<_, drover_control_api::Empty>(WITHDRAW, &request)
                .await
        };
        let undone = withdraw.await;
        if let Err(failure) = self.home.clear_left_overs().await {
            tracing::error!(%failure, "what a failed `drover join` has made is not all cleared away");
        }
        match undone {
            Ok(_) => cause,
            Err(undo) => Failure::new(
                cause.kind,
                format!(
                    "{cause}; the join could not be undone either ({undo}): run the same `drover join` again \
                     when that is put right"
                ),
            ),
        }
    }
}
