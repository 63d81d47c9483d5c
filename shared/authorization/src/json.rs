//! JSON as Go's `encoding/json` reads it into structures, and nothing that it could read in two ways.
//!
//! Go matches the names of fields without regard to case (with the two letters outside of ASCII that fold into it: `ſ` and
//! the Kelvin sign), takes the last of several, and takes `null` for "not there". Here a name that comes twice in any mix
//! of cases is refused; so is what follows the value. Under `Labels`, which is a map, names are taken as they are.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(serde_json::Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// An object.
    Object(Object),
    /// What a field has that decides nothing, however it is read: `UNREAD`.
    Unread,
}

/// A field whose value decides nothing. It is the longest part of most bodies.
const UNREAD: &str = "Env";

/// An object: its members in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Object(Vec<(String, Json)>);

/// Why a body is not judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON, names something twice, or goes on after its end.
    #[error("the body is not one unambiguous JSON value: {0}")]
    Syntax(String),
    /// A field has another type than the engine reads.
    #[error("`{field}` must be {expected}")]
    Type {
        /// Which.
        field: String,
        /// What it has to be.
        expected: &'static str,
    },
}

/// Whether Go takes `key` for the field `name`, which is ASCII.
pub(crate) fn names(key: &str, name: &str) -> bool {
    if key.is_ascii() {
        return key.eq_ignore_ascii_case(name);
    }
    key.chars().map(fold).eq(name.chars().map(fold))
}

const fn fold(letter: char) -> char {
    match letter {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}

/// A name without its cases, as Go compares it.
pub(crate) fn folded(key: &str) -> String {
    key.chars().map(fold).collect()
}

impl Json {
    /// Reads a whole body.
    ///
    /// # Errors
    /// When it is not exactly one value, or names something twice.
    pub fn parse(body: &[u8]) -> Result<Self, JsonError> {
        let mut reader = serde_json::Deserializer::from_slice(body);
        let syntax = |error: serde_json::Error| JsonError::Syntax(error.to_string());
        let value = Seed { exact: false }
            .deserialize(&mut reader)
            .map_err(syntax)?;
        reader.end().map_err(syntax)?;
        Ok(value)
    }

    /// Whether it is what a field has that was not sent.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Number(number) => number.as_f64() == Some(0.0),
            Self::Text(text) => text.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Object(object) => object.0.is_empty(),
            Self::Unread => false,
        }
    }

    /// As a text for a person, at most 120 characters.
    #[must_use]
    pub fn brief(&self) -> String {
        match self {
            Self::Null | Self::Unread => String::new(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.chars().take(120).collect(),
            Self::List(list) => {
                let parts: Vec<String> = list.iter().take(8).map(Self::brief).collect();
                parts.join(",").chars().take(120).collect()
            }
            Self::Object(object) => {
                let keys: Vec<&str> = object.0.iter().map(|(key, _)| key.as_str()).collect();
                keys.join(",").chars().take(120).collect()
            }
        }
    }
}

