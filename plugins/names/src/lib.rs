//! Names for the containers of one host.
//!
//! ```text
//! coordinator --registry stream--> follow --> Known (a Directory) <--+--> memory (what was told last, on the disk)
//! engine's netns folder --inotify--> folder                          |
//!                                      | a task a namespace          |
//!                                      v                             |
//!   addresses in it --are they Drover's? (drover-net, Known)--> sandbox --> Serving: sockets and table in it
//!                                                                              |  our names: answered
//! drover, /metrics --> control --reads--> Known, Sandboxes                     +--> Docker's resolver, with the mark
//! ```
//! A sandbox is served from the moment an address of Drover's appears in it, which is before its first process
//! runs; whose it is, and hence what may be seen from it, is known when the registry has the container.
//! Queries that come between the two wait for it, at most three seconds after the first. If this process dies, the tables
//! go with it and Docker's resolver is asked as if we had never been there.

mod control;
mod counters;
mod endpoints;
mod folder;
mod follow;
mod known;
mod memory;
mod metrics;
mod sandbox;
mod serving;

use std::sync::Arc;

use anyhow::Context as _;
use drover_daemon::{Settings, listener, task};
use drover_http::{Client, Limits, serve};
use tokio::sync::watch;

/// The name of the process.
pub const NAME: &str = "drover-names";

/// Runs the name service until `shutdown` is true.
///
/// # Errors
/// When the socket cannot be bound.
pub async fn run(settings: Settings, shutdown: watch::Receiver<bool>) -> anyhow::Result<()> {
    let socket =
        listener(NAME, &settings.names_socket()).context("cannot serve the command line")?;
    let known = Arc::new(known::Known::new());
    let remembered = settings.state_dir.join("names.ndjson");
    memory::recall(&remembered, &known);
    task::spawn("memory", memory::keep(remembered, known.clone()));
    let network = Client::unix(settings.plugin_socket("drover-net"));
    let endpoints = endpoints::spawn(network);
    let sandboxes = Arc::new(sandbox::Sandboxes::new(known.clone(), endpoints));
    let coordinator = Client::unix(settings.control_socket());
    task::spawn("registry", follow::run(coordinator, known.clone()));
    let watcher = task::spawn(
        "sandboxes",
        folder::watch(settings.sandbox_dir(), sandboxes.clone()),
    );
    let control = control::Control::new(known, sandboxes);
    serve(socket, Arc::new(control), Limits::default(), shutdown).await;
    watcher.abort();
    Ok(())
}
