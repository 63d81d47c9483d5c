//! A host's own key.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use zeroize::Zeroizing;

use crate::error::Error;

/// The private key of a host. It is written to a file of that host, and nowhere else.
pub struct HostKey(KeyPair);

impl std::fmt::Debug for HostKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("HostKey(..)")
    }
}

impl HostKey {
    /// Makes a key.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self(KeyPair::generate()?))
    }

    /// The key, PEM.
    #[must_use]
    pub fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// A signing request for the key, PEM: what leaves the host.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn request(&self, name: &str) -> Result<String, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(params.serialize_request(&self.0)?.pem()?)
    }
}
