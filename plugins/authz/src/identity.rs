//! Who asks.

use drover_plugin_protocol::authorization::AuthorizationRequest;
use drover_policy::Principal;

/// Everybody at the engine's own socket.
pub(crate) const LOCAL: &str = "local";
/// What the name of whoever comes by a role's socket begins with.
pub(crate) const SOCKET: &str = "socket:";

/// Who asks, by a client certificate or at the engine's own socket.
///
/// # Errors
/// When a certificate bears no name, or one that has a meaning of its own.
pub(crate) fn of(request: &AuthorizationRequest) -> Result<Principal, String> {
    let name = request.user.as_str();
    if name.is_empty() {
        // A certificate may name nobody: who has one is not at the engine's socket.
        if !request.user_authn_method.is_empty() {
            return Err("the client certificate has no common name: use one that has".to_owned());
        }
        return Ok(Principal {
            name: LOCAL.to_owned(),
            role: None,
        });
    }
    check(name)?;
    Ok(Principal {
        name: name.to_owned(),
        role: None,
    })
}

/// Whether somebody may have this name.
///
/// # Errors
/// When it has a meaning of its own.
pub(crate) fn check(name: &str) -> Result<(), String> {
    let reserved = name == LOCAL || name.starts_with(SOCKET) || name.starts_with("group:");
    if reserved || name.chars().any(char::is_control) {
        let name: String = name
            .chars()
            .take(80)
            .flat_map(char::escape_default)
            .collect();
        return Err(format!("the name `{name}` is reserved: use another one"));
    }
    Ok(())
}

/// Whether two secrets are the same, told in a time that does not depend on where they differ.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    let differences = one
        .bytes()
        .zip(other.bytes())
        .fold(0, |sum, (a, b)| sum | (a ^ b));
    one.len() == other.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_meaning_are_nobodys() {
        let of = |name: &str| {
            of(&AuthorizationRequest {
                user: name.to_owned(),
                ..AuthorizationRequest::default()
            })
        };
        assert_eq!(of("").unwrap().name, "local");
        assert_eq!(of("alice").unwrap().name, "alice");
        for name in ["local", "socket:admin", "group:a", "a\nb"] {
            assert!(of(name).is_err(), "{name}");
        }
        let nameless = AuthorizationRequest {
            user_authn_method: "TLS".to_owned(),
            ..AuthorizationRequest::default()
        };
        assert!(super::of(&nameless).is_err());
        assert!(is_same("abc", "abc") && !is_same("abc", "abd") && !is_same("ab", "abc"));
    }
}
