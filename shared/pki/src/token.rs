//! Join tokens: what one host gives another so that it can join.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::certificate::Fingerprint;
use crate::error::Error;

const MARK: &str = "drover1.";
const ID: usize = 16;
const DIGEST: usize = 32;
const SECRET: usize = 32;
const CHECK: usize = 4;

/// A join token: `drover1.` and base64url of cluster id, fingerprint of the authority, secret, expiry
/// and a check sum. It is a secret; the store keeps a hash of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    cluster: [u8; ID],
    authority: Fingerprint,
    secret: [u8; SECRET],
    expires_at: u64,
}

/// Why a text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else altogether.
    #[error(
        "this is not a join token: one begins with `drover1.`; copy it from the output of `drover init`"
    )]
    NotAToken,
    /// Not as it was printed.
    #[error(
        "the join token is incomplete or mistyped; copy it again from the output of `drover init`"
    )]
    Damaged,
}

impl Token {
    /// Makes a token with a new secret.
    ///
    /// # Errors
    /// When the cluster's id is not 32 hexadecimal digits, or the system gives no random numbers.
    pub fn generate(cluster: &str, authority: Fingerprint, expires_at: u64) -> Result<Self, Error> {
        let cluster = from_hex(cluster).ok_or(Error::Parse {
            what: "a cluster id",
        })?;
        let mut secret = [0; SECRET];
        getrandom::fill(&mut secret).map_err(Error::Random)?;
        Ok(Self {
            cluster,
            authority,
            secret,
            expires_at,
        })
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> String {
        hex(&self.cluster)
    }

    /// The authority of the cluster.
    #[must_use]
    pub const fn authority(&self) -> Fingerprint {
        self.authority
    }

    /// After this it is refused.
    #[must_use]
    pub const fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// The secret, hexadecimal: what the joining host shows to the authority's host.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<String> {
        Zeroizing::new(hex(&self.secret))
    }

    /// What the store knows it by.
    #[must_use]
    pub fn hash(&self) -> String {
        Self::hash_of_secret(&self.secret())
    }

    /// What the store knows a token by whose [`Self::secret`] was shown.
    #[must_use]
    pub fn hash_of_secret(secret: &str) -> String {
        hex(&Sha256::digest(secret.as_bytes()))
    }

    /// The token as text, to be shown once.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(ID + DIGEST + SECRET + 8 + CHECK));
        bytes.extend_from_slice(&self.cluster);
        bytes.extend_from_slice(&self.authority.0);
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&self.expires_at.to_be_bytes());
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        Zeroizing::new(format!(
            "{MARK}{}",
            URL_SAFE_NO_PAD.encode(bytes.as_slice())
        ))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text
            .trim()
            .strip_prefix(MARK)
            .ok_or(TokenError::NotAToken)?;
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_not_base64| TokenError::Damaged)?;
        read(&Zeroizing::new(bytes)).ok_or(TokenError::Damaged)
    }
}

fn read(bytes: &[u8]) -> Option<Token> {
    let (body, sum) = bytes.split_last_chunk::<CHECK>()?;
    if check(body) != *sum {
        return None;
    }
    let (cluster, rest) = body.split_first_chunk::<ID>()?;
    let (authority, rest) = rest.split_first_chunk::<DIGEST>()?;
    let (secret, rest) = rest.split_first_chunk::<SECRET>()?;
    let expires_at = u64::from_be_bytes(rest.try_into().ok()?);
    let (cluster, authority, secret) = (*cluster, Fingerprint(*authority), *secret);
    Some(Token {
        cluster,
        authority,
        secret,
        expires_at,
    })
}

fn check(bytes: &[u8]) -> [u8; CHECK] {
    let digest: [u8; DIGEST] = Sha256::digest(bytes).into();
    let [a, b, c, d, ..] = digest;
    [a, b, c, d]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; ID]> {
    let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * ID || !text.bytes().all(lower) {
        return None;
    }
    let number = u128::from_str_radix(text, 16).ok()?;
    Some(number.to_be_bytes())
}

impl Drop for Token {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Token")
            .field("cluster", &self.cluster())
            .field("authority", &self.authority)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "00112233445566778899aabbccddeeff";

    fn token() -> Token {
        Token::generate(CLUSTER, Fingerprint([7; 32]), 1_800_000_000).unwrap()
    }

    #[test]
    fn a_token_comes_back_from_its_text() {
        let token = token();
        let text = token.encode();
        assert!(text.starts_with("drover1."), "{}", *text);
        let read: Token = format!(" {}\n", *text).parse().unwrap();
        assert_eq!(read, token);
        assert_eq!(read.cluster(), CLUSTER);
        assert_eq!(read.hash(), Token::hash_of_secret(&read.secret()));
        assert_ne!(token.secret(), self::token().secret());
    }

    #[test]
    fn every_slip_of_the_hand_is_noticed() {
        let text = token().encode();
        for at in MARK.len()..text.len() {
            let mut wrong = text.to_string();
            let other = if wrong.as_bytes()[at] == b'A' {
                "B"
            } else {
                "A"
            };
            wrong.replace_range(at..=at, other);
            assert_eq!(wrong.parse::<Token>(), Err(TokenError::Damaged), "{wrong}");
            let cut = &text[..at];
            assert_eq!(cut.parse::<Token>(), Err(TokenError::Damaged), "{cut}");
        }
        for foreign in ["", "SWMTKN-1-abc", "drover2.AAAA"] {
            assert_eq!(
                foreign.parse::<Token>(),
                Err(TokenError::NotAToken),
                "{foreign}"
            );
        }
    }

    #[test]
    fn neither_debug_nor_the_hash_shows_the_secret() {
        let token = token();
        let shown = format!("{token:?} {}", token.hash());
        assert!(!shown.contains(&*token.secret()), "{shown}");
        assert!(shown.contains(CLUSTER));
    }

    #[test]
    fn a_cluster_id_is_32_digits() {
        for wrong in [
            "",
            "0011",
            &CLUSTER.to_uppercase(),
            &format!("+{}", &CLUSTER[1..]),
        ] {
            assert!(
                Token::generate(wrong, Fingerprint([7; 32]), 0).is_err(),
                "{wrong}"
            );
        }
    }
}