impl Object {
    /// The members, in their order.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// A field, by the engine's name of it; `None` when it is missing or `null`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Json> {
        let found = self.0.iter().find(|(key, _)| names(key, name));
        found
            .map(|(_, value)| value)
            .filter(|value| **value != Json::Null)
    }

    /// Whether a field was sent, be it as `null`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    /// A text; empty when it is missing.
    pub(crate) fn text(&self, name: &str) -> Result<&str, JsonError> {
        match self.field(name) {
            None => Ok(""),
            Some(Json::Text(text)) => Ok(text),
            Some(_) => Err(wrong(name, "a text")),
        }
    }

    /// `false` when it is missing.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, JsonError> {
        match self.field(name) {
            None => Ok(false),
            Some(Json::Bool(flag)) => Ok(*flag),
            Some(_) => Err(wrong(name, "true or false")),
        }
    }

    /// Empty when it is missing.
    pub(crate) fn list(&self, name: &str) -> Result<&[Json], JsonError> {
        match self.field(name) {
            None => Ok(&[]),
            Some(Json::List(list)) => Ok(list),
            Some(_) => Err(wrong(name, "a list")),
        }
    }

    /// A list of texts. An engine takes one text for a list of one in some fields; it is taken so in all of them, which
    /// only ever tells more than the engine would do.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<&str>, JsonError> {
        match self.field(name) {
            None => Ok(Vec::new()),
            Some(Json::Text(text)) => Ok(vec![text]),
            Some(Json::List(list)) => list
                .iter()
                .filter(|each| **each != Json::Null)
                .map(|each| match each {
                    Json::Text(text) => Ok(text.as_str()),
                    _ => Err(wrong(name, "a list of texts")),
                })
                .collect(),
            Some(_) => Err(wrong(name, "a list of texts")),
        }
    }

    /// Empty when it is missing.
    pub(crate) fn object(&self, name: &str) -> Result<&Self, JsonError> {
        const EMPTY: &Object = &Object(Vec::new());
        match self.field(name) {
            None => Ok(EMPTY),
            Some(Json::Object(object)) => Ok(object),
            Some(_) => Err(wrong(name, "an object")),
        }
    }

    /// The objects of a list.
    pub(crate) fn objects(&self, name: &str) -> Result<Vec<&Self>, JsonError> {
        let list = self.list(name)?.iter();
        list.filter(|each| **each != Json::Null)
            .map(|each| match each {
                Json::Object(object) => Ok(object),
                _ => Err(wrong(name, "a list of objects")),
            })
            .collect()
    }

    /// A map of texts.
    pub(crate) fn map(&self, name: &str) -> Result<Vec<(&str, &str)>, JsonError> {
        let members = self.object(name)?.members();
        members
            .map(|(key, value)| match value {
                Json::Text(text) => Ok((key, text.as_str())),
                Json::Null => Ok((key, "")),
                _ => Err(wrong(name, "a map of texts")),
            })
            .collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub(crate) fn wrong(field: &str, expected: &'static str) -> JsonError {
    JsonError::Type {
        field: field.to_owned(),
        expected,
    }
}

/// Reads a value; `exact` when it is a map, whose names are taken as they are.
struct Seed {
    exact: bool,
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        serde_json::Number::from_f64(value)
            .map(Json::Number)
            .ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(Self { exact: false })? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        while let Some(Key(key)) = access.next_key()? {
            let taken = if self.exact {
                key.clone()
            } else {
                folded(&key)
            };
            if !seen.insert(taken) {
                let key: String = key.chars().take(80).collect();
                return Err(A::Error::custom(format!("`{key}` is named twice")));
            }
            let value = if !self.exact && names(&key, UNREAD) {
                access.next_value::<IgnoredAny>()?;
                Json::Unread
            } else {
                let exact = names(&key, "Labels");
                access.next_value_seed(Self { exact })?
            };
            members.push((key, value));
        }
        Ok(Json::Object(Object(members)))
    }
}

/// A name. A type of its own, so that no number passes for one.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        match Json::parse(text.as_bytes()).unwrap() {
            Json::Object(object) => object,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_found_as_go_finds_them() {
        for text in [
            r#"{"Binds":["/:/h"]}"#,
            r#"{"bINDS":["/:/h"]}"#,
            "{\"Bind\u{17f}\":[\"/:/h\"]}",
            r#"{"\u0042inds":["/:/h"]}"#,
        ] {
            assert_eq!(object(text).texts("Binds").unwrap(), ["/:/h"], "{text}");
        }
        assert!(names("networ\u{212a}mode", "NetworkMode"));
        assert!(!names("NetworkModes", "NetworkMode"));
    }

    #[test]
    fn what_could_be_read_twice_is_refused() {
        for text in [
            r#"{"Privileged":false,"privileged":true}"#,
            r#"{"Privileged":true,"Privileged":true}"#,
            "{\"Bind\u{17f}\":[],\"binds\":[]}",
            r#"{"a":{"b":1,"B":2}}"#,
            r#"{"a":[{"b":1,"B":2}]}"#,
            r#"{"Labels":{"a":"1","a":"2"}}"#,
            "{} {}",
            "{}x",
            "",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":1,}",
            "{\"Env\":[],\"env\":[]}",
            "{\"Env\":[1}",
            "{\"Env\":[]",
            "{'a':1}",
        ] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Json::parse(b"{\"a\":\"\xff\"}").is_err());
        assert!(Json::parse(" {\"a\":1}\n".as_bytes()).is_ok());
        assert!(Json::parse(br#"{"Labels":{"a":"1","A":"2"}}"#).is_ok());
    }

    #[test]
    fn null_is_missing_and_types_are_kept() {
        let body = object(r#"{"A":null,"B":"x","C":1}"#);
        assert_eq!(body.text("A").unwrap(), "");
        assert!(!body.has("A"));
        assert!(body.flag("B").is_err() && body.text("C").is_err() && body.list("B").is_err());
    }

    #[test]
    fn a_body_of_braces_ends_the_reading_and_not_the_process() {
        let deep = "[".repeat(100_000);
        assert!(Json::parse(deep.as_bytes()).is_err());
        assert!(Json::parse("{\"a\":".repeat(100_000).as_bytes()).is_err());
    }
}
