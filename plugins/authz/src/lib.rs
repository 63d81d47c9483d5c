//! Decides what a call of the Engine API may do, for one engine.
//!
//! ```text
//! dockerd --AuthZReq--> plugin --> judge: read (drover-authorization), look up, decide (drover-policy) --> allow or deny
//!                          |          |            ^
//!                          |          v            +-- in force: the policy folder, read anew when it changes
//!                          |        decisions.log  +-- inventory: names, labels, owners; from the engine, asked outside of calls
//!                          +-- AuthZRes: what was made, and by whom --> owners <--> registry (the coordinator's, of all hosts)
//! client --a role's socket--> role_socket --> judge --> engine
//! ```
//! Whatever goes wrong, the answer is no. What `AuthZRes` tells comes after the deed and denies nothing. Calls of Drover's own
//! processes carry a token of this host ([`drover_daemon::authorization_token`]) and are allowed as they are: the plugin asks the
//! engine for its inventory, too, and must not wait for itself.

mod commands;
mod identity;
mod in_force;
mod inventory;
mod judge;
mod log;
mod owners;
mod paths;
mod plugin;
mod registry;
mod role_socket;
mod socket_command;

use std::sync::Arc;

use anyhow::Context as _;
use drover_daemon::{Settings, authorization_token, listener, task};
use drover_http::{Client, Limits, serve};
use tokio::sync::watch;

pub use commands::run as policy_command;
pub use socket_command::run as socket_command;

/// The name of the process, and of the plugin.
pub const NAME: &str = "drover-authz";

/// The longest request of the engine: 4 MiB of body in base64, and the headers.
const LONGEST_REQUEST: usize = 16 << 20;

/// Runs the plugin until `shutdown` is true.
///
/// # Errors
/// When the socket cannot be bound, or the state not kept.
pub async fn run(settings: Settings, shutdown: watch::Receiver<bool>) -> anyhow::Result<()> {
    let socket =
        listener(NAME, &settings.plugin_socket(NAME)).context("cannot serve the engine")?;
    let token =
        authorization_token(&settings.run_dir).context("cannot make the token of this host")?;
    let state = settings.state_dir.join("authz");
    std::fs::create_dir_all(&state)
        .with_context(|| format!("cannot make the folder `{}`", state.display()))?;
    let log = log::DecisionLog::open(state.join("decisions.log"))?;
    let owners = Arc::new(owners::Owners::load(state.join("owners.json")));
    let in_force = Arc::new(in_force::InForce::load(&settings.authorization.policy_dir));
    task::spawn("policies", in_force::follow(in_force.clone()));
    let engine = engine(&settings, &token)?;
    let inventory = Arc::new(inventory::Inventory::new(engine));
    task::spawn(
        "inventory",
        inventory::follow(inventory.clone(), owners.clone()),
    );
    let coordinator = Client::unix(settings.control_socket());
    task::spawn("owners", registry::follow(coordinator, owners.clone()));
    let judge = Arc::new(judge::Judge::new(in_force, inventory, owners, log));
    let sockets = Arc::new(role_socket::RoleSockets::new(
        settings.authorization.policy_dir.clone(),
        judge.clone(),
        &settings.docker_host,
        token.clone(),
    ));
    let role_sockets = task::spawn("roles' sockets", sockets.clone().follow(shutdown.clone()));
    let plugin = plugin::Plugin::new(judge, sockets, token);
    let limits = Limits {
        body: LONGEST_REQUEST,
        ..Limits::default()
    };
    serve(socket, Arc::new(plugin), limits, shutdown).await;
    role_sockets.await.context("roles' sockets have failed")?;
    Ok(())
}

/// The engine, asked with the token. It is never sent over a network.
fn engine(settings: &Settings, token: &str) -> anyhow::Result<Client> {
    let client = Client::tcp_docker_host(&settings.docker_host)?;
    if settings.docker_host.starts_with("unix:") {
        return Ok(client.with_header(drover_daemon::AUTHORIZATION_HEADER, token));
    }
    Ok(client)
}
