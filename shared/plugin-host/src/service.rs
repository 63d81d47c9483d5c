//! What is the same behind every plugin socket: who gets a request, and the handshake.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use drover_http::{Request, Response, Service};
use drover_plugin_protocol::ACTIVATE;

use crate::call::{self, Call};

/// Under this prefix lie the plugin's own methods.
const OWN_METHODS: &str = "/Drover.";

/// One interface of the engine's plugin protocol, in front of a driver `D`.
pub trait Interface<D>: Send + Sync + 'static {
    /// What the interface is called in the handshake.
    const NAME: &'static str;
    /// Its methods.
    type Method: Copy + Send;

    /// The method that is posted to this path, and its name.
    fn method(path: &str) -> Option<(Self::Method, &'static str)>;

    /// How long a call of the method may take.
    fn limit(_method: Self::Method) -> Duration {
        call::LIMIT
    }

    /// A new engine process has begun to use the plugin.
    fn activated(driver: &D);

    /// Has the driver make the call.
    fn run(method: Self::Method, call: Call<D>) -> impl Future<Output = Response> + Send;
}

/// The service of a plugin: a driver `D` behind the interface `I`; `X` answers the plugin's own methods.
#[derive(Debug)]
pub struct PluginService<I, D, X> {
    driver: Arc<D>,
    own_methods: X,
    limit: Option<Duration>,
    interface: PhantomData<I>,
}

impl<I: Interface<D>, D: Send + Sync + 'static, X: Service> PluginService<I, D, X> {
    /// Puts a driver, and the plugin's own methods, behind a socket.
    #[must_use]
    pub fn new(driver: Arc<D>, own_methods: X) -> Self {
        Self {
            driver,
            own_methods,
            limit: None,
            interface: PhantomData,
        }
    }

    /// Sets how long any call may take, in place of each method's own limit.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    async fn ask_driver(&self, request: Request) -> Response {
        let Some((method, name)) = I::method(&request.path) else {
            return unknown(I::NAME, &request.path);
        };
        let call = Call {
            driver: self.driver.clone(),
            method: name,
            body: request.body,
            limit: self.limit.unwrap_or_else(|| I::limit(method)),
        };
        I::run(method, call).await
    }
}

impl<I, D, X> Service for PluginService<I, D, X>
where
    I: Interface<D>,
    D: Send + Sync + 'static,
    X: Service,
{
    async fn call(&self, request: Request) -> Response {
        if request.path == ACTIVATE {
            I::activated(&self.driver);
            call::activation(I::NAME)
        } else if request.path.starts_with(OWN_METHODS) {
            self.own_methods.call(request).await
        } else {
            self.ask_driver(request).await
        }
    }

    fn refuse(&self, status: u16, reason: &str) -> Response {
        call::failure(status, reason)
    }
}

/// `404` in the form that engines read.
fn unknown(interface: &str, path: &str) -> Response {
    let path: String = path.chars().take(200).collect();
    call::failure(404, &format!("`{path}` is not a method of {interface}"))
}

/// A plugin without methods of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMethods;

impl Service for NoMethods {
    async fn call(&self, request: Request) -> Response {
        Response::not_found(&request.path)
    }
}
