//! What can go wrong with keys and certificates.

use std::path::PathBuf;

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key or certificate could not be made.
    #[error("a key or certificate could not be made")]
    Make(#[from] rcgen::Error),
    /// A signing request is damaged, or was not signed with the key that is in it.
    #[error("the signing request is damaged or not signed with its own key; make a new one")]
    Request(#[source] rcgen::Error),
    /// A text is not what it should be.
    #[error("this is not {what} in PEM form")]
    Parse {
        /// What it should be.
        what: &'static str,
    },
    /// A key and a certificate do not belong together, or TLS cannot use them.
    #[error("the certificate and its key cannot be used for TLS")]
    Tls(#[from] rustls::Error),
    /// The authority cannot be used to check clients.
    #[error("the authority's certificate cannot be used to check others")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// A time is outside of what a certificate can carry.
    #[error("the time {0} is outside of what a certificate can carry; check the clock")]
    Time(u64),
    /// The system gave no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// A file could not be read or written.
    #[error("{} cannot be {action}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// `read`, `written` or `deleted`.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
}
