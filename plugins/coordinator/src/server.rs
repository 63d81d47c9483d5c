//! The control socket: every method that plugins and the command line ask for.

use std::sync::Arc;

use drover_control_api::catalogue::{Catalogue, ForgetBackups, RecordCatalogue};
use drover_control_api::coordinator::{
    ClaimAddress, ClaimBlock, ClaimPool, EngineStarted, Examine, Init, Join, Joined, Leave,
    Networks, NextGeneration, Pools, PublishKey, ReleaseAddress, ReleaseBlock, ReleasePool,
    RemoveHost, ReportAttachments, ReserveAddress, Status,
};
use drover_control_api::owners::RecordOwners;
use drover_control_api::plugin::WhoAreYou;
use drover_control_api::{Empty, Failure, FailureKind, Method, fabric, registry};
use drover_engine::Network;
use drover_http::{Request, Response, Service, control};

use crate::context::Context;
use crate::mirror::chain;
use crate::networks::record::NETWORK_DRIVER;
use crate::{Coordinator, catalogue, claims, examine, keys, membership, owners, status};

/// Answers on the control socket.
pub struct Control(pub Arc<Coordinator>);

impl Service for Control {
    async fn call(&self, request: Request) -> Response {
        let coordinator = &self.0;
        let body = &request.body;
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", fabric::PATH) => crate::fabric::stream(&coordinator.context),
            ("GET", registry::PATH) => crate::registry::stream(&coordinator.context),
            ("GET", drover_control_api::owners::PATH) => owners::stream(&coordinator.context),
            ("GET", drover_control_api::catalogue::PATH) => catalogue::stream(&coordinator.context),
            ("POST", path) => self.post(path, body).await,
            (_, path) => Response::not_found(path),
        }
    }
}

impl Control {
    async fn post(&self, path: &str, body: &[u8]) -> Response {
        match path {
            ClaimPool::PATH
            | ReleasePool::PATH
            | ReserveAddress::PATH
            | ClaimBlock::PATH
            | ReleaseBlock::PATH
            | ClaimAddress::PATH
            | ReleaseAddress::PATH => self.claims(path, body).await,
            Init::PATH | Join::PATH | Leave::PATH | RemoveHost::PATH => {
                self.membership(path, body).await
            }
            PublishKey::PATH | NextGeneration::PATH => self.keys(path, body).await,
            _ => self.questions(path, body).await,
        }
    }

    /// What `drover-ipam` asks for.
    async fn claims(&self, path: &str, body: &[u8]) -> Response {
        let (context, networks) = (&*self.0.context, &*self.0.networks);
        match path {
            ClaimPool::PATH => answer(body, |ask| claims::claim_pool(context, ask)).await,
            ReleasePool::PATH => answer(body, |ask| claims::release_pool(context, ask)).await,
            ReserveAddress::PATH => answer(body, |ask| claims::reserve_address(context, ask)).await,
            ClaimBlock::PATH => {
                answer(body, |ask| claims::claim_block(context, networks, ask)).await
            }
            ReleaseBlock::PATH => answer(body, |ask| claims::release_block(context, ask)).await,
            ClaimAddress::PATH => {
                answer(body, |ask| claims::claim_address(context, networks, ask)).await
            }
            ReleaseAddress::PATH => answer(body, |ask| claims::release_address(context, ask)).await,
            other => Response::not_found(other),
        }
    }

    /// What `drover-net` asks for.
    async fn keys(&self, path: &str, body: &[u8]) -> Response {
        let context = &*self.0.context;
        match path {
            PublishKey::PATH => answer(body, |ask| keys::publish(context, ask)).await,
            NextGeneration::PATH => {
                answer(body, |_: NextGeneration| keys::next_generation(context)).await
            }
            other => Response::not_found(other),
        }
    }

    /// What changes which cluster this host is in.
    async fn membership(&self, path: &str, body: &[u8]) -> Response {
        let context = &*self.0.context;
        match path {
            Init::PATH => answer(body, |ask| membership::init(context, ask)).await,
            Join::PATH => answer(body, |ask| join(context, ask)).await,
            Leave::PATH => answer(body, |_: Leave| leave(&self.0)).await,
            RemoveHost::PATH => answer(body, |ask| membership::remove_host(context, ask)).await,
            other => Response::not_found(other),
        }
    }

