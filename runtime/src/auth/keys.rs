//! Keys that verify tokens, read from PEM and JWKS files.
//!
//! Public keys only: a symmetric or private key in such a file is an accident,
//! and the file is refused.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::verify;
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use serde::Deserialize;
use serde_json::Value;

use crate::files::read_at_most;

/// Keys in all files together: a token without `kid` is tried against each.
pub const MAX_KEYS: usize = 32;
/// Longest key file, in bytes.
pub const MAX_KEY_FILE_BYTES: u64 = 256 * 1024;

/// A key that may have signed a token, with the one algorithm it is used with.
#[derive(Clone)]
pub struct VerificationKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct KeyError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: KeyProblem,
}

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyProblem {
    /// It cannot be read, or is longer than [`MAX_KEY_FILE_BYTES`].
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// With it there are more than [`MAX_KEYS`].
    #[error("there are more than {MAX_KEYS} keys")]
    TooMany,
    /// Neither of the two formats.
    #[error("is neither PEM (`-----BEGIN PUBLIC KEY-----`) nor a JSON Web Key Set")]
    UnknownFormat,
    /// A PEM file holds something else than public keys.
    #[error("holds a private key or a certificate; give `-----BEGIN PUBLIC KEY-----` only")]
    NotPublic,
    /// A JWKS holds a symmetric key.
    #[error("holds a symmetric key (`kty: oct`), with which every reader could sign")]
    Symmetric,
    /// A JWKS holds the private part of a key.
    #[error("holds a private key; give the public part only")]
    Private,
    /// A key is damaged, too weak, or of another kind.
    #[error("holds a key that is not Ed25519, P-256 or RSA of 2048 to 8192 bits")]
    UnsupportedKey,
    /// No key for verifying tokens is in it.
    #[error("holds no key for EdDSA, ES256 or RS256")]
    Empty,
}

/// Reads the keys of all files.
pub fn load_keys(files: &[PathBuf]) -> Result<Vec<VerificationKey>, KeyError> {
    let mut keys = Vec::new();
    for file in files {
        let refuse = |problem| KeyError {
            file: file.clone(),
            problem,
        };
        keys.extend(read(file).map_err(refuse)?);
        if keys.len() > MAX_KEYS {
            return Err(refuse(KeyProblem::TooMany));
        }
    }
    Ok(keys)
}

impl VerificationKey {
    /// An Ed25519 key by its 32 bytes. A token with a `kid` must name `id`.
    pub(super) fn ed25519(id: Option<String>, public: &[u8; 32]) -> Self {
        Self::new(id, Algorithm::EdDSA, DecodingKey::from_ed_der(public))
    }

    /// The algorithm, derived from the kind of key.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether a token with this `kid` may be signed by this key. A key without
    /// an id, as every PEM key is, fits any.
    pub(super) fn may_be(&self, kid: Option<&str>) -> bool {
        match (&self.id, kid) {
            (Some(id), Some(kid)) => id == kid,
            (None, _) | (_, None) => true,
        }
    }

    /// Whether this key has made `signature`, in base64, for `message`.
    pub(super) fn has_signed(&self, message: &str, signature: &str) -> bool {
        // An error says that the signature is not base64.
        verify(signature, message.as_bytes(), &self.key, self.algorithm).unwrap_or(false)
    }

