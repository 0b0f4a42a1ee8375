use jsonwebtoken::EncodingKey;
use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::json;

use super::*;
use crate::auth::load_keys;
use crate::clock::ManualClock;

/// 2023-11-14T22:13:20Z.
const NOW_SECONDS: u64 = 1_700_000_000;

/// Someone who issues tokens, and whose public keys are configured.
struct Issuer {
    ed: KeyPair,
    ec: KeyPair,
    clock: ManualClock,
    rules: TokenRules,
}

impl Issuer {
    fn new() -> Self {
        Self {
            ed: KeyPair::generate_for(&PKCS_ED25519).unwrap(),
            ec: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            clock: ManualClock::at(UnixMillis(NOW_SECONDS * 1_000)),
            rules: TokenRules::default(),
        }
    }

    /// Trusts the Ed25519 key as `ed-1`.
    fn verifier(&self) -> Verifier {
        self.trusting(vec![self.ed_key("ed-1")])
    }

    fn ed_key(&self, id: &str) -> VerificationKey {
        let public = self.ed.public_key_raw().try_into().unwrap();
        VerificationKey::ed25519(Some(id.into()), public)
    }

    fn trusting(&self, keys: Vec<VerificationKey>) -> Verifier {
        Verifier::new(keys, self.rules.clone(), Arc::new(self.clock.clone()))
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", part(header), part(claims));
        let key = EncodingKey::from_ed_der(self.ed.serialized_der());
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::EdDSA);
        format!("{signed}.{}", signature.unwrap())
    }

    /// What becomes of a token with these claims, and a good header.
    fn verify(&self, claims: &Value) -> Result<Identity, AuthError> {
        self.verifier()
            .verify(&self.sign(&json!({"alg": "EdDSA"}), claims))
    }
}

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn claims() -> Value {
    json!({"sub": "alice", "exp": NOW_SECONDS + 60})
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn claims_without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[test]
fn a_good_token_says_who_and_for_how_long() {
    let identity = Issuer::new().verify(&claims()).unwrap();
    assert_eq!(identity.user.as_str(), "alice");
    assert_eq!(identity.expires_at, UnixMillis((NOW_SECONDS + 60) * 1_000));
}

#[test]
fn a_token_that_is_not_one_is_refused() {
    let issuer = Issuer::new();
    let good = issuer.sign(&json!({"alg": "EdDSA"}), &claims());
    let garbled = [
        String::new(),
        ".".into(),
        "..".into(),
        "a.b.c".into(),
        "🦀.🦀.🦀".into(),
        good.replace('.', ""),
        format!("x.{good}"),
        format!(" {good}"),
        format!("{}.{}.x", part(&json!("text")), part(&claims())),
        issuer.sign(&json!({"alg": 1}), &claims()),
        issuer.sign(&json!({"alg": "EdDSA", "kid": 1}), &claims()),
        issuer.sign(&json!({"typ": "JWT"}), &claims()),
        issuer.sign(&json!({"alg": "EdDSA"}), &json!("text")),
        issuer.sign(&json!({"alg": "EdDSA"}), &json!([1, 2])),
    ];
    for token in garbled {
        let refused = issuer.verifier().verify(&token);
        assert_eq!(refused, Err(AuthError::Malformed), "{token}");
    }
    let long = format!("{good}{}", "x".repeat(MAX_TOKEN_BYTES));
    assert_eq!(issuer.verifier().verify(&long), Err(AuthError::TooLong));
}

#[test]
fn a_token_that_is_signed_by_another_key_or_changed_is_refused() {
    let issuer = Issuer::new();
    let other = Issuer::new().sign(&json!({"alg": "EdDSA"}), &claims());
    let good = issuer.sign(&json!({"alg": "EdDSA"}), &claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let changed = part(&claims_with("sub", json!("mallory")));
    let tokens = [
        other,
        format!("{header}.{changed}.{signature}"),
        format!("{signed}."),
        format!("{signed}.!"),
        format!("{good}.x"),
        format!("{signed}.{}", &signature[..signature.len() - 2]),
    ];
    for token in tokens {
        let refused = issuer.verifier().verify(&token);
        assert_eq!(refused, Err(AuthError::BadSignature), "{token}");
    }
}

#[test]
fn the_token_does_not_choose_the_algorithm() {
    let issuer = Issuer::new();
    for algorithm in [
        "none", "None", "NONE", "", "eddsa", "HS256", "ES256", "RS256",
    ] {
        let token = issuer.sign(&json!({"alg": algorithm}), &claims());
        let refused = issuer.verifier().verify(&token);
        assert_eq!(refused, Err(AuthError::WrongAlgorithm), "{algorithm:?}");
    }
    let unsigned = format!("{}.{}.", part(&json!({"alg": "none"})), part(&claims()));
    assert_eq!(
        issuer.verifier().verify(&unsigned),
        Err(AuthError::WrongAlgorithm)
    );
}

#[test]
fn a_public_key_is_never_taken_for_a_shared_secret() {
    let issuer = Issuer::new();
    let signed = format!("{}.{}", part(&json!({"alg": "HS256"})), part(&claims()));
    let public = [
        issuer.ed.public_key_pem().into_bytes(),
        issuer.ed.public_key_raw().to_vec(),
    ];
    for secret in public {
        let key = EncodingKey::from_secret(&secret);
        let signature =
            jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
        let refused = issuer.verifier().verify(&format!("{signed}.{signature}"));
        assert_eq!(refused, Err(AuthError::WrongAlgorithm));
    }
}

#[test]
fn kid_only_selects_among_the_configured_keys() {
    let issuer = Issuer::new();
    let verify = |kid: &str| {
        let token = issuer.sign(&json!({"alg": "EdDSA", "kid": kid}), &claims());
        issuer.verifier().verify(&token)
    };
    assert!(verify("ed-1").is_ok());
    assert_eq!(verify("ed-2"), Err(AuthError::UnknownKey));
    assert_eq!(verify("../../dev/null"), Err(AuthError::UnknownKey));

    let other = Issuer::new().ed_key("ed-2");
    let token = issuer.sign(&json!({"alg": "EdDSA", "kid": "ed-2"}), &claims());
    let refused = issuer.trusting(vec![other]).verify(&token);
    assert_eq!(refused, Err(AuthError::BadSignature));
}

#[test]
fn without_kid_each_key_is_tried_and_a_key_without_id_fits_any_kid() {
    let issuer = Issuer::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys.pem");
    let pem = |key: &KeyPair| key.public_key_pem();
    let pems = [pem(&issuer.ec), pem(&Issuer::new().ed), pem(&issuer.ed)];
    std::fs::write(&file, pems.concat()).unwrap();
    let verifier = issuer.trusting(load_keys(&[file]).unwrap());
    for header in [json!({"alg": "EdDSA"}), json!({"alg": "EdDSA", "kid": "x"})] {
        assert!(verifier.verify(&issuer.sign(&header, &claims())).is_ok());
    }
}

#[test]
fn a_verifier_without_keys_refuses_every_token() {
    let issuer = Issuer::new();
    let token = issuer.sign(&json!({"alg": "EdDSA"}), &claims());
    let refused = issuer.trusting(Vec::new()).verify(&token);
    assert_eq!(refused, Err(AuthError::UnknownKey));
}

#[test]
fn a_critical_extension_is_refused_and_keys_in_the_token_are_ignored() {
    let issuer = Issuer::new();
    let header = json!({"alg": "EdDSA", "crit": ["b64"], "b64": false});
    let refused = issuer.verifier().verify(&issuer.sign(&header, &claims()));
    assert_eq!(refused, Err(AuthError::UnsupportedExtension));

    let mallory = Issuer::new();
    let x = URL_SAFE_NO_PAD.encode(mallory.ed.public_key_raw());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
    let header = json!({"alg": "EdDSA", "jwk": jwk, "jku": "https://mallory.example"});
    let refused = issuer.verifier().verify(&mallory.sign(&header, &claims()));
    assert_eq!(refused, Err(AuthError::BadSignature));
}

#[test]
fn every_claim_that_is_needed_must_be_there() {
    for name in ["sub", "exp"] {
        assert_eq!(
            Issuer::new().verify(&claims_without(name)),
            Err(AuthError::MissingClaim(name))
        );
    }
}

#[test]
fn a_claim_of_the_wrong_type_is_refused() {
    let issuer = Issuer::new();
    let later = (NOW_SECONDS + 60).to_string();
    let cases = [
        ("exp", json!(later)),
        ("exp", json!(null)),
        ("exp", json!(true)),
        ("exp", json!([NOW_SECONDS + 60])),
        ("nbf", json!("0")),
        ("nbf", json!({})),
        ("sub", json!(7)),
        ("sub", json!(null)),
        ("sub", json!(["alice"])),
        ("iss", json!(7)),
        ("aud", json!(7)),
        ("aud", json!(["duologue", 7])),
    ];
    for (name, value) in cases {
        assert_eq!(
            issuer.verify(&claims_with(name, value.clone())),
            Err(AuthError::WrongClaimType(name)),
            "{value}"
        );
    }
}

#[test]
fn a_subject_that_is_no_user_id_is_refused() {
    for subject in ["", "two words", "a/b", "ä", "alice\n", &"x".repeat(65)] {
        let refused = Issuer::new().verify(&claims_with("sub", json!(subject)));
        assert!(
            matches!(refused, Err(AuthError::BadSubject(_))),
            "{subject:?}: {refused:?}"
        );
    }
}

#[test]
fn a_token_ends_exactly_at_exp_by_our_clock() {
    let issuer = Issuer::new();
    let end = UnixMillis((NOW_SECONDS + 60) * 1_000);
    issuer.clock.set(UnixMillis(end.0 - 1));
    assert!(issuer.verify(&claims()).is_ok());
    issuer.clock.set(end);
    assert_eq!(issuer.verify(&claims()), Err(AuthError::Expired));
}

#[test]
fn a_token_begins_at_nbf_with_a_small_leeway() {
    let issuer = Issuer::new();
    let leeway = NOT_BEFORE_LEEWAY.as_secs();
    let begins = |seconds: u64| issuer.verify(&claims_with("nbf", json!(seconds)));
    assert!(begins(NOW_SECONDS + leeway).is_ok());
    assert_eq!(
        begins(NOW_SECONDS + leeway + 1),
        Err(AuthError::NotYetValid)
    );
}

#[test]
fn odd_numbers_are_times_too() {
    let issuer = Issuer::new();
    let ends = |number: Value| {
        let verified = issuer.verify(&claims_with("exp", number));
        verified.map(|identity| identity.expires_at)
    };
    let now = NOW_SECONDS * 1_000;
    assert_eq!(ends(json!(1_700_000_000.5)), Ok(UnixMillis(now + 500)));
    assert_eq!(ends(json!(1.7e9 + 60.0)), Ok(UnixMillis(now + 60_000)));
    for huge in [json!(u64::MAX), json!(1e19), json!(f64::MAX)] {
        assert_eq!(ends(huge), Ok(UnixMillis(u64::MAX)));
    }
    for past in [
        json!(0),
        json!(-1),
        json!(i64::MIN),
        json!(f64::MIN),
        json!(-0.5),
    ] {
        assert_eq!(ends(past), Err(AuthError::Expired));
    }
}

#[test]
fn issuer_and_audience_are_checked_when_they_are_configured() {
    let mut issuer = Issuer::new();
    let said = |issuer: &Issuer, iss: Value, aud: Value| {
        let mut claims = claims_with("iss", iss);
        claims["aud"] = aud;
        issuer.verify(&claims).map(|_| ())
    };
    assert_eq!(said(&issuer, json!("anyone"), json!("anything")), Ok(()));

    issuer.rules = TokenRules {
        issuers: vec!["https://id.example".into()],
        audiences: vec!["duologue".into(), "chat".into()],
    };
    let good = json!("https://id.example");
    assert_eq!(said(&issuer, good.clone(), json!("duologue")), Ok(()));
    assert_eq!(said(&issuer, good.clone(), json!(["x", "chat"])), Ok(()));
    assert_eq!(
        said(&issuer, json!("https://id.example/"), json!("duologue")),
        Err(AuthError::WrongIssuer)
    );
    for audience in [json!("duo"), json!([]), json!(["x"])] {
        assert_eq!(
            said(&issuer, good.clone(), audience),
            Err(AuthError::WrongAudience)
        );
    }
    assert_eq!(issuer.verify(&claims()), Err(AuthError::WrongIssuer));
    let only_issuer = claims_with("iss", good);
    assert_eq!(issuer.verify(&only_issuer), Err(AuthError::WrongAudience));
}

#[test]
fn no_refusal_quotes_the_token() {
    let issuer = Issuer::new();
    let header = json!({"alg": "EdDSA", "kid": "secret"});
    let tokens = [
        issuer.sign(&header, &claims()),
        issuer.sign(&json!({"alg": "secret"}), &claims()),
        issuer.sign(
            &json!({"alg": "EdDSA"}),
            &claims_with("sub", json!("secret!")),
        ),
        "secret.secret.secret".into(),
    ];
    for token in tokens {
        let refusal = issuer.verifier().verify(&token).unwrap_err();
        let said = format!("{refusal} {refusal:?}");
        assert!(!said.contains("secret"), "{said}");
    }
}

proptest! {
    #[test]
    fn no_input_panics_or_is_believed(token in "\\PC*") {
        let key = VerificationKey::ed25519(None, &ED_BASE_POINT);
        let clock = Arc::new(ManualClock::default());
        let verifier = Verifier::new(vec![key], TokenRules::default(), clock);
        prop_assert!(verifier.verify(&token).is_err());
    }

    #[test]
    fn no_claims_panic(name in "sub|exp|nbf|iss|aud", number in any::<f64>(), text in "\\PC*") {
        let issuer = Issuer::new();
        for value in [json!(number), json!(text), json!([text]), json!({"a": number})] {
            let _ = issuer.verify(&claims_with(&name, value));
        }
    }
}

/// Some point of the curve, whose secret nobody needs.
const ED_BASE_POINT: [u8; 32] = {
    let mut point = [0x66; 32];
    point[0] = 0x58;
    point
};
