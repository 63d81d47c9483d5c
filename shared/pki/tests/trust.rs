//! Who is believed: handshakes in memory between hosts of one cluster, of another, and strangers.
#![cfg(test)]

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drover_pki::tls::{self, Identity};
use drover_pki::{Authority, Certificate, HostKey, Subject};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

const CLUSTER: &str = "00112233445566778899aabbccddeeff";
const DAY: u64 = 24 * 3600;
const MONTH: Duration = Duration::from_secs(30 * DAY);

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

struct Host {
    certificate: Certificate,
    key: String,
    authority: String,
}

impl Host {
    fn identity(&self) -> Identity<'_> {
        Identity {
            certificate: self.certificate.pem(),
            key: &self.key,
            authority: &self.authority,
        }
    }
}

fn subject(name: &str, aliases: &[&str]) -> Subject {
    Subject {
        name: name.to_owned(),
        member: format!("{name}-member"),
        aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
    }
}

fn host_made_at(authority: &Authority, name: &str, aliases: &[&str], made: u64) -> Host {
    let key = HostKey::generate().unwrap();
    // The name in the request is a lie, and must not matter.
    let request = key.request("somebody-else").unwrap();
    let certificate = authority
        .sign(&request, &subject(name, aliases), made, MONTH)
        .unwrap();
    let authority = authority.certificate().pem().to_owned();
    Host {
        certificate,
        key: key.pem().to_string(),
        authority,
    }
}

fn host(authority: &Authority, name: &str, aliases: &[&str]) -> Host {
    host_made_at(authority, name, aliases, now())
}

/// The name that the server saw in the client's certificate, or why there was no connection.
fn shake(client: ClientConfig, server: ServerConfig) -> Result<Option<String>, rustls::Error> {
    let name = tls::authority_name().unwrap();
    let mut client: Connection = ClientConnection::new(Arc::new(client), name)?.into();
    let mut server: Connection = ServerConnection::new(Arc::new(server))?.into();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
        for to_server in [true, false] {
            let (from, to) = if to_server {
                (&mut client, &mut server)
            } else {
                (&mut server, &mut client)
            };
            let mut wire = Vec::new();
            while from.wants_write() {
                from.write_tls(&mut wire).unwrap();
            }
            let mut wire = wire.as_slice();
            while !wire.is_empty() {
                to.read_tls(&mut wire.by_ref()).unwrap();
                to.process_new_packets()?;
            }
        }
    }
    let shown = server.peer_certificates().and_then(|chain| chain.first());
    Ok(shown.map(|shown| Certificate::from_der(shown).unwrap().name().to_owned()))
}

#[test]
fn a_host_with_the_token_finds_the_authority_and_no_other() {
    let ours = Authority::generate(CLUSTER, now()).unwrap();
    let theirs = Authority::generate(CLUSTER, now()).unwrap();
    let first = host(&ours, "first", &[tls::AUTHORITY_NAME]);
    let joining = |authority: &Authority| tls::joining_client(authority.fingerprint()).unwrap();
    let server = |host: &Host| tls::server(host.identity()).unwrap();

    assert_eq!(shake(joining(&ours), server(&first)), Ok(None));

    let foreign = host(&theirs, "first", &[tls::AUTHORITY_NAME]);
    let refused = shake(joining(&ours), server(&foreign)).unwrap_err();
    assert!(
        matches!(refused, rustls::Error::InvalidCertificate(_)),
        "{refused:?}"
    );

    // Sends the right authority along, but was signed by another.
    let liar = Host {
        authority: ours.certificate().pem().to_owned(),
        ..foreign
    };
    let refused = shake(joining(&ours), server(&liar)).unwrap_err();
    assert!(
        matches!(refused, rustls::Error::InvalidCertificate(_)),
        "{refused:?}"
    );

    // A member of the cluster is not the host that has the authority.
    let member = host(&ours, "second", &[]);
    let refused = shake(joining(&ours), server(&member)).unwrap_err();
    assert!(
        matches!(refused, rustls::Error::InvalidCertificate(_)),
        "{refused:?}"
    );
}

#[test]
fn hosts_of_the_cluster_know_each_other_by_name() {
    let ours = Authority::generate(CLUSTER, now()).unwrap();
    let theirs = Authority::generate(CLUSTER, now()).unwrap();
    let first = host(&ours, "first", &[tls::AUTHORITY_NAME]);
    let second = host(&ours, "second", &[]);
    let server = || tls::server(first.identity()).unwrap();
    let name = shake(tls::client(second.identity()).unwrap(), server()).unwrap();
    assert_eq!(name.as_deref(), Some("second"));

    let stranger = host(&theirs, "second", &[]);
    let stranger = Host {
        authority: ours.certificate().pem().to_owned(),
        ..stranger
    };
    shake(tls::client(stranger.identity()).unwrap(), server()).unwrap_err();

    let ended = host_made_at(&ours, "second", &[], now() - 31 * DAY);
    shake(tls::client(ended.identity()).unwrap(), server()).unwrap_err();

    // A clock that is 23 hours behind is still within the certificate.
    let ahead = host_made_at(&ours, "second", &[], now() + DAY - 3600);
    shake(tls::client(ahead.identity()).unwrap(), server()).unwrap();
}

#[test]
fn a_certificate_says_what_the_authority_decided() {
    let authority = Authority::generate(CLUSTER, now()).unwrap();
    let made = now();
    let host = host_made_at(&authority, "web-1", &[], made);
    let certificate = Certificate::from_pem(host.certificate.pem()).unwrap();
    assert_eq!(certificate.name(), "web-1");
    assert_eq!(certificate.member(), Some("web-1-member"));
    assert_eq!(certificate.addresses(), subject("", &[]).addresses);
    assert_eq!(certificate.expires_at(), made + MONTH.as_secs());
    assert_eq!(certificate.renew_at(), made + 20 * DAY);
    let other = host_made_at(&authority, "web-1", &[], made);
    assert_ne!(other.certificate.fingerprint(), certificate.fingerprint());
}

#[test]
fn an_authority_is_the_same_after_loading() {
    let made = Authority::generate(CLUSTER, now()).unwrap();
    let loaded = Authority::load(made.certificate().pem(), &made.key_pem()).unwrap();
    assert_eq!(loaded.fingerprint(), made.fingerprint());
    let first = host(&loaded, "first", &[tls::AUTHORITY_NAME]);
    let client = tls::joining_client(made.fingerprint()).unwrap();
    assert_eq!(
        shake(client, tls::server(first.identity()).unwrap()),
        Ok(None)
    );
    assert!(!format!("{made:?}").contains("PRIVATE"));
    assert!(!format!("{:?}", HostKey::generate().unwrap()).contains("PRIVATE"));
}

#[test]
fn a_request_that_was_tampered_with_is_refused() {
    let authority = Authority::generate(CLUSTER, now()).unwrap();
    let request = HostKey::generate().unwrap().request("web-1").unwrap();
    let line = request.lines().nth(2).unwrap();
    let tampered = request.replace(line, &line.chars().rev().collect::<String>());
    for wrong in ["", "-----BEGIN NOTHING-----", &tampered] {
        let refused = authority
            .sign(wrong, &subject("web-1", &[]), now(), MONTH)
            .unwrap_err();
        assert!(refused.to_string().contains("signing request"), "{refused}");
    }
    let request = HostKey::generate().unwrap().request("web-1").unwrap();
    authority
        .sign(&request, &subject("web-1", &[]), u64::MAX, MONTH)
        .unwrap_err();
}
