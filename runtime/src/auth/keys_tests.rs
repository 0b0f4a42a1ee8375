use std::path::PathBuf;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::RsaKeyPair;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::sign;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use serde_json::json;

use super::*;

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The signature of "message" by the key in this PKCS #8 document.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library knows many more"
)]
fn signature(algorithm: Algorithm, pkcs8: &[u8]) -> String {
    let key = match algorithm {
        Algorithm::EdDSA => EncodingKey::from_ed_der(pkcs8),
        Algorithm::ES256 => EncodingKey::from_ec_der(pkcs8),
        Algorithm::RS256 => {
            EncodingKey::from_rsa_pem(pem("PRIVATE KEY", pkcs8).as_bytes()).unwrap()
        }
        _ => panic!("{algorithm:?} is not used"),
    };
    sign(b"message", &key, algorithm).unwrap()
}

fn assert_verifies(file: &str, algorithm: Algorithm, pkcs8: &[u8]) {
    let keys = parse(file.as_bytes()).unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].algorithm(), algorithm);
    let signature = signature(algorithm, pkcs8);
    assert!(keys[0].has_signed("message", &signature));
    assert!(!keys[0].has_signed("massage", &signature));
}

fn rsa(size: KeySize) -> RsaKeyPair {
    RsaKeyPair::generate(size).unwrap()
}

fn rsa_pkcs8(pair: &RsaKeyPair) -> Vec<u8> {
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
    der.as_ref().to_vec()
}

fn rsa_spki(pair: &RsaKeyPair) -> Vec<u8> {
    use aws_lc_rs::signature::KeyPair as _;
    let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    der.as_ref().to_vec()
}

/// A P-256 key as a JSON Web Key.
fn ec_jwk(pair: &KeyPair) -> Value {
    let (x, y) = pair.public_key_raw()[1..].split_at(32);
    json!({"kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y)})
}

fn ed_jwk(pair: &KeyPair) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": base64(pair.public_key_raw())})
}

fn key_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

#[test]
fn pem_gives_each_kind_of_key_its_one_algorithm() {
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    assert_verifies(&ed.public_key_pem(), Algorithm::EdDSA, ed.serialized_der());
    let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    assert_verifies(&ec.public_key_pem(), Algorithm::ES256, ec.serialized_der());
    let rsa = rsa(KeySize::Rsa2048);
    let file = pem("PUBLIC KEY", &rsa_spki(&rsa));
    assert_verifies(&file, Algorithm::RS256, &rsa_pkcs8(&rsa));
}

#[test]
fn a_key_set_gives_each_kind_of_key_its_one_algorithm() {
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let file = key_set(&[ed_jwk(&ed)]);
    assert_verifies(&file, Algorithm::EdDSA, ed.serialized_der());
    let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let file = key_set(&[ec_jwk(&ec)]);
    assert_verifies(&file, Algorithm::ES256, ec.serialized_der());
    let rsa = rsa(KeySize::Rsa2048);
    let (n, e) = {
        use aws_lc_rs::signature::{KeyPair as _, RsaPublicKeyComponents};
        let parts = RsaPublicKeyComponents::<Vec<u8>>::from(rsa.public_key());
        (base64(&parts.n), base64(&parts.e))
    };
    let jwk = json!({"kty": "RSA", "n": n, "e": e, "use": "sig", "alg": "RS256"});
    assert_verifies(&key_set(&[jwk]), Algorithm::RS256, &rsa_pkcs8(&rsa));
}

#[test]
fn keys_that_are_meant_for_something_else_are_left_out_of_a_set() {
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let with = |name: &str, value: &str| {
        let mut jwk = ed_jwk(&ed);
        jwk[name] = value.into();
        jwk
    };
    let other_kind = json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"});
    let others = [with("use", "enc"), with("alg", "ES512"), other_kind];
    let all = [&others[..], &[with("kid", "right")]].concat();
    let keys = parse(key_set(&all).as_bytes()).unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].id.as_deref(), Some("right"));
    assert!(matches!(
        parse(key_set(&others).as_bytes()),
        Err(KeyProblem::Empty)
    ));
}

