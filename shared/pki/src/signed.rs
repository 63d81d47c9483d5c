//! Messages that a host signs with the key of its certificate, for others to believe wherever they find
//! them.

use std::ops::RangeInclusive;

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{SignatureVerificationAlgorithm, UnixTime, alg_id};
use rustls::server::ParsedCertificate;

use crate::certificate::Certificate;
use crate::error::Error;

/// The bytes that are signed: the length and the bytes of the domain, then of each field. Lengths have
/// 64 bits, the highest byte first.
///
/// A domain has a fixed list of fields, so that no two lists have the same bytes. Nothing else that is
/// signed with a host's key begins so: TLS signs texts that begin with 64 spaces, and a signing request is
/// an ASN.1 sequence.
#[must_use]
pub fn message(domain: &str, fields: &[&[u8]]) -> Vec<u8> {
    let mut message = Vec::new();
    for bytes in std::iter::once(domain.as_bytes()).chain(fields.iter().copied()) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(bytes);
    }
    message
}

/// A message with what is to prove that a host has signed it.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The host's certificate, PEM. Whatever follows it is not looked at.
    pub certificate: &'a str,
    /// The name of the host.
    pub name: &'a str,
    /// The host's present member id.
    pub member: &'a str,
    /// What was signed.
    pub message: &'a [u8],
    /// ECDSA with P-256 and SHA-256, in DER form.
    pub signature: &'a [u8],
}

/// Why a message is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// The certificate cannot be read.
    #[error("its certificate cannot be read")]
    Unreadable,
    /// The certificate is not of the authority.
    #[error("its certificate was not issued by this cluster's authority")]
    Issuer,
    /// The certificate is of another host.
    #[error("its certificate is of host `{0}`")]
    Name(String),
    /// The certificate is of another member of that name, or does not say of which.
    #[error("its certificate is of an earlier membership of that host")]
    Member,
    /// The signature is not of the certificate's key, or of another message.
    #[error("it was changed, or is not signed with the key of its certificate")]
    Signature,
    /// The certificate begins later.
    #[error("its certificate begins in the future")]
    NotYetValid {
        /// When, in seconds since 1970.
        from: u64,
    },
    /// The certificate has ended.
    #[error("its certificate has ended")]
    Expired {
        /// When, in seconds since 1970.
        at: u64,
    },
}

/// Believes hosts that have a certificate of one authority.
#[derive(Debug)]
pub struct Trust {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    /// Of the authority with this certificate, PEM.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn new(authority: &str) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.add(Certificate::from_pem(authority)?.der().clone())?;
        Ok(Self {
            roots,
            algorithms: ring::default_provider().signature_verification_algorithms,
        })
    }

    /// Whether the host of that name has signed the message. Returns from when until when that is so, in
    /// seconds since 1970: the time of the certificate, which begins a day before it was made since
    /// clocks differ.
    ///
    /// # Errors
    /// When it is not to be believed, or not at `now`. What is wrong apart from the time is told first.
    pub fn verify(&self, signed: &Signed<'_>, now: u64) -> Result<RangeInclusive<u64>, Distrust> {
        let certificate =
            Certificate::from_pem(signed.certificate).map_err(|_error| Distrust::Unreadable)?;
        let valid = certificate.valid();
        let within = now.max(*valid.start()).min(*valid.end());
        self.is_issued(&certificate, within)?;
        if certificate.name() != signed.name {
            return Err(Distrust::Name(certificate.name().to_owned()));
        }
        if certificate.member() != Some(signed.member) {
            return Err(Distrust::Member);
        }
        self.algorithm()
            .ok_or(Distrust::Signature)?
            .verify_signature(certificate.public_key(), signed.message, signed.signature)
            .map_err(|_invalid| Distrust::Signature)?;
        if now < *valid.start() {
            return Err(Distrust::NotYetValid {
                from: *valid.start(),
            });
        }
        if now > *valid.end() {
            return Err(Distrust::Expired { at: *valid.end() });
        }
        Ok(valid)
    }

    /// There is nothing between the authority and a host, so that no host can pass for an authority.
    fn is_issued(&self, certificate: &Certificate, at: u64) -> Result<(), Distrust> {
        let parsed = ParsedCertificate::try_from(certificate.der());
        let parsed = parsed.map_err(|_error| Distrust::Unreadable)?;
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at));
        let all = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, &[], at, all)
            .map_err(|_error| Distrust::Issuer)
    }

    fn algorithm(&self) -> Option<&'static dyn SignatureVerificationAlgorithm> {
        let all = self.algorithms.all.iter().copied();
        let mut fitting = all.filter(|algorithm| {
            algorithm.public_key_alg_id() == alg_id::ECDSA_P256
                && algorithm.signature_alg_id() == alg_id::ECDSA_SHA256
        });
        fitting.next()
    }
}
