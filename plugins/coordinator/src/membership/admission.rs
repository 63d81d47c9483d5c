//! Who is let in, on the first host.

use std::collections::BTreeSet;
use std::time::Duration;

use drover_control_api::record::{HostRecord, TokenRecord, UnixSeconds};
use drover_control_api::{Empty, Failure};
use drover_model::HostName;
use drover_pki::{Authority, Certificate, Subject, Token};
use drover_store::{Store, Transaction};
use tokio::sync::Mutex;

use super::failure::{self, conflict, denied, internal, invalid, unavailable};
use super::home::ClusterFile;
use super::initiate::first_subject;
use super::member_key;
use super::protocol::{JoinAnswer, JoinRequest, RenewAnswer, RenewRequest, WithdrawRequest};
use crate::host::lowest_free;

/// How far the clocks of a cluster's hosts may be apart.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// How often a join is tried that others got in the way of.
const ATTEMPTS: u32 = 5;

/// The first host's say.
pub(super) struct Admission {
    pub(super) store: Store,
    pub(super) authority: Authority,
    pub(super) cluster: ClusterFile,
    pub(super) certificate_lifetime: Duration,
    /// One at a time: an index is free until a record has it.
    pub(super) turn: Mutex<()>,
}

impl Admission {
    /// Lets a host in: the use of the token and the host's record are one transaction.
    pub(super) async fn join(
        &self,
        request: &JoinRequest,
        now: UnixSeconds,
    ) -> Result<JoinAnswer, Failure> {
        let _turn = self.turn.lock().await;
        if request.cluster != self.cluster.cluster {
            return Err(denied(format!(
                "the token is of another cluster ({}): make one with `drover init` on host `{}`",
                request.cluster, self.cluster.host
            )));
        }
        for _ in 0..ATTEMPTS {
            if let Some(answer) = self.try_join(request, now).await? {
                return Ok(answer);
            }
        }
        Err(unavailable(
            "the store was changed by others again and again; try once more",
        ))
    }

    async fn try_join(
        &self,
        request: &JoinRequest,
        now: UnixSeconds,
    ) -> Result<Option<JoinAnswer>, Failure> {
        let key = format!("tokens/{}", Token::hash_of_secret(&request.secret));
        let token = self.store.get_record::<TokenRecord>(&key).await;
        let token = token.map_err(|error| failure::store(&error))?;
        let Some((token, revision)) = token else {
            return Err(denied(format!(
                "this cluster does not know the token: make one with `drover init` on host `{}`",
                self.cluster.host
            )));
        };
        let hosts = super::hosts(&self.store).await?;
        let again = hosts.iter().find(|host| {
            host.name == request.host
                && host.member == request.member
                && token.used_by.as_ref() == Some(&request.host)
        });
        if let Some(record) = again {
            // It was let in, and asks again because it did not get the answer.
            let certificate = self.sign(&request.request, record, now)?;
            return Ok(Some(self.answer(&certificate, record, &hosts)));
        }
        check_token(&token, now)?;
        check_clock(request, now)?;
        check_place(request, &hosts)?;
        let taken: BTreeSet<_> = hosts.iter().map(|host| host.index).collect();
        let Some(index) = lowest_free(&taken) else {
            return Err(conflict("the cluster is full: it has 4095 hosts"));
        };
        let record = HostRecord {
            version: 1,
            name: request.host.clone(),
            member: request.member.clone(),
            index,
            advertise: request.advertise,
            link: request.link,
            underlay_mtu: request.underlay_mtu,
            prefixes: request.prefixes.clone(),
            addresses: BTreeSet::new(),
            software: request.software.clone(),
            joined_at: now,
        };
        // Signing comes first: a request that cannot be signed uses no token.
        let certificate = self.sign(&request.request, &record, now)?;
        let used = TokenRecord {
            used_by: Some(request.host.clone()),
            ..token
        };
        let host = format!("hosts/{}", request.host);
        let admit = || {
            Transaction::new()
                .if_unchanged(&key, revision)
                .if_absent(&host)
                .put(member_key(&request.member), request.host.as_str())
                .delete(format!("keys/{}", request.host))
                .put_record(&key, &used)?
                .put_record(&host, &record)
        };
        let admit = admit().map_err(|error| internal(&error))?;
        let outcome = self
            .store
            .commit(admit)
            .await
            .map_err(|error| failure::store(&error))?;
        if !outcome.is_committed() {
            return Ok(None);
        }
        tracing::info!(host = %record.name, address = %record.advertise, "a host has joined");
        Ok(Some(self.answer(&certificate, &record, &hosts)))
    }

    fn answer(
        &self,
        certificate: &Certificate,
        record: &HostRecord,
        hosts: &[HostRecord],
    ) -> JoinAnswer {
        let names = hosts.iter().map(|host| &host.name).chain([&record.name]);
        let names: BTreeSet<_> = names.cloned().collect();
        JoinAnswer {
            certificate: certificate.pem().to_owned(),
            authority: self.authority.certificate().pem().to_owned(),
            index: record.index,
            etcd: self.cluster.etcd,
            endpoints: self.cluster.endpoints.clone(),
            first: self.cluster.host.clone(),
            hosts: names.into_iter().collect(),
        }
    }

