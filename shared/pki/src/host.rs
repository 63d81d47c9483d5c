//! A host's own key.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SigningKey};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
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

    /// Reads the first private key of a PEM text, in which certificates may stand too.
    ///
    /// # Errors
    /// When there is none.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let wrong = |_wrong| Error::Parse {
            what: "a private key",
        };
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(wrong)?;
        Ok(Self(KeyPair::try_from(&key)?))
    }

    /// Signs a [`message`](crate::message): ECDSA with P-256 and SHA-256, in DER form.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message)?)
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
