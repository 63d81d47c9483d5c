//! The engine's events, a JSON object a line, without those of what may not be seen. Each is passed on when it comes.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use drover_authorization::Kind;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::warn;

use super::answer::Passed;
use crate::inventory::Entry;
use crate::judge::Sight;

/// The operation that answers with events.
pub(super) const OPERATION: &str = "SystemEvents";
/// Events that wait for a client.
const WAITING: usize = 64;
/// The longest event, bytes.
const LONGEST: usize = 4 << 20;

/// An event, as far as it decides whether it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Event {
    #[serde(rename = "Type")]
    kind: String,
    action: String,
    actor: Actor,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    attributes: Option<BTreeMap<String, String>>,
}

/// The events that may be seen. `engine` is what has to live as long as they are wanted.
pub(super) fn filtered<T: Send + 'static>(body: Incoming, engine: T, sight: Sight) -> Passed {
    let (shown, received) = mpsc::channel(WAITING);
    drop(drover_daemon::task::spawn("events", async move {
        tokio::select! {
            () = pass(body, &sight, &shown) => {}
            () = shown.closed() => {}
        }
        drop(engine);
    }));
    Lines(received).boxed_unsync()
}

/// Pieces of text as they come.
struct Lines(mpsc::Receiver<Result<Bytes, hyper::Error>>);

impl Body for Lines {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

async fn pass(
    mut body: Incoming,
    sight: &Sight,
    shown: &mpsc::Sender<Result<Bytes, hyper::Error>>,
) {
    let mut text = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let piece = match frame.map(Frame::into_data) {
            Ok(Ok(piece)) => piece,
            Ok(Err(_trailers)) => continue,
            Err(error) => {
                // A client that has gone does not hear it.
                drop(shown.send(Err(error)).await);
                return;
            }
        };
        text.extend_from_slice(&piece);
        for line in whole_lines(&mut text) {
            if is_shown(&line, sight).await && shown.send(Ok(line)).await.is_err() {
                return;
            }
        }
        if text.len() > LONGEST {
            warn!("an event of the engine is longer than {LONGEST} bytes: the stream ends");
            return;
        }
    }
}

/// Takes the lines that are whole, each with its end.
fn whole_lines(text: &mut BytesMut) -> Vec<Bytes> {
    let mut lines = Vec::new();
    while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
        let line = text.copy_to_bytes(end + 1);
        if !line.trim_ascii().is_empty() {
            lines.push(line);
        }
    }
    lines
}

async fn is_shown(line: &[u8], sight: &Sight) -> bool {
    let Ok(event) = serde_json::from_slice::<Event>(line) else {
        return false;
    };
    // What is being made now is somebody's when the call that makes it is answered.
    sees(&event, sight).await || sight.settle().await && sees(&event, sight).await
}

async fn sees(event: &Event, sight: &Sight) -> bool {
    let Actor { id, attributes } = &event.actor;
    let nothing = BTreeMap::new();
    let attributes = attributes.as_ref().unwrap_or(&nothing);
    let attribute = |name: &str| attributes.get(name).cloned().unwrap_or_default();
    match event.kind.as_str() {
        "container" => {
            // Its labels are among its attributes, also when it is gone.
            let told = Entry {
                name: attribute("name"),
                id: id.clone(),
                labels: attributes.clone(),
                ..Entry::default()
            };
            sight.sees(Kind::Container, &told)
        }
        "network" => {
            let container = attribute("container");
            let is_seen = container.is_empty() || sight.sees_container(&container);
            is_seen
                && sight
                    .sees_somewhere(Kind::Network, id, &attribute("name"))
                    .await
        }
        "volume" if event.action == "destroy" => sight.sees_gone_volume(id),
        "volume" => {
            let container = attribute("container");
            let is_seen = container.is_empty() || sight.sees_container(&container);
            is_seen && sight.sees_somewhere(Kind::Volume, id, id).await
        }
        "image" => {
            let name = attribute("name");
            sight.sees_named(Kind::Image, if name.is_empty() { id } else { &name })
        }
        "plugin" => sight.sees_named(Kind::Plugin, &attribute("name")),
        "service" | "node" | "secret" | "config" => {
            sight.sees_named(Kind::SwarmObject, &format!("{}s/{id}", event.kind))
        }
        // Of the engine and its builder as a whole.
        "daemon" | "builder" => sight.sees_named(Kind::Engine, ""),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_when_they_are_whole() {
        let mut text = BytesMut::from(&b"{\"a\":1}\n\n{\"b\""[..]);
        assert_eq!(whole_lines(&mut text), ["{\"a\":1}\n"]);
        text.extend_from_slice(b":2}\r\n");
        assert_eq!(whole_lines(&mut text), ["{\"b\":2}\r\n"]);
        assert!(text.is_empty());
    }
}