    fn sign(
        &self,
        request: &str,
        record: &HostRecord,
        now: UnixSeconds,
    ) -> Result<Certificate, Failure> {
        let subject = if record.name == self.cluster.host {
            first_subject(record.name.as_str(), &record.member, self.cluster.advertise)
        } else {
            Subject {
                name: record.name.to_string(),
                member: record.member.clone(),
                aliases: Vec::new(),
                addresses: vec![record.advertise],
            }
        };
        let signed = self
            .authority
            .sign(request, &subject, now, self.certificate_lifetime);
        signed.map_err(|error| invalid(crate::mirror::chain(&error)))
    }

    /// The next certificate of a member; `name` is that of the certificate it showed.
    pub(super) async fn renew(
        &self,
        name: &HostName,
        request: &RenewRequest,
        now: UnixSeconds,
    ) -> Result<RenewAnswer, Failure> {
        let (record, _) = self.member(name, &request.member).await?;
        let certificate = self.sign(&request.request, &record, now)?;
        Ok(RenewAnswer {
            certificate: certificate.pem().to_owned(),
        })
    }

    /// Undoes the join of a member that could not finish it.
    pub(super) async fn withdraw(
        &self,
        name: &HostName,
        request: &WithdrawRequest,
    ) -> Result<Empty, Failure> {
        let _turn = self.turn.lock().await;
        let (_, revision) = self.member(name, &request.member).await?;
        let host = format!("hosts/{name}");
        let undo = Transaction::new()
            .if_unchanged(&host, revision)
            .delete(member_key(&request.member))
            .delete(format!("keys/{name}"))
            .delete(&host);
        let key = format!("tokens/{}", Token::hash_of_secret(&request.secret));
        let token = self.store.get_record::<TokenRecord>(&key).await;
        let undo = match token.map_err(|error| failure::store(&error))? {
            Some((token, revision)) if token.used_by.as_ref() == Some(name) => {
                let good = TokenRecord {
                    used_by: None,
                    ..token
                };
                let undo = undo.if_unchanged(&key, revision).put_record(&key, &good);
                undo.map_err(|error| internal(&error))?
            }
            _ => undo,
        };
        let outcome = self
            .store
            .commit(undo)
            .await
            .map_err(|error| failure::store(&error))?;
        if !outcome.is_committed() {
            return Err(conflict(format!(
                "host `{name}` was changed meanwhile; try again"
            )));
        }
        tracing::warn!(host = %name, "a host that was let in could not finish, and is out again");
        Ok(Empty {})
    }

    async fn member(&self, name: &HostName, member: &str) -> Result<(HostRecord, u64), Failure> {
        let record = self
            .store
            .get_record::<HostRecord>(&format!("hosts/{name}"))
            .await;
        let record = record.map_err(|error| failure::store(&error))?;
        record.filter(|(record, _)| record.member == member).ok_or_else(|| {
            denied(format!(
                "host `{name}` was removed from the cluster: run `drover leave` there, then join again"
            ))
        })
    }
}

fn check_token(token: &TokenRecord, now: UnixSeconds) -> Result<(), Failure> {
    if let Some(user) = &token.used_by {
        return Err(denied(format!(
            "the token was used by host `{user}`: one is good for one host; make another with `drover init`"
        )));
    }
    if token.expires_at < now {
        let ago = now.saturating_sub(token.expires_at) / 60;
        return Err(denied(format!(
            "the token expired {ago} minutes ago: make another with `drover init`"
        )));
    }
    Ok(())
}

fn check_clock(request: &JoinRequest, now: UnixSeconds) -> Result<(), Failure> {
    let apart = request.clock.abs_diff(now);
    if apart <= CLOCK_TOLERANCE.as_secs() {
        return Ok(());
    }
    let way = if request.clock > now {
        "ahead of"
    } else {
        "behind"
    };
    Err(denied(format!(
        "the clock of host `{}` is {} minutes {way} the cluster's: set it (with NTP, for instance) and \
         join again",
        request.host,
        apart / 60
    )))
}

fn check_place(request: &JoinRequest, hosts: &[HostRecord]) -> Result<(), Failure> {
    if hosts.iter().any(|host| host.name == request.host) {
        return Err(conflict(format!(
            "the cluster has a host `{0}` already: give this one another name with --host-name, or, if it \
             is that host made anew, run `drover host rm {0}` on another first",
            request.host
        )));
    }
    if let Some(other) = hosts
        .iter()
        .find(|host| host.advertise == request.advertise)
    {
        return Err(conflict(format!(
            "address {} is host `{}`'s already: name another with --advertise-addr",
            request.advertise, other.name
        )));
    }
    if request.advertise.is_unspecified() || request.advertise.is_multicast() {
        return Err(invalid(format!(
            "address {} cannot be reached by other hosts: name another with --advertise-addr",
            request.advertise
        )));
    }
    let id = |text: &str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !id(&request.member) {
        return Err(invalid("the member id is not 32 hexadecimal digits"));
    }
    Ok(())
}
