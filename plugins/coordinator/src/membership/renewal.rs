//! Keeps this host's certificate from ending: a new key and certificate after two thirds of its time.

use std::time::Duration;

use drover_control_api::Failure;
use drover_daemon::Backoff;
use drover_model::HostName;
use drover_pki::{HostKey, tls};
use drover_store::Store;

use super::client::Connection;
use super::failure::internal;
use super::home::{ClusterFile, Home, Role};
use super::protocol::{RENEW, RenewAnswer, RenewRequest};
use super::server::admission;
use crate::context::now;
use crate::keys::Keys;

/// The clock is looked at this often: it may be set, and a machine may sleep.
const LOOK: Duration = Duration::from_secs(60);

/// Renews the certificate whenever it is time, for as long as the future is polled.
pub(super) async fn serve(home: &Home, cluster: &ClusterFile, store: &Store, keys: &Keys) {
    let mut backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(3600));
    loop {
        let wait = match renew_if_due(home, cluster, store, now()).await {
            Ok(wait) => {
                backoff.reset();
                // Its key for encrypted traffic carries the certificate.
                keys.certificate_renewed();
                wait.min(LOOK)
            }
            Err(failure) => {
                tracing::error!(%failure, "this host's certificate is not renewed");
                backoff.next_delay()
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// How long until the next renewal.
pub(super) async fn renew_if_due(
    home: &Home,
    cluster: &ClusterFile,
    store: &Store,
    now: u64,
) -> Result<Duration, Failure> {
    let Some(certificate) = home.certificate()? else {
        return Ok(LOOK);
    };
    // One of a version that did not put the member into it is replaced at once.
    let is_complete = certificate.member() == Some(&cluster.member);
    if is_complete && now < certificate.renew_at() {
        return Ok(Duration::from_secs(
            certificate.renew_at().saturating_sub(now),
        ));
    }
    let key = HostKey::generate().map_err(|error| internal(&error))?;
    let request = RenewRequest {
        member: cluster.member.clone(),
        request: key
            .request(cluster.host.as_str())
            .map_err(|error| internal(&error))?,
    };
    let identity = home.read_identity()?;
    let answer: RenewAnswer = match &cluster.role {
        Role::First => {
            let own: &HostName = &cluster.host;
            admission(home, cluster, store)?
                .renew(own, &request, now)
                .await?
        }
        Role::Member { address, .. } => {
            let config = tls::client(identity.tls()).map_err(|error| internal(&error))?;
            Connection::open(address, config)
                .await?
                .post(RENEW, &request)
                .await?
        }
    };
    home.write_identity(&answer.certificate, &key.pem(), &identity.authority)?;
    // etcd and the join server read the file at every connection; this process has it in memory.
    let config = home.etcd_config(cluster)?;
    store
        .reconfigure(config)
        .await
        .map_err(|error| internal(&error))?;
    let expires_at = home
        .certificate()?
        .map(|certificate| certificate.expires_at());
    tracing::info!(?expires_at, "this host's certificate is renewed");
    Ok(LOOK)
}
