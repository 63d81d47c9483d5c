//! `drover init`: from a host alone to the first host of a cluster.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use drover_control_api::Failure;
use drover_control_api::coordinator::Invitation;
use drover_control_api::record::{ClusterRecord, HostRecord, TokenRecord, UnixSeconds};
use drover_model::HostIndex;
use drover_pki::{Authority, HostKey, Subject, Token, file, tls};
use drover_store::{Store, Transaction};

use super::failure::{self, conflict, internal};
use super::home::{ClusterFile, EtcdKind, Home, Role};
use super::{member_key, transfer};
use crate::context::Membership;
use crate::host::Facts;

/// What a first host is made of.
pub(super) struct First<'a> {
    pub(super) home: &'a Home,
    /// The store that it has now.
    pub(super) embedded: &'a Store,
    /// Its record, as it is to be in the cluster.
    pub(super) record: HostRecord,
    /// The cluster's id, which a host alone has already.
    pub(super) cluster: String,
    pub(super) now: UnixSeconds,
}

/// The record of a host alone, as it is now.
pub(super) fn own_record(membership: &Membership, facts: Facts, now: UnixSeconds) -> HostRecord {
    HostRecord {
        version: 1,
        name: membership.host.clone(),
        member: membership.member.clone(),
        index: first_index(),
        advertise: facts.advertise,
        link: facts.link,
        underlay_mtu: facts.underlay_mtu,
        prefixes: facts.prefixes,
        addresses: facts.addresses,
        software: drover_daemon::VERSION.to_owned(),
        joined_at: now,
    }
}

impl First<'_> {
    /// Makes the cluster; `endpoints` are those of an etcd of the user's, or none.
    ///
    /// Until `cluster.json` is written, the last but one thing, the host is alone as before, and what was
    /// made is cleared away at the next attempt or start.
    pub(super) async fn init(self, endpoints: &[String]) -> Result<Invitation, Failure> {
        let home = self.home;
        let made = self.make(endpoints).await;
        if made.is_err() {
            self.embedded.thaw().await;
            if let Err(failure) = home.clear_left_overs().await {
                tracing::error!(%failure, "what a failed `drover init` has made is not all cleared away");
            }
        }
        made
    }

    async fn make(&self, endpoints: &[String]) -> Result<Invitation, Failure> {
        let given = !endpoints.is_empty();
        let config = given.then(|| self.home.given_etcd(endpoints)).transpose()?;
        self.home.clear_left_overs().await?;
        let authority = self.make_certificates()?;
        let plan = self.home.etcd(
            self.record.name.to_string(),
            self.cluster.clone(),
            self.record.advertise,
        );
        let file = ClusterFile {
            version: 1,
            cluster: self.cluster.clone(),
            host: self.record.name.clone(),
            member: self.record.member.clone(),
            advertise: self.record.advertise,
            role: Role::First,
            etcd: if given {
                EtcdKind::Given
            } else {
                EtcdKind::Own
            },
            endpoints: if given {
                endpoints.to_vec()
            } else {
                vec![plan.endpoint()]
            },
            joined_at: self.now,
        };
        let config = config.map_or_else(|| self.home.etcd_config(&file), Ok)?;
        let connected = Store::connect_etcd(config)
            .await
            .map_err(|error| internal(&error));
        let store = connected?;
        if !given {
            let pid = plan.ensure_running().await?;
            plan.wait_until_it_answers(&store, pid).await?;
        }
        self.take_store(&store).await?;
        self.carry_over(&store).await?;
        let invitation = invite(&self.home.settings, &store, &authority, &file, self.now).await?;
        self.home.write_cluster(&file)?;
        Ok(invitation)
    }

    fn make_certificates(&self) -> Result<Authority, Failure> {
        let make = || {
            let authority = Authority::generate(&self.cluster, self.now)?;
            let key = HostKey::generate()?;
            let request = key.request(self.record.name.as_str())?;
            let subject = first_subject(
                self.record.name.as_str(),
                &self.record.member,
                self.record.advertise,
            );
            let lifetime = self.home.settings.certificate_lifetime;
            let certificate = authority.sign(&request, &subject, self.now, lifetime)?;
            file::make_directory(&self.home.pki())?;
            file::write(
                &self.home.authority_key_path(),
                authority.key_pem().as_bytes(),
            )?;
            Ok((authority, key, certificate))
        };
        let (authority, key, certificate) =
            make().map_err(|error: drover_pki::Error| internal(&error))?;
        let own = authority.certificate().pem();
        self.home
            .write_identity(certificate.pem(), &key.pem(), own)?;
        Ok(authority)
    }

    /// Makes sure that the etcd is this cluster's: empty, or left by an attempt that did not end.
    async fn take_store(&self, store: &Store) -> Result<(), Failure> {
        let record = ClusterRecord {
            version: 1,
            id: self.cluster.clone(),
            created_at: self.now,
        };
        let take = Transaction::new()
            .if_absent("cluster")
            .put_record("cluster", &record);
        let take = take.map_err(|error| internal(&error))?;
        let taken = store
            .commit(take)
            .await
            .map_err(|error| failure::store(&error))?;
        if !taken.is_committed() {
            let found = store.get_record::<ClusterRecord>("cluster").await;
            let found = found.map_err(|error| failure::store(&error))?;
            let other = found.map(|(record, _)| record.id).unwrap_or_default();
            if other != self.cluster {
                return Err(conflict(format!(
                    "this etcd already has the Drover cluster {other}: join that one with `drover join`, \
                     or use another etcd"
                )));
            }
        }
        transfer::wipe(store, "cluster").await
    }

    async fn carry_over(&self, store: &Store) -> Result<(), Failure> {
        let frozen = self
            .embedded
            .freeze()
            .await
            .map_err(|error| failure::store(&error))?;
        let own = format!("hosts/{}", self.record.name);
        let mut record = self.record.clone();
        let present = frozen.entries.iter().find(|entry| entry.key == own);
        if let Some(Ok(present)) = present.map(drover_store::Entry::decode::<HostRecord>) {
            record.index = present.index;
        }
        transfer::copy(&frozen.entries, store).await?;
        let put = Transaction::new()
            .put(member_key(&record.member), record.name.as_str())
            .put_record(own, &record)
            .map_err(|error| internal(&error))?;
        store
            .commit(put)
            .await
            .map(drop)
            .map_err(|error| failure::store(&error))
    }
}

