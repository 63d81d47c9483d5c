//! How Go writes what is not there: an empty string, `null`, or no field at all.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serializer, de};

/// `null` is the default.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An empty string, or `null`, is `None`.
pub(crate) mod empty_is_none {
    use super::{Deserialize, Deserializer, Display, FromStr, Serializer, de};

    pub(crate) fn deserialize<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr<Err: Display>,
    {
        let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty());
        let parse = |text: String| {
            text.parse()
                .map_err(|error| de::Error::custom(format!("`{text}`: {error}")))
        };
        text.map(parse).transpose()
    }

    pub(crate) fn serialize<S, T>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
        T: Display,
    {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_str(""),
        }
    }
}

/// A link address as the engine writes it into the options of a network call: its six octets in base64.
pub(crate) mod octets_in_base64 {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use drover_model::MacAddress;

    use super::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn deserialize<'de, D>(deserializer: D) -> Result<Option<MacAddress>, D::Error>
    where
        D: Deserializer<'de>,
    {
        let Some(text) = Option::<String>::deserialize(deserializer)?.filter(|it| !it.is_empty())
        else {
            return Ok(None);
        };
        let octets = STANDARD.decode(&text).map_err(de::Error::custom)?;
        let octets = <[u8; 6]>::try_from(octets).map_err(|octets| {
            de::Error::custom(format!("a link address has 6 octets, not {}", octets.len()))
        })?;
        Ok(Some(MacAddress::new(octets)))
    }

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<MacAddress>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(
            &value
                .map(|it| STANDARD.encode(it.octets()))
                .unwrap_or_default(),
        )
    }
}
