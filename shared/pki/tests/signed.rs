//! What a host has signed is believed, and nothing else: of another cluster, by another host, at
//! another time, or changed by a bit.
#![cfg(test)]

use std::sync::LazyLock;
use std::time::Duration;

use drover_pki::{Authority, Certificate, Distrust, HostKey, Signed, Subject, Trust, message};
use proptest::prelude::{ProptestConfig, any, proptest};
use proptest::{prop_assert_eq, prop_assert_ne};

const CLUSTER: &str = "00112233445566778899aabbccddeeff";
const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;
const MONTH: Duration = Duration::from_secs(30 * DAY);
const MESSAGE: &[u8] = b"a message";

struct Host {
    key: HostKey,
    certificate: String,
}

impl Host {
    fn sign(&self) -> Vec<u8> {
        self.key.sign(MESSAGE).unwrap()
    }
}

fn subject(name: &str) -> Subject {
    Subject {
        name: name.to_owned(),
        member: "m".to_owned(),
        aliases: Vec::new(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
    }
}

fn host(authority: &Authority, name: &str) -> Host {
    let key = HostKey::generate().unwrap();
    let request = key.request(name).unwrap();
    let certificate = authority
        .sign(&request, &subject(name), NOW, MONTH)
        .unwrap();
    Host {
        certificate: certificate.pem().to_owned(),
        key,
    }
}

fn trust(authority: &Authority) -> Trust {
    Trust::new(authority.certificate().pem()).unwrap()
}

fn signed<'a>(certificate: &'a str, name: &'a str, signature: &'a [u8]) -> Signed<'a> {
    Signed {
        certificate,
        name,
        member: "m",
        message: MESSAGE,
        signature,
    }
}

#[test]
fn a_message_has_these_bytes_and_no_others() {
    let bytes = message("drover test", &[b"ab", b"", &[0xff]]);
    let golden = [
        &[0, 0, 0, 0, 0, 0, 0, 11][..],
        b"drover test",
        &[0, 0, 0, 0, 0, 0, 0, 2],
        b"ab",
        &[0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 0, 1, 0xff],
    ];
    assert_eq!(bytes, golden.concat());
    assert_ne!(message("d", &[b"ab", b"c"]), message("d", &[b"a", b"bc"]));
    assert_ne!(message("da", &[b"b"]), message("d", &[b"ab"]));
}

#[test]
fn a_host_of_the_cluster_is_believed_for_as_long_as_its_certificate_is_valid() {
    let authority = Authority::generate(CLUSTER, NOW).unwrap();
    let web = host(&authority, "web");
    let signature = web.sign();
    let (trust, signed) = (
        trust(&authority),
        signed(&web.certificate, "web", &signature),
    );
    let (from, until) = (NOW - DAY, NOW + MONTH.as_secs());
    for now in [from, NOW, until] {
        assert_eq!(trust.verify(&signed, now), Ok(from..=until));
    }
    assert_eq!(
        trust.verify(&signed, from - 1),
        Err(Distrust::NotYetValid { from })
    );
    assert_eq!(
        trust.verify(&signed, until + 1),
        Err(Distrust::Expired { at: until })
    );
    for never in [0, u64::MAX] {
        trust.verify(&signed, never).unwrap_err();
    }
}

#[test]
fn nobody_signs_for_another() {
    let ours = Authority::generate(CLUSTER, NOW).unwrap();
    let theirs = Authority::generate(CLUSTER, NOW).unwrap();
    let (web, db) = (host(&ours, "web"), host(&ours, "db"));
    let foreign = host(&theirs, "web");
    let trust = trust(&ours);
    let verify = |certificate: &str, signature: &[u8]| {
        trust.verify(&signed(certificate, "web", signature), NOW)
    };
    verify(&web.certificate, &web.sign()).unwrap();
    assert_eq!(
        verify(&foreign.certificate, &foreign.sign()),
        Err(Distrust::Issuer)
    );
    assert_eq!(
        verify(&db.certificate, &db.sign()),
        Err(Distrust::Name("db".to_owned()))
    );
    assert_eq!(
        verify(&web.certificate, &db.sign()),
        Err(Distrust::Signature),
        "the certificate is no secret"
    );
    for wrong in ["", "-----BEGIN CERTIFICATE-----", &*web.key.pem()] {
        assert_eq!(verify(wrong, &web.sign()), Err(Distrust::Unreadable));
    }
    let signature = web.sign();
    let namesake = Signed {
        member: "another",
        ..signed(&web.certificate, "web", &signature)
    };
    assert_eq!(trust.verify(&namesake, NOW), Err(Distrust::Member));
    // The authority itself is no host.
    let authority = ours.certificate().pem();
    verify(authority, &web.sign()).unwrap_err();
}

