//! What a container asks about itself and its peers: `http://drover.internal/`, read only.

use std::sync::Arc;
use std::time::Duration;

use drover_http::{Limits, Method, Request, Response, Service, serve_connection};
use drover_names::{Page, page};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::Shared;
use crate::counters::count;

/// How many connections a container may have open at a time; more are closed at once.
const MOST: usize = 16;
/// How long to wait when the kernel gives no connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Accepts for ever.
pub(super) async fn run(listener: TcpListener, shared: Shared) {
    let limits = Limits {
        body: 0,
        idle: Some(Duration::from_secs(10)),
        ..Limits::default()
    };
    let places = Arc::new(Semaphore::new(MOST));
    let service = Arc::new(Pages(shared.clone()));
    let (_never, stop) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        // Cancel-safe: a connection that was not taken waits in the listener.
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Ok(place) = places.clone().try_acquire_owned() else {
                        count(&shared.sandbox.counters.over_limit);
                        continue;
                    };
                    let (service, stop) = (service.clone(), stop.clone());
                    connections.spawn(async move {
                        serve_connection(stream, service, limits, stop).await;
                        drop(place);
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

struct Pages(Shared);

impl Service for Pages {
    async fn call(&self, request: Request) -> Response {
        if request.method != Method::GET && request.method != Method::HEAD {
            return Response::text(405, "this is only for reading\n");
        }
        let view = self.0.view().await;
        let found = self
            .0
            .known
            .read(|directory| page(directory, &view, &request.path));
        match found {
            Some(Page::Json(value)) => Response::json(200, &value),
            Some(Page::Text(text)) => Response::text(200, text),
            None => Response::text(404, "there is no such page: begin at /\n"),
        }
    }
}
