//! The cluster's certificate authority, host certificates, and join tokens.
//!
//! A cluster has one authority, made by the first host. A host makes its own key, which never leaves it,
//! and gets a certificate for a signing request. Before a host has one it trusts exactly the
//! authority whose fingerprint is in its token. Certificates are short-lived and are renewed before
//! they end ([`Certificate::renew_at`]). Everything is ECDSA P-256 with SHA-256.
//!
//! Nothing here reads a clock: times are parameters, in seconds since 1970.

mod authority;
mod certificate;
mod error;
pub mod file;
mod host;
mod signed;
pub mod tls;
mod token;

pub use authority::{Authority, Subject};
pub use certificate::{BACKDATED, Certificate, Fingerprint};
pub use error::Error;
pub use host::HostKey;
pub use signed::{Distrust, Signed, Trust, message};
pub use token::{Token, TokenError};