    /// Questions, and reports of the plugins.
    async fn questions(&self, path: &str, body: &[u8]) -> Response {
        let coordinator = &*self.0;
        let snapshot = || coordinator.context.cluster.borrow().clone();
        match path {
            ReportAttachments::PATH => {
                answer(body, async |report: ReportAttachments| {
                    coordinator.networks.report(report.networks);
                    Ok(Empty {})
                })
                .await
            }
            EngineStarted::PATH => {
                answer(body, async |_: EngineStarted| {
                    tracing::info!("a new engine process has activated a plugin");
                    coordinator.networks.engine_started();
                    Ok(Empty {})
                })
                .await
            }
            RecordOwners::PATH => {
                let context = &*coordinator.context;
                answer(body, |told| owners::record(context, told)).await
            }
            RecordCatalogue::PATH => {
                let context = &*coordinator.context;
                answer(body, |told| catalogue::record(context, told)).await
            }
            ForgetBackups::PATH => {
                let context = &*coordinator.context;
                answer(body, |told| catalogue::forget(context, told)).await
            }
            Catalogue::PATH => {
                answer(body, async |asked: Catalogue| {
                    Ok(catalogue::table(&coordinator.context, &asked))
                })
                .await
            }
            Status::PATH => {
                answer(
                    body,
                    async |_: Status| Ok(status::status(coordinator).await),
                )
                .await
            }
            Examine::PATH => {
                answer(body, async |_: Examine| {
                    Ok(examine::examine(coordinator).await)
                })
                .await
            }
            Networks::PATH => {
                answer(body, async |_: Networks| Ok(status::networks(&snapshot()))).await
            }
            Pools::PATH => {
                answer(body, async |_: Pools| {
                    Ok(claims::table(&coordinator.context).await)
                })
                .await
            }
            WhoAreYou::PATH => {
                answer(body, async |_: WhoAreYou| Ok(status::identity(coordinator))).await
            }
            other => Response::not_found(other),
        }
    }
}

/// Reads the request, does it, and writes the answer.
async fn answer<M: Method, F: Future<Output = Result<M::Answer, Failure>>>(
    body: &[u8],
    method: impl FnOnce(M) -> F,
) -> Response {
    match control::decode::<M>(body) {
        Ok(request) => control::answer::<M>(method(request).await),
        Err(failure) => control::answer::<M>(Err(failure)),
    }
}

/// A host that has networks already cannot join: its cluster would know nothing of their addresses.
async fn join(context: &Context, request: Join) -> Result<Joined, Failure> {
    let ours = networks(context).await.map_err(|error| {
        let reason = error.sentence();
        let message = format!("the engine must answer before this host can join: {reason}");
        Failure::new(FailureKind::Unavailable, message)
    })?;
    let names: Vec<String> = ours.into_iter().map(|network| network.name).collect();
    membership::join(context, request, &names).await
}

/// The copies that this host has of its cluster's networks go with the cluster, unless this host takes
/// everything along, being the only one.
async fn leave(coordinator: &Coordinator) -> Result<Empty, Failure> {
    let context = &coordinator.context;
    let ours = networks(context).await.unwrap_or_else(|error| {
        tracing::warn!(
            error = chain(&error),
            "networks of the cluster stay on this host"
        );
        Vec::new()
    });
    let ours: Vec<_> = ours
        .iter()
        .filter_map(|network| network.id.parse().ok())
        .collect();
    let is_alone = {
        let snapshot = context.cluster.borrow();
        let mut hosts = snapshot.under("hosts/");
        !context.is_fenced() && hosts.all(|(name, _)| name == context.host().as_str())
    };
    let left = membership::leave(context).await?;
    if !is_alone && let Err(error) = crate::networks::leave(&coordinator.database, &ours) {
        tracing::warn!(
            error = chain(&error),
            "networks of the cluster stay on this host"
        );
    }
    Ok(left)
}

/// This engine's networks of our driver.
async fn networks(context: &Context) -> Result<Vec<Network>, drover_engine::Error> {
    let networks = context.engine.networks().await?.into_iter();
    Ok(networks
        .filter(|network| network.driver == NETWORK_DRIVER)
        .collect())
}
