//! The URI of a call, as the engine's router reads it.
//!
//! The engine hands a plugin the URI as it came: in absolute form, percent-encoded, with and without a version. Its router
//! decodes the path once and matches on what comes out, so `containers%2Fjson` is `containers/json`. A path that is not
//! clean (`//`, `.`, `..`) is answered with a redirect before a plugin is asked; here it is refused.

/// Why a URI is not judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// It is neither a path nor in absolute form.
    #[error("the URI is neither a path nor an absolute URI")]
    Form,
    /// A `%` without two hexadecimal digits, or what it stands for is not UTF-8.
    #[error("the URI is not percent-encoded UTF-8")]
    Encoding,
    /// `//`, `.` or `..`, or a control character.
    #[error("the path of the URI is not clean")]
    Unclean,
    /// The version has another form than `1.41`.
    #[error("`{0}` is not a version of the API such as v1.41")]
    Version(String),
    /// A parameter comes twice, and the engine would take one of them.
    #[error("the parameter `{0}` comes twice")]
    Repeated(String),
    /// A `;`, which engines read in different ways.
    #[error("the query has a `;`")]
    Semicolon,
}

/// What a URI leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The version of the API; `None` when the URI has none.
    pub version: Option<(u16, u16)>,
    /// The path, decoded, without the version.
    pub path: String,
    /// The parameters.
    pub query: Query,
}

/// The parameters of a URI, decoded, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// Parameters that are lists: all of them count.
const LISTS: &[&str] = &["changes", "names", "platform", "t"];

impl Target {
    /// Reads a URI.
    ///
    /// # Errors
    /// When it can be read in two ways, or in none.
    pub fn parse(uri: &str) -> Result<Self, UriError> {
        let uri = without_authority(uri)?;
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let path = decode(path, false)?;
        let unclean = path
            .split('/')
            .skip(1)
            .any(|part| part == "." || part == "..")
            || path.contains("//")
            || path.chars().any(char::is_control);
        if unclean {
            return Err(UriError::Unclean);
        }
        let (version, path) = split_version(&path)?;
        Ok(Self {
            version,
            path: path.to_owned(),
            query: Query::parse(query)?,
        })
    }
}

/// Major and minor.
type Version = (u16, u16);

/// Strips `scheme://authority`.
fn without_authority(uri: &str) -> Result<&str, UriError> {
    if uri.starts_with('/') {
        return Ok(uri);
    }
    let (scheme, rest) = uri.split_once("://").ok_or(UriError::Form)?;
    let is_scheme = scheme
        .chars()
        .enumerate()
        .all(|(place, letter)| match letter {
            'a'..='z' | 'A'..='Z' => true,
            '0'..='9' | '+' | '-' | '.' => place > 0,
            _ => false,
        });
    let begin = rest.find(['/', '?']).ok_or(UriError::Form)?;
    let path = rest.get(begin..).unwrap_or_default();
    if scheme.is_empty() || !is_scheme || !path.starts_with('/') {
        return Err(UriError::Form);
    }
    Ok(path)
}

/// `/v1.41/x` is `x` in version 1.41.
fn split_version(path: &str) -> Result<(Option<Version>, &str), UriError> {
    let Some(rest) = path.strip_prefix("/v") else {
        return Ok((None, path));
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (number, path_after) = rest.split_at(end);
    if number.is_empty() || !number.chars().all(|c| c.is_ascii_digit() || c == '.') {
        // `/version`, `/volumes`.
        return Ok((None, path));
    }
    let part = |text: &str| {
        let canonical = !text.is_empty() && (text == "0" || !text.starts_with('0'));
        canonical.then(|| text.parse::<u16>().ok()).flatten()
    };
    let version = number
        .split_once('.')
        .and_then(|(major, minor)| Some((part(major)?, part(minor)?)));
    match version {
        Some(version) => Ok((Some(version), path_after)),
        None => Err(UriError::Version(number.chars().take(20).collect())),
    }
}

fn decode(text: &str, plus: bool) -> Result<String, UriError> {
    if !(text.contains('%') || plus && text.contains('+')) {
        return Ok(text.to_owned());
    }
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |byte: Option<u8>| {
                    char::from(byte?)
                        .to_digit(16)
                        .and_then(|digit| u8::try_from(digit).ok())
                };
                let (high, low) = (digit(bytes.next()), digit(bytes.next()));
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(UriError::Encoding);
                };
                out.push(high << 4 | low);
            }
            b'+' if plus => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8(out).or(Err(UriError::Encoding))
}

impl Query {
    fn parse(text: &str) -> Result<Self, UriError> {
        if text.contains(';') {
            return Err(UriError::Semicolon);
        }
        let mut parameters: Vec<(String, String)> = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let (key, value) = (decode(key, true)?, decode(value, true)?);
            let repeated = parameters.iter().any(|(other, _)| *other == key);
            if repeated && !LISTS.contains(&key.as_str()) {
                return Err(UriError::Repeated(key.chars().take(40).collect()));
            }
            parameters.push((key, value));
        }
        Ok(Self(parameters))
    }

    /// A parameter; empty when it is missing.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        let mut named = self.0.iter().filter(|(key, _)| key == name);
        named.next().map_or("", |(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(key, _)| key == name);
        named.map(|(_, value)| value.as_str())
    }

    /// A switch, as engines read one: everything is on but these.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        let value = self.get(name).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(uri: &str) -> String {
        Target::parse(uri).unwrap().path
    }

    #[test]
    fn a_uri_has_many_spellings() {
        for uri in [
            "/containers/json",
            "/v1.41/containers/json",
            "/v1.41/containers%2Fjson",
            "/v1.41/%63ontainers/json",
            "http://evil/v1.41/containers/json",
            "HTTP://a:b@evil:80/v1.41/containers/json?all=1",
            "/%76%31.41/containers/json",
        ] {
            assert_eq!(path(uri), "/containers/json", "{uri}");
        }
        assert_eq!(path("/version"), "/version");
        assert_eq!(path("/volumes/v1.2"), "/volumes/v1.2");
        // Once, not twice.
        assert_eq!(path("/containers%252Fjson"), "/containers%2Fjson");
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        for uri in [
            "//containers/json",
            "/v1.41//containers/json",
            "/containers/../containers/json",
            "/containers/%2e%2e/json",
            "/containers/./json",
            "/containers/a%2F%2Fb/json",
            "/containers/a%00/json",
            "containers/json",
            "http:containers/json",
            "http://host",
            "/containers/%zz",
            "/containers/%f",
            "/containers/%ff",
            "/v1.041/containers/json",
            "/v1/containers/json",
            "/v1.4.1/containers/json",
            "/v.1/containers/json",
            "/commit?container=a&container=b",
            "/commit?container=a;container=b",
            "*",
            "",
        ] {
            assert!(Target::parse(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn parameters_are_read_as_forms() {
        let query = Target::parse("/build?t=a&t=b&q=1&remote=a%20b+c&x")
            .unwrap()
            .query;
        assert_eq!(query.all("t").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(query.get("remote"), "a b c");
        assert!(query.is_on("q") && !query.is_on("x") && !query.is_on("nothing"));
    }
}