    fn new(id: Option<String>, algorithm: Algorithm, key: DecodingKey) -> Self {
        Self { id, algorithm, key }
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationKey")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

fn read(file: &Path) -> Result<Vec<VerificationKey>, KeyProblem> {
    parse(&read_at_most(file, MAX_KEY_FILE_BYTES)?)
}

fn parse(bytes: &[u8]) -> Result<Vec<VerificationKey>, KeyProblem> {
    let keys = if bytes.trim_ascii_start().starts_with(b"{") {
        parse_jwks(bytes)?
    } else {
        parse_pem(bytes)?
    };
    if keys.is_empty() {
        return Err(KeyProblem::Empty);
    }
    Ok(keys)
}

fn parse_pem(bytes: &[u8]) -> Result<Vec<VerificationKey>, KeyProblem> {
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        let (kind, der) = section.map_err(|_| KeyProblem::UnknownFormat)?;
        if kind != SectionKind::PublicKey {
            return Err(KeyProblem::NotPublic);
        }
        keys.push(parse_spki(&der)?);
    }
    if keys.is_empty() {
        return Err(KeyProblem::UnknownFormat);
    }
    Ok(keys)
}

/// A `SubjectPublicKeyInfo`, which names its own kind.
fn parse_spki(der: &[u8]) -> Result<VerificationKey, KeyProblem> {
    let is = |algorithm| ParsedPublicKey::new(algorithm, der).is_ok();
    let (algorithm, key) = if is(&ED25519) {
        (Algorithm::EdDSA, DecodingKey::from_ed_der(der))
    } else if is(&ECDSA_P256_SHA256_FIXED) {
        (Algorithm::ES256, DecodingKey::from_ec_der(der))
    } else if is_strong_rsa(der) {
        (Algorithm::RS256, DecodingKey::from_rsa_der(der))
    } else {
        return Err(KeyProblem::UnsupportedKey);
    };
    Ok(VerificationKey::new(None, algorithm, key))
}

/// 2048 to 8192 bits: the bounds that verifying has, found out at start.
fn is_strong_rsa(der: &[u8]) -> bool {
    aws_lc_rs::rsa::PublicKey::from_der(der)
        .is_ok_and(|key| (256..=1024).contains(&key.modulus_len()))
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// The members of a JSON Web Key that matter; coordinates in base64.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

fn parse_jwks(bytes: &[u8]) -> Result<Vec<VerificationKey>, KeyProblem> {
    let set: KeySet = serde_json::from_slice(bytes).map_err(|_| KeyProblem::UnknownFormat)?;
    let mut keys = Vec::new();
    for value in set.keys {
        // `d` is private in every kind of key that has it; `k` is the secret.
        if value.get("d").is_some() {
            return Err(KeyProblem::Private);
        }
        let jwk: Jwk = serde_json::from_value(value).map_err(|_| KeyProblem::UnknownFormat)?;
        if jwk.kty == "oct" {
            return Err(KeyProblem::Symmetric);
        }
        keys.extend(parse_jwk(jwk)?);
    }
    Ok(keys)
}

/// None for a key that is meant for something else: issuers publish those in
/// the same set.
fn parse_jwk(jwk: Jwk) -> Result<Option<VerificationKey>, KeyProblem> {
    if jwk.usage.is_some_and(|usage| usage != "sig") {
        return Ok(None);
    }
    let meant_for = |algorithm: &str| jwk.alg.as_deref().is_none_or(|alg| alg == algorithm);
    match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("OKP", Some("Ed25519")) if meant_for("EdDSA") || meant_for("Ed25519") => {
            let x = coordinate::<32>(jwk.x)?;
            Ok(Some(VerificationKey::ed25519(jwk.kid, &x)))
        }
        ("EC", Some("P-256")) if meant_for("ES256") => {
            let (x, y) = (coordinate::<32>(jwk.x)?, coordinate::<32>(jwk.y)?);
            // 4 says that both coordinates follow.
            let point = [&[4][..], &x, &y].concat();
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point)
                .map_err(|_| KeyProblem::UnsupportedKey)?;
            let key = DecodingKey::from_ec_der(&point);
            Ok(Some(VerificationKey::new(jwk.kid, Algorithm::ES256, key)))
        }
        ("RSA", _) if meant_for("RS256") => {
            let (n, e) = (number(jwk.n)?, number(jwk.e)?);
            let spki = PublicKeyComponents { n: &n, e: &e }
                .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
                .map_err(|_| KeyProblem::UnsupportedKey)?;
            if !is_strong_rsa(spki.as_ref()) {
                return Err(KeyProblem::UnsupportedKey);
            }
            let key = DecodingKey::from_rsa_der(spki.as_ref());
            Ok(Some(VerificationKey::new(jwk.kid, Algorithm::RS256, key)))
        }
        _ => Ok(None),
    }
}

fn number(encoded: Option<String>) -> Result<Vec<u8>, KeyProblem> {
    let encoded = encoded.ok_or(KeyProblem::UnsupportedKey)?;
    URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| KeyProblem::UnsupportedKey)
}

fn coordinate<const N: usize>(encoded: Option<String>) -> Result<[u8; N], KeyProblem> {
    let bytes = number(encoded)?;
    bytes.try_into().map_err(|_| KeyProblem::UnsupportedKey)
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
