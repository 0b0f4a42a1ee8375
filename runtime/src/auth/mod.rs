//! Who is calling: a verified token, and nothing else.
//!
//! The algorithm and the keys come from configuration, never from the token.
//! No error here, and no `Debug`, holds a token or a key.

mod dev_key;
mod keys;
mod token;

use duologue_proto::ids::{InvalidId, UnixMillis, UserId};
use http::HeaderMap;
use http::header::AUTHORIZATION;

pub use dev_key::{DEV_KEY_FILE, DevKey, DevKeyError, MAX_DEV_KEY_FILE_BYTES};
pub use keys::{KeyError, KeyProblem, MAX_KEY_FILE_BYTES, MAX_KEYS, VerificationKey, load_keys};
pub use token::{MAX_TOKEN_BYTES, NOT_BEFORE_LEEWAY, TokenRules, Verifier};

/// Who a verified token speaks for, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// From this time on the token is worth nothing.
    pub expires_at: UnixMillis,
}

/// Why a call is not authenticated. The text is fit for the caller: it says
/// what is wrong and quotes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No `authorization` header.
    #[error("a token is needed: send `authorization: Bearer <token>`")]
    Missing,
    /// More than one `authorization` header.
    #[error("`authorization` must be sent once")]
    Repeated,
    /// Another scheme than Bearer, or nothing behind it.
    #[error("`authorization` must be `Bearer <token>`")]
    NotBearer,
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("the token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// Not a JSON Web Token in compact form.
    #[error("the token is not a JSON Web Token in compact form")]
    Malformed,
    /// The header demands an extension (`crit`), and none is understood.
    #[error("the token's `crit` names an extension that is not supported")]
    UnsupportedExtension,
    /// No configured key has the token's `kid`.
    #[error("the token's `kid` is not the id of a configured key")]
    UnknownKey,
    /// The token's `alg` is not that of the configured key.
    #[error("the token's `alg` is not that of a configured key")]
    WrongAlgorithm,
    /// The signature is not that of a configured key.
    #[error("the token is not signed by a configured key")]
    BadSignature,
    /// A claim that every token must carry is missing.
    #[error("the token lacks the claim `{0}`")]
    MissingClaim(&'static str),
    /// A claim has the wrong JSON type.
    #[error("the token's claim `{0}` has the wrong type")]
    WrongClaimType(&'static str),
    /// The subject is not a user id.
    #[error("the token's claim `sub` {0}")]
    BadSubject(InvalidId),
    /// The time is at or past `exp`.
    #[error("the token has expired: get a new one")]
    Expired,
    /// The time is before `nbf`.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The issuer is not one that is configured.
    #[error("the token's `iss` is not the configured issuer")]
    WrongIssuer,
    /// The audience is not one that is configured.
    #[error("the token's `aud` is not the configured audience")]
    WrongAudience,
}

/// The token in `authorization: Bearer <token>`.
pub fn bearer(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Repeated);
    }
    let value = value.to_str().map_err(|_| AuthError::NotBearer)?;
    let (scheme, token) = value.split_once(' ').ok_or(AuthError::NotBearer)?;
    let token = token.trim_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(AuthError::NotBearer);
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&'static [u8]]) -> HeaderMap {
        let values = values.iter().map(|value| {
            let value = HeaderValue::from_bytes(value).unwrap();
            (AUTHORIZATION, value)
        });
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        for value in ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c "] {
            assert_eq!(bearer(&headers(&[value.as_bytes()])), Ok("a.b.c"));
        }
    }

    #[test]
    fn a_call_without_one_bearer_token_is_refused() {
        assert_eq!(bearer(&headers(&[])), Err(AuthError::Missing));
        for value in ["", "Bearer", "Bearer ", "Basic abc", "a.b.c"] {
            assert_eq!(
                bearer(&headers(&[value.as_bytes()])),
                Err(AuthError::NotBearer),
                "{value:?}"
            );
        }
        assert_eq!(
            bearer(&headers(&[b"Bearer \xff"])),
            Err(AuthError::NotBearer)
        );
    }

    #[test]
    fn two_authorization_headers_are_refused_even_if_they_are_equal() {
        assert_eq!(
            bearer(&headers(&[b"Bearer a", b"Bearer a"])),
            Err(AuthError::Repeated)
        );
    }
}