#[test]
fn a_symmetric_or_private_key_in_a_set_is_refused() {
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let oct = json!({"kty": "oct", "k": base64(b"secret")});
    assert!(matches!(
        parse(key_set(&[ed_jwk(&ed), oct]).as_bytes()),
        Err(KeyProblem::Symmetric)
    ));
    let mut private = ed_jwk(&ed);
    private["d"] = base64(&[1; 32]).into();
    assert!(matches!(
        parse(key_set(&[private]).as_bytes()),
        Err(KeyProblem::Private)
    ));
}

#[test]
fn a_private_key_or_certificate_in_pem_is_refused() {
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    assert!(matches!(
        parse(ed.serialize_pem().as_bytes()),
        Err(KeyProblem::NotPublic)
    ));
    let certificate = rcgen::CertificateParams::new(vec!["localhost".into()])
        .unwrap()
        .self_signed(&ed)
        .unwrap();
    assert!(matches!(
        parse(certificate.pem().as_bytes()),
        Err(KeyProblem::NotPublic)
    ));
}

#[test]
fn weak_damaged_and_other_keys_are_refused_when_they_are_read() {
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut off_curve = ec_jwk(&ec);
    off_curve["y"] = off_curve["x"].clone();
    let mut short = ec_jwk(&ec);
    short["x"] = base64(&[1; 31]).into();
    let weak = json!({"kty": "RSA", "n": base64(&[0xff; 128]), "e": "AQAB"});
    let no_modulus = json!({"kty": "RSA", "e": "AQAB"});
    let mut files = vec![p384.public_key_pem(), pem("PUBLIC KEY", b"garbage")];
    for jwk in [off_curve, short, weak, no_modulus] {
        files.push(key_set(&[jwk]));
    }
    for file in files {
        let refused = parse(file.as_bytes());
        assert!(
            matches!(refused, Err(KeyProblem::UnsupportedKey)),
            "{file}: {refused:?}"
        );
    }
}

#[test]
fn a_file_of_no_known_format_is_refused() {
    for file in [
        "",
        "hello",
        "{",
        "{}",
        r#"{"keys": 1}"#,
        r#"{"keys": [1]}"#,
        r#"{"keys": [{"kty": 1}]}"#,
        "-----BEGIN PUBLIC KEY-----\nAAAA\n",
        "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n",
    ] {
        assert!(
            matches!(parse(file.as_bytes()), Err(KeyProblem::UnknownFormat)),
            "{file}"
        );
    }
    assert!(matches!(parse(br#"{"keys": []}"#), Err(KeyProblem::Empty)));
}

#[test]
fn keys_of_several_files_are_together_and_a_refusal_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let write = |name: &str, content: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, content).unwrap();
        file
    };
    let one = write("one.pem", &ed.public_key_pem().repeat(2));
    let other = write("other.json", &key_set(&[ed_jwk(&ed)]));
    assert_eq!(load_keys(&[one.clone(), other]).unwrap().len(), 3);

    let many = write("many.pem", &ed.public_key_pem().repeat(MAX_KEYS));
    let error = load_keys(&[many.clone(), one]).unwrap_err();
    assert!(matches!(error.problem, KeyProblem::TooMany));
    assert_eq!(load_keys(&[many]).unwrap().len(), MAX_KEYS);

    let long = " ".repeat(usize::try_from(MAX_KEY_FILE_BYTES).unwrap() + 1);
    let error = load_keys(&[write("long.pem", &long)]).unwrap_err();
    assert!(matches!(error.problem, KeyProblem::Unreadable(_)));
    assert!(error.to_string().ends_with("longer than 262144 bytes"));

    let error = load_keys(&[PathBuf::from("missing.pem")]).unwrap_err();
    assert!(error.to_string().starts_with("missing.pem: cannot be read"));
}
