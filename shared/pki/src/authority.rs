//! The cluster's certificate authority.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::certificate::{BACKDATED, Certificate, Fingerprint};
use crate::error::Error;

/// Ten years: an authority lives as long as its cluster.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A certificate authority that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fingerprint = self.fingerprint();
        formatter
            .debug_struct("Authority")
            .field("fingerprint", &fingerprint)
            .finish_non_exhaustive()
    }
}

/// Whom a certificate is for. The authority decides it; what a signing request says is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The host's name: the common name, and the first DNS name.
    pub name: String,
    /// The host's member id, as the organizational unit: another host may have its name later.
    pub member: String,
    /// Further DNS names.
    pub aliases: Vec<String>,
    /// The host's addresses.
    pub addresses: Vec<IpAddr>,
}

impl Authority {
    /// Makes the authority of a cluster.
    ///
    /// # Errors
    /// When the system gives no random numbers, or `now` is out of range.
    pub fn generate(cluster: &str, now: u64) -> Result<Self, Error> {
        let mut params = params(now, LIFETIME)?;
        params.distinguished_name = common_name(&format!("Drover cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = Certificate::from_pem(&params.self_signed(&key)?.pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// The authority of a certificate and its key, both PEM.
    ///
    /// # Errors
    /// When either cannot be read.
    pub fn load(certificate: &str, key: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key)?;
        Ok(Self {
            issuer,
            certificate: Certificate::from_pem(certificate)?,
        })
    }

    /// Its certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its key, PEM.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// What a token names it by.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.certificate.fingerprint()
    }

    /// A certificate for the key of a signing request (PEM), for both sides of TLS, from a day before
    /// `now` (clocks differ) until `lifetime` after it.
    ///
    /// # Errors
    /// When the request is not sound, or a name of the subject cannot be in a certificate.
    pub fn sign(
        &self,
        request: &str,
        subject: &Subject,
        now: u64,
        lifetime: Duration,
    ) -> Result<Certificate, Error> {
        let request = CertificateSigningRequestParams::from_pem(request).map_err(Error::Request)?;
        let mut params = params(now, lifetime)?;
        params.distinguished_name = common_name(&subject.name);
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, subject.member.as_str());
        for name in std::iter::once(&subject.name).chain(&subject.aliases) {
            params
                .subject_alt_names
                .push(SanType::DnsName(name.as_str().try_into()?));
        }
        for address in &subject.addresses {
            params.subject_alt_names.push(SanType::IpAddress(*address));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&request.public_key, &self.issuer)?;
        Certificate::from_pem(&signed.pem())
    }
}

fn params(now: u64, lifetime: Duration) -> Result<CertificateParams, Error> {
    let mut serial = [0_u8; 16];
    getrandom::fill(&mut serial).map_err(Error::Random)?;
    // A serial number is positive: RFC 5280, section 4.1.2.2.
    serial[0] &= 0x7f;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = moment(now.saturating_sub(BACKDATED.as_secs()))?;
    params.not_after = moment(now.saturating_add(lifetime.as_secs()))?;
    Ok(params)
}

fn moment(seconds: u64) -> Result<OffsetDateTime, Error> {
    let out_of_range = || Error::Time(seconds);
    let signed = i64::try_from(seconds).map_err(|_too_large| out_of_range())?;
    OffsetDateTime::from_unix_timestamp(signed).map_err(|_range| out_of_range())
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
