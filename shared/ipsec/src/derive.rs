//! From two hosts' keys to the key of an association: X25519 (RFC 7748) and HKDF-SHA256 (RFC 5869).
//!
//! ```text
//! secret = X25519(own private key, the peer's public key), refused when all zero
//! key    = HKDF-SHA256(input = secret, salt = "drover ipsec v1", length = 36 bytes,
//!            info = field(cluster id) field(sender's member id) field(receiver's member id)
//!                   field(sender's public key) field(receiver's public key) field(lane, one byte) field("key"))
//! field(x) = the length of x in bytes, as 4 bytes with the most significant first, then x
//! ```
//!
//! `tests/vectors.py` does the same with another implementation.

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::material::KeyMaterial;
use crate::spi::Lane;

const SALT: &[u8] = b"drover ipsec v1";

/// The two hosts' keys have no secret between them: the public key is a point of low order (RFC 7748, section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the public key is a point of low order, with which every secret is zero: no host makes one by itself"
)]
pub struct LowOrderKey;

/// The public half of a generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; Self::LENGTH]);

impl PublicKey {
    /// Its length in bytes.
    pub const LENGTH: usize = 32;

    /// The key of these bytes. Whether it is of low order is seen when a secret is agreed on.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::LENGTH] {
        self.0
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PublicKey(")?;
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))?;
        formatter.write_str(")")
    }
}

/// The private half of a generation: never printed, never copied, wiped when it is dropped.
pub struct PrivateKey(Box<StaticSecret>);

impl PrivateKey {
    /// The key of 32 random bytes.
    #[must_use]
    pub fn from_seed(seed: &Zeroizing<[u8; 32]>) -> Self {
        Self(Box::new(StaticSecret::from(**seed)))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519_dalek::PublicKey::from(&*self.0).to_bytes())
    }

    /// The secret this host and the host of a public key have, and nobody else.
    ///
    /// # Errors
    /// When the public key is of low order.
    pub fn agree(&self, peer: &PublicKey) -> Result<SharedSecret, LowOrderKey> {
        let secret = self
            .0
            .diffie_hellman(&x25519_dalek::PublicKey::from(peer.0));
        if secret.was_contributory() {
            Ok(SharedSecret(Box::new(secret)))
        } else {
            Err(LowOrderKey)
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateKey(..)")
    }
}

/// What two hosts have agreed on: never printed, wiped when it is dropped.
pub struct SharedSecret(Box<x25519_dalek::SharedSecret>);

impl SharedSecret {
    /// The key of an association.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "HKDF-SHA256 gives any length up to 8160 bytes"
    )]
    pub fn key(&self, flow: &Flow<'_>) -> KeyMaterial {
        let mut key = Zeroizing::new([0; KeyMaterial::LENGTH]);
        Hkdf::<Sha256>::new(Some(SALT), self.0.as_bytes())
            .expand(&flow.info(), key.as_mut_slice())
            .expect("36 bytes are not too many");
        KeyMaterial::new(key)
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SharedSecret(..)")
    }
}

/// One of the two hosts of a flow.
#[derive(Debug, Clone, Copy)]
pub struct Party<'a> {
    /// Its member id: a host that joined anew is another.
    pub member: &'a str,
    /// The public key of its generation.
    pub public: PublicKey,
}

/// What one association carries, and what its key is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Flow<'a> {
    /// The id of the cluster.
    pub cluster: &'a str,
    /// Who sends.
    pub sender: Party<'a>,
    /// Who receives.
    pub receiver: Party<'a>,
    /// In which lane.
    pub lane: Lane,
}

impl Flow<'_> {
    fn info(&self) -> Vec<u8> {
        let fields: [&[u8]; 7] = [
            self.cluster.as_bytes(),
            self.sender.member.as_bytes(),
            self.receiver.member.as_bytes(),
            &self.sender.public.0,
            &self.receiver.public.0,
            &[self.lane.get()],
            b"key",
        ];
        let mut info = Vec::new();
        for field in fields {
            // Ids are tens of bytes; a length beyond 32 bits could not be told, and is not reached.
            let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
            info.extend_from_slice(&length.to_be_bytes());
            info.extend_from_slice(field);
        }
        info
    }
}
