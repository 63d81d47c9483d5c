//! HTTP/1.1 over unix sockets, client and server, with limits.
//!
//! The server ([`serve`]) is made for sockets that Docker Engine and Drover's own processes speak to:
//! every body is bounded and read whole before the service is called, a request that was read is
//! always answered, and a stop refuses nothing that a peer has already sent. The client
//! ([`Client`]) makes one connection a call. [`control`] carries Drover's own methods over both.
//!
//! Not here: TLS (hand a TLS stream to [`serve_connection`]), routing, compression, HTTP/2.

mod client;
pub mod control;
mod message;
mod server;

pub use client::{Answer, Client, ClientError, Lines};
pub use hyper::Method;
pub use message::{Body, PeerIdentity, Request, Response};
pub use server::{Limits, Service, serve, serve_connection};