/// A further token, on the first host.
pub(super) async fn another_token(
    home: &Home,
    file: &ClusterFile,
    store: &Store,
    now: UnixSeconds,
) -> Result<Invitation, Failure> {
    if let Role::Member { first, .. } = &file.role {
        return Err(conflict(format!(
            "host `{}` is a member of a cluster already: run `drover init` on its first host, `{first}`, \
             for another token",
            file.host
        )));
    }
    invite(&home.settings, store, &home.authority()?, file, now).await
}

async fn invite(
    settings: &drover_daemon::ClusterSettings,
    store: &Store,
    authority: &Authority,
    file: &ClusterFile,
    now: UnixSeconds,
) -> Result<Invitation, Failure> {
    let expires_at = now.saturating_add(settings.token_lifetime.as_secs());
    let token = Token::generate(&file.cluster, authority.fingerprint(), expires_at);
    let token = token.map_err(|error| internal(&error))?;
    let record = TokenRecord {
        expires_at,
        used_by: None,
    };
    let key = format!("tokens/{}", token.hash());
    let put = Transaction::new().if_absent(&key).put_record(&key, &record);
    let put = put.map_err(|error| internal(&error))?;
    forget_old_tokens(store, now).await?;
    // Two secrets are never the same, so there is no conflict.
    store
        .commit(put)
        .await
        .map(drop)
        .map_err(|error| failure::store(&error))?;
    let address = SocketAddr::new(file.advertise, settings.join_port).to_string();
    Ok(Invitation {
        token: token.encode().to_string(),
        address,
        expires_at,
    })
}

/// Deletes tokens that ended a day ago; until then a late host is told what is wrong with its own.
async fn forget_old_tokens(store: &Store, now: UnixSeconds) -> Result<(), Failure> {
    const KEEP: Duration = Duration::from_secs(24 * 3600);
    let listing = store
        .list("tokens/")
        .await
        .map_err(|error| failure::store(&error))?;
    let old = listing.entries.into_iter().filter(|entry| {
        let record = entry.decode::<TokenRecord>();
        record.is_ok_and(|record| record.expires_at.saturating_add(KEEP.as_secs()) < now)
    });
    transfer::delete(store, old.map(|entry| entry.key)).await
}

/// Whom the first host's certificate is for: it is etcd's too, on loopback as well.
pub(super) fn first_subject(name: &str, member: &str, advertise: IpAddr) -> Subject {
    let mut addresses = vec![advertise];
    for loopback in [
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    ] {
        if loopback != advertise {
            addresses.push(loopback);
        }
    }
    let aliases = vec![tls::AUTHORITY_NAME.to_owned(), "localhost".to_owned()];
    Subject {
        name: name.to_owned(),
        member: member.to_owned(),
        aliases,
        addresses,
    }
}

#[expect(clippy::expect_used, reason = "1 is a host index")]
fn first_index() -> HostIndex {
    HostIndex::try_from(1).expect("1 is a host index")
}
