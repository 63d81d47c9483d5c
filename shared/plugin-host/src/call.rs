//! One call of a driver: its request decoded, its time bounded, its outcome written.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_http::Response;
use drover_plugin_protocol::{Activation, CONTENT_TYPE, ErrorAnswer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{debug, error, info, warn};

use crate::DriverError;

/// How long a user waits for one call of a driver. Engines wait for ever.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// A call that is about to be made.
pub struct Call<D> {
    pub(crate) driver: Arc<D>,
    /// `NetworkDriver.Join`: names it in errors and logs.
    pub(crate) method: &'static str,
    pub(crate) body: Bytes,
    pub(crate) limit: Duration,
}

/// `answer!(call => method)`: has the driver's `method` answer the request; `answer!(call -> method)`: where there is none.
macro_rules! answer {
    ($call:ident => $method:ident) => {
        $call
            .with_request(|driver, request| async move { driver.$method(request).await })
            .await
    };
    ($call:ident -> $method:ident) => {
        $call
            .without_request(|driver| async move { driver.$method().await })
            .await
    };
}
pub(crate) use answer;

impl<D: Send + Sync + 'static> Call<D> {
    /// Makes a call that has a request.
    pub(crate) async fn with_request<R, A, F>(
        self,
        run: impl FnOnce(Arc<D>, R) -> F + Send,
    ) -> Response
    where
        R: DeserializeOwned,
        A: Serialize + Send + 'static,
        F: Future<Output = Result<A, DriverError>> + Send + 'static,
    {
        match decode(self.method, &self.body) {
            Ok(request) => {
                let call = run(self.driver.clone(), request);
                self.finish(call).await
            }
            Err(sentence) => {
                warn!(method = self.method, %sentence, "a request was refused");
                failure(200, &sentence)
            }
        }
    }

    /// Makes a call that has none.
    pub(crate) async fn without_request<A, F>(
        self,
        run: impl FnOnce(Arc<D>) -> F + Send,
    ) -> Response
    where
        A: Serialize + Send + 'static,
        F: Future<Output = Result<A, DriverError>> + Send + 'static,
    {
        let call = run(self.driver.clone());
        self.finish(call).await
    }

    /// Runs the call in a task of its own, so that neither the limit nor the asker's going away cuts it.
    async fn finish<A, F>(self, call: F) -> Response
    where
        A: Serialize + Send + 'static,
        F: Future<Output = Result<A, DriverError>> + Send + 'static,
    {
        let (method, began) = (self.method, Instant::now());
        let task = tokio::spawn(async move {
            let outcome = call.await;
            let took = began.elapsed();
            match &outcome {
                Ok(_) => debug!(method, ?took, "done"),
                Err(error) => info!(method, ?took, %error, "failed"),
            }
            outcome
        });
        match tokio::time::timeout(self.limit, task).await {
            Ok(Ok(Ok(answer))) => Response::json(200, &answer).with_content_type(CONTENT_TYPE),
            Ok(Ok(Err(error))) => failure(200, &error.to_string()),
            Ok(Err(error)) => {
                error!(method, %error, "a call ended without an answer");
                failure(
                    200,
                    &format!("`{method}` ended in a bug of the plugin; see its log"),
                )
            }
            Err(_) => {
                warn!(method, limit = ?self.limit, "a call is slow; it goes on unawaited");
                failure(200, &overdue(method, self.limit))
            }
        }
    }
}

fn overdue(method: &str, limit: Duration) -> String {
    format!("`{method}` was not done within {limit:?}; see the plugin's log, and try again")
}

/// Reads a request; an error is the sentence for the user.
fn decode<R: DeserializeOwned>(method: &str, body: &[u8]) -> Result<R, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        // What an engine sends when it tries again after a dropped connection.
        return Err(format!("`{method}` arrived without its body; try again"));
    }
    serde_json::from_slice(body)
        .map_err(|error| format!("the body of `{method}` is not its request: {error}"))
}

/// A failure, where engines of both kinds look for it.
pub(crate) fn failure(status: u16, sentence: &str) -> Response {
    Response::json(status, &ErrorAnswer::new(sentence)).with_content_type(CONTENT_TYPE)
}

/// The answer to the handshake.
pub(crate) fn activation(interface: &str) -> Response {
    let activation = Activation::of(interface);
    Response::json(200, &activation).with_content_type(CONTENT_TYPE)
}
