//! A certificate: what it says, and when it is to be renewed.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::Error;

/// How long before it is made a certificate begins to be valid, since clocks differ.
pub const BACKDATED: Duration = Duration::from_secs(24 * 3600);

/// The SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER form.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A certificate, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    pem: String,
    name: String,
    member: Option<String>,
    addresses: Vec<IpAddr>,
    public_key: Vec<u8>,
    not_before: u64,
    not_after: u64,
}

impl Certificate {
    /// Reads the first certificate of a PEM text, and keeps nothing else of it: a private key may stand in
    /// the same text.
    ///
    /// # Errors
    /// When there is none.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let wrong = Error::Parse {
            what: "a certificate",
        };
        let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else {
            return Err(wrong);
        };
        let pem = pem_of(&der);
        Self::read(der, pem).ok_or(wrong)
    }

    /// Reads a certificate in DER form, as TLS hands it over.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_der(der: &CertificateDer<'_>) -> Result<Self, Error> {
        let der = der.clone().into_owned();
        Self::read(der, String::new()).ok_or(Error::Parse {
            what: "a certificate",
        })
    }

    fn read(der: CertificateDer<'static>, pem: String) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        let name = parsed
            .subject()
            .iter_common_name()
            .next()?
            .as_str()
            .ok()?
            .to_owned();
        let member = parsed.subject().iter_organizational_unit().next();
        let member = member.and_then(|member| Some(member.as_str().ok()?.to_owned()));
        let names = parsed.subject_alternative_name().ok()?;
        let names = names
            .iter()
            .flat_map(|extension| &extension.value.general_names);
        let addresses = names.filter_map(address).collect();
        let public_key = parsed.public_key().subject_public_key.data.to_vec();
        let not_before = u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or(0);
        let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        Some(Self {
            der,
            pem,
            name,
            member,
            addresses,
            public_key,
            not_before,
            not_after,
        })
    }

    /// The certificate, PEM; empty when it was read from DER.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate, DER.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's member id; `None` in the certificates of earlier versions.
    #[must_use]
    pub fn member(&self) -> Option<&str> {
        self.member.as_deref()
    }

    /// The host's addresses.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// When it ends.
    #[must_use]
    pub const fn expires_at(&self) -> u64 {
        self.not_after
    }

    /// From when until when it is valid, both included.
    #[must_use]
    pub const fn valid(&self) -> RangeInclusive<u64> {
        self.not_before..=self.not_after
    }

    /// The public key, as the algorithm has it.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Its SHA-256.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// When to ask for the next one: after two thirds of the time from when it was made to its end.
    #[must_use]
    pub const fn renew_at(&self) -> u64 {
        let made = self.not_before.saturating_add(BACKDATED.as_secs());
        let lifetime = self.not_after.saturating_sub(made);
        made.saturating_add(lifetime / 3 * 2)
    }
}

/// RFC 7468: lines of 64 characters.
fn pem_of(der: &[u8]) -> String {
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in der.chunks(48) {
        pem.push_str(&STANDARD.encode(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn address(name: &GeneralName<'_>) -> Option<IpAddr> {
    let GeneralName::IPAddress(octets) = name else {
        return None;
    };
    let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from))
        .ok()
}
