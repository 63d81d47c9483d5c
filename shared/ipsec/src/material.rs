//! The key of an association: never printed, wiped when it is no longer used.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// The key of an AES-256-GCM association: 32 bytes of key and 4 of salt (RFC 4106, section 8.1).
///
/// Clones share one allocation, which is wiped when the last one goes.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyMaterial(Arc<Zeroizing<[u8; Self::LENGTH]>>);

impl KeyMaterial {
    /// Its length in bytes.
    pub const LENGTH: usize = 36;

    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; Self::LENGTH]>) -> Self {
        Self(Arc::new(bytes))
    }

    /// The bytes, for the kernel alone.
    #[must_use]
    pub fn expose(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyMaterial(..)")
    }
}
