//! TLS with the cluster's certificates: TLS 1.3 only, since both sides are Drover.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme, version,
};

use crate::certificate::Fingerprint;
use crate::error::Error;

/// The DNS name in the certificate of the host that has the authority, and in no other: a host of the
/// cluster cannot pass for it.
pub const AUTHORITY_NAME: &str = "authority.drover.internal";

/// A host's certificate with its key and its authority, all PEM.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// The host's certificate.
    pub certificate: &'a str,
    /// Its key.
    pub key: &'a str,
    /// The authority's certificate.
    pub authority: &'a str,
}

impl std::fmt::Debug for Identity<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Identity(..)")
    }
}

/// For the host that has the authority: shows its certificate and the authority's; a client may show one
/// of the cluster, and nothing of another.
///
/// # Errors
/// When certificate and key do not fit, or the authority cannot be read.
pub fn server(identity: Identity<'_>) -> Result<ServerConfig, Error> {
    let provider = provider();
    let roots = Arc::new(roots(identity.authority)?);
    let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let chain = vec![
        certificate(identity.certificate)?,
        certificate(identity.authority)?,
    ];
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key(identity.key)?)?;
    Ok(config)
}

/// For a host that has a certificate.
///
/// # Errors
/// When certificate and key do not fit, or the authority cannot be read.
pub fn client(identity: Identity<'_>) -> Result<ClientConfig, Error> {
    let chain = vec![certificate(identity.certificate)?];
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_root_certificates(roots(identity.authority)?)
        .with_client_auth_cert(chain, key(identity.key)?)?;
    Ok(config)
}

/// For a host that has a token only: trusts exactly the authority with this fingerprint.
///
/// # Errors
/// When TLS cannot be set up.
pub fn joining_client(authority: Fingerprint) -> Result<ClientConfig, Error> {
    let provider = provider();
    let verifier = Pinned {
        authority,
        provider: Arc::clone(&provider),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

/// The name that a client expects of the host that has the authority.
///
/// # Errors
/// Never; the name is sound.
pub fn authority_name() -> Result<ServerName<'static>, Error> {
    ServerName::try_from(AUTHORITY_NAME).map_err(|_name| Error::Parse {
        what: "a server name",
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificate(pem: &str) -> Result<CertificateDer<'static>, Error> {
    let wrong = |_wrong| Error::Parse {
        what: "a certificate",
    };
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(wrong)
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_wrong| Error::Parse {
        what: "a private key",
    })
}

fn roots(authority: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(authority)?)?;
    Ok(roots)
}

/// Trusts the one authority that has the fingerprint, which the server must send along.
#[derive(Debug)]
struct Pinned {
    authority: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = |certificate: &&CertificateDer<'_>| {
            Fingerprint::of(certificate.as_ref()) == self.authority
        };
        let Some(authority) = intermediates.iter().find(pinned) else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let provider = Arc::clone(&self.provider);
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