#[test]
fn a_member_is_no_authority() {
    let authority = Authority::generate(CLUSTER, NOW).unwrap();
    let db = host(&authority, "db");
    let usurper = Authority::load(&db.certificate, &db.key.pem()).unwrap();
    let web = host(&usurper, "web");
    let trust = trust(&authority);
    for chain in [
        web.certificate.clone(),
        format!("{}{}", web.certificate, db.certificate),
        format!(
            "{}{}{}",
            web.certificate,
            db.certificate,
            authority.certificate().pem()
        ),
    ] {
        let refused = trust.verify(&signed(&chain, "web", &web.sign()), NOW);
        assert_eq!(refused, Err(Distrust::Issuer), "{chain}");
    }
}

#[test]
fn another_kind_of_key_is_refused_and_no_harm() {
    use rcgen::{
        CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SigningKey,
    };
    let authority = Authority::generate(CLUSTER, NOW).unwrap();
    let key = KeyPair::from_pem(&authority.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(authority.certificate().pem(), key).unwrap();
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "web");
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationalUnitName, "m");
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        let signature = key.sign(MESSAGE).unwrap();
        let refused = trust(&authority).verify(&signed(&certificate, "web", &signature), NOW);
        assert_eq!(refused, Err(Distrust::Signature));
    }
}

#[test]
fn a_key_and_a_certificate_are_read_from_the_text_that_has_both() {
    let authority = Authority::generate(CLUSTER, NOW).unwrap();
    let web = host(&authority, "web");
    let both = format!("{}\n{}", web.certificate, &*web.key.pem());
    let certificate = Certificate::from_pem(&both).unwrap();
    assert!(
        !certificate.pem().contains("PRIVATE"),
        "the key stays where it is"
    );
    assert_eq!(
        Certificate::from_pem(certificate.pem()).unwrap(),
        certificate
    );
    let signature = HostKey::from_pem(&both).unwrap().sign(MESSAGE).unwrap();
    let signed = signed(certificate.pem(), "web", &signature);
    trust(&authority).verify(&signed, NOW).unwrap();
    assert!(HostKey::from_pem(&web.certificate).is_err());
}

static MADE: LazyLock<(Authority, Host, Vec<u8>)> = LazyLock::new(|| {
    let authority = Authority::generate(CLUSTER, NOW).unwrap();
    let web = host(&authority, "web");
    let signature = web.sign();
    (authority, web, signature)
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_is_noticed(place in any::<proptest::sample::Index>(), bit in 0_u8..8, what in 0_u8..3) {
        let (authority, web, signature) = &*MADE;
        let (mut bytes, mut signature) = (MESSAGE.to_vec(), signature.clone());
        let mut der = Certificate::from_pem(&web.certificate).unwrap().der().to_vec();
        let target = match what {
            0 => &mut bytes,
            1 => &mut signature,
            _ => &mut der,
        };
        let at = place.index(target.len());
        target[at] ^= 1 << bit;
        let pem = pem(&der);
        let signed = Signed { certificate: &pem, name: "web", member: "m", message: &bytes, signature: &signature };
        let refused = trust(authority).verify(&signed, NOW);
        prop_assert_ne!(refused, Ok(NOW - DAY..=NOW + MONTH.as_secs()));
    }

    #[test]
    fn a_signature_that_is_cut_or_made_up_is_refused(length in 0_usize..72, made_up in any::<[u8; 72]>()) {
        let (authority, web, signature) = &*MADE;
        let trust = trust(authority);
        for wrong in [&signature[..length.min(signature.len() - 1)], &made_up[..length]] {
            let refused = trust.verify(&signed(&web.certificate, "web", wrong), NOW);
            prop_assert_eq!(refused, Err(Distrust::Signature));
        }
    }

    #[test]
    fn no_two_lists_of_fields_have_the_same_bytes(one in any::<Vec<Vec<u8>>>(), other in any::<Vec<Vec<u8>>>()) {
        let bytes = |list: &[Vec<u8>]| message("d", &list.iter().map(Vec::as_slice).collect::<Vec<_>>());
        prop_assert_eq!(bytes(&one) == bytes(&other), one == other);
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}
