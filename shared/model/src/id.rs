//! Identifiers: Docker's own, and the cluster-wide id of a network.

use crate::text::shown;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The id has the wrong length.
    #[error("{kind} `{id}` has {length} characters, not {expected}")]
    Length {
        /// What the id names.
        kind: &'static str,
        /// The text that was given, cut to 80 characters.
        id: String,
        /// How long it is.
        length: usize,
        /// How long it must be.
        expected: usize,
    },
    /// The id has a character that is not a lower-case hexadecimal digit.
    #[error("{kind} `{id}` is not lower-case hexadecimal")]
    NotHex {
        /// What the id names.
        kind: &'static str,
        /// The text that was given.
        id: String,
    },
}

/// Writes the type of an id of hexadecimal digits.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $length:literal) => {
        crate::text::checked_text!(
            $(#[$doc])*
            $name, crate::id::IdError, |text: &str| crate::id::check($kind, $length, text)
        );

        impl $name {
            /// The first 12 characters, as Docker prints ids.
            #[must_use]
            pub fn short(&self) -> &str {
                self.0.get(..12).unwrap_or(&self.0)
            }
        }
    };
}

pub(crate) use hex_id;

/// Whether a text is so many lower-case hexadecimal digits.
pub(crate) fn check(kind: &'static str, length: usize, id: &str) -> Result<(), IdError> {
    if id.len() != length {
        return Err(IdError::Length {
            kind,
            id: shown(id),
            length: id.len(),
            expected: length,
        });
    }
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if !id.bytes().all(hex) {
        let id = id.to_owned();
        return Err(IdError::NotHex { kind, id });
    }
    Ok(())
}

hex_id!(
    /// Docker's id of one host's copy of a network: 64 hexadecimal digits, different on every host.
    NetworkId, "network id", 64
);
hex_id!(
    /// Docker's id of an endpoint: 64 hexadecimal digits, new at every start of a container.
    EndpointId, "endpoint id", 64
);
hex_id!(
    /// The cluster-wide id of a network, the same on every host: 16 hexadecimal digits.
    LogicalNetworkId, "logical network id", 16
);

impl EndpointId {
    /// The name of the endpoint's link in the engine's namespace until the engine takes it: `dvr`
    /// and ten digits. The kernel allows 15 characters.
    #[must_use]
    pub fn sandbox_link(&self) -> String {
        format!("dvr{}", self.0.get(..10).unwrap_or(&self.0))
    }

    /// The name of the endpoint's bridge port in the `drover` namespace: `ep` and twelve digits.
    #[must_use]
    pub fn port_link(&self) -> String {
        format!("ep{}", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_exact_length_in_lower_case_hex() {
        let id: NetworkId = "9a98742c67fdc73b9bea863a7c1ea9dc0221c26f819b5c58b6d9e1d82c1b32a6"
            .parse()
            .unwrap();
        assert_eq!(id.short(), "9a98742c67fd");
        assert!("9a98".parse::<NetworkId>().is_err());
        assert!("9A98742C67FDC73B".parse::<LogicalNetworkId>().is_err());
        assert!(serde_json::from_str::<EndpointId>("\"../../etc\"").is_err());
    }

    #[test]
    fn link_names_fit_the_kernel() {
        let id: EndpointId = "f".repeat(64).parse().unwrap();
        assert!(id.sandbox_link().len() <= 15);
        assert!(id.port_link().len() <= 15);
    }
}
