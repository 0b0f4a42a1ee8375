//! Verifying a token: key, signature, claims, times, in this order.
//!
//! The library checks signatures. What header and claims mean is judged here,
//! with strict types and by our clock.

use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use duologue_proto::ids::{UnixMillis, UserId};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::keys::VerificationKey;
use super::{AuthError, Identity};
use crate::clock::Clock;

/// Longest token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// How far `nbf` may be ahead of our clock, since the issuer's clock may be.
/// There is no such grace for `exp`.
pub const NOT_BEFORE_LEEWAY: Duration = Duration::from_secs(5);

type Claims = Map<String, Value>;

/// What a token must say besides its signature.
#[derive(Debug, Clone, Default)]
pub struct TokenRules {
    /// Accepted values of `iss`; empty: not checked.
    pub issuers: Vec<String>,
    /// Accepted values of `aud`, of which a token must name one; empty: not
    /// checked.
    pub audiences: Vec<String>,
}

/// Turns tokens into identities.
pub struct Verifier {
    keys: Vec<VerificationKey>,
    rules: TokenRules,
    clock: Arc<dyn Clock>,
}

impl Verifier {
    /// A verifier that trusts `keys`. Without keys it refuses every token.
    pub fn new(keys: Vec<VerificationKey>, rules: TokenRules, clock: Arc<dyn Clock>) -> Self {
        Self { keys, rules, clock }
    }

    /// Who the token speaks for.
    pub fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::TooLong);
        }
        let claims = self.signed_claims(token)?;
        self.check_parties(&claims)?;
        let expires_at = self.check_times(&claims)?;
        let subject = text(&claims, "sub")?.ok_or(AuthError::MissingClaim("sub"))?;
        Ok(Identity {
            user: UserId::parse(subject).map_err(AuthError::BadSubject)?,
            expires_at,
        })
    }

    /// The claims, once a key that the header may select has signed them. The
    /// header never widens the choice: it can only narrow it down.
    fn signed_claims(&self, token: &str) -> Result<Claims, AuthError> {
        let (message, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(AuthError::Malformed)?;
        let header = Header::parse(&json_object(header)?)?;
        let kid = header.kid.as_deref();
        let mut refusal = AuthError::UnknownKey;
        for key in self.keys.iter().filter(|key| key.may_be(kid)) {
            if Some(key.algorithm()) == header.algorithm {
                if key.has_signed(message, signature) {
                    return json_object(claims);
                }
                refusal = AuthError::BadSignature;
            } else if refusal == AuthError::UnknownKey {
                refusal = AuthError::WrongAlgorithm;
            }
        }
        Err(refusal)
    }

    fn check_parties(&self, claims: &Claims) -> Result<(), AuthError> {
        let issuer = text(claims, "iss")?;
        let named = |one: &str| self.rules.issuers.iter().any(|known| known == one);
        if !self.rules.issuers.is_empty() && !issuer.is_some_and(named) {
            return Err(AuthError::WrongIssuer);
        }
        let audiences = texts(claims, "aud")?;
        let named = |one: &&str| self.rules.audiences.iter().any(|known| known == one);
        if !self.rules.audiences.is_empty() && !audiences.iter().any(named) {
            return Err(AuthError::WrongAudience);
        }
        Ok(())
    }

    fn check_times(&self, claims: &Claims) -> Result<UnixMillis, AuthError> {
        let expires_at = time(claims, "exp")?.ok_or(AuthError::MissingClaim("exp"))?;
        let not_before = time(claims, "nbf")?.unwrap_or_default();
        let now = self.clock.now();
        if now >= expires_at {
            return Err(AuthError::Expired);
        }
        if now.plus(NOT_BEFORE_LEEWAY) < not_before {
            return Err(AuthError::NotYetValid);
        }
        Ok(expires_at)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("keys", &self.keys)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// What the token's header asks for.
struct Header {
    /// None if it is not one that any key may have, `none` among them.
    algorithm: Option<Algorithm>,
    kid: Option<String>,
}

impl Header {
    fn parse(header: &Claims) -> Result<Self, AuthError> {
        // Whoever does not understand a critical extension must refuse.
        if header.contains_key("crit") {
            return Err(AuthError::UnsupportedExtension);
        }
        let member = |name| text(header, name).map_err(|_| AuthError::Malformed);
        let algorithm = member("alg")?.ok_or(AuthError::Malformed)?;
        Ok(Self {
            algorithm: Algorithm::from_str(algorithm).ok(),
            kid: member("kid")?.map(str::to_owned),
        })
    }
}

fn json_object(encoded: &str) -> Result<Claims, AuthError> {
    let json = URL_SAFE_NO_PAD.decode(encoded);
    let json = json.map_err(|_| AuthError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| AuthError::Malformed)
}

fn text<'a>(claims: &'a Claims, name: &'static str) -> Result<Option<&'a str>, AuthError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(AuthError::WrongClaimType(name)),
    }
}

/// A string, or an array of strings.
fn texts<'a>(claims: &'a Claims, name: &'static str) -> Result<Vec<&'a str>, AuthError> {
    let wrong = AuthError::WrongClaimType(name);
    match claims.get(name) {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(values)) => values
            .iter()
            .map(|value| value.as_str().ok_or(wrong))
            .collect(),
        Some(_) => Err(wrong),
    }
}

/// Seconds since 1970 as a JSON number, which may have a fraction. Before 1970
/// is 1970, and further than we can count is as far as we can.
fn time(claims: &Claims, name: &'static str) -> Result<Option<UnixMillis>, AuthError> {
    let number = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(AuthError::WrongClaimType(name)),
    };
    if let Some(seconds) = number.as_u64() {
        return Ok(Some(UnixMillis(seconds.saturating_mul(1_000))));
    }
    let seconds = number.as_f64().ok_or(AuthError::WrongClaimType(name))?;
    let since = match Duration::try_from_secs_f64(seconds) {
        Ok(since) => since,
        Err(_) if seconds > 0.0 => Duration::MAX,
        Err(_) => Duration::ZERO,
    };
    Ok(Some(UnixMillis::default().plus(since)))
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
