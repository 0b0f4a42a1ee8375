//! The development key: made once in the data directory, so that the system
//! runs before anyone has configured keys. Whoever can read it can be anyone;
//! it is therefore accepted only while listening on loopback.
//!
//! It touches no other file of the data directory, and waits for no lock.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use duologue_proto::ids::UserId;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use super::keys::VerificationKey;
use crate::clock::{Clock, Random, RandomExt as _, SystemRandom};

/// The name of the key file in the data directory.
pub const DEV_KEY_FILE: &str = "development-key.pem";

const KEY_ID: &str = "development";
/// A key file of ours has 119 bytes; a longer one is not ours.
pub const MAX_DEV_KEY_FILE_BYTES: u64 = 4 * 1024;

/// An Ed25519 key that signs tokens for any user.
pub struct DevKey {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

/// A development key that cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum DevKeyError {
    /// The file system refused.
    #[error("the development key {} cannot be read or made: {source}", file.display())]
    Io {
        /// The key file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read the file.
    #[error(
        "the development key {} can be read by others (mode {mode:03o}); \
         if nobody has, `chmod 600` it, else remove it and a new one is made",
        file.display()
    )]
    Exposed {
        /// The key file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds something else.
    #[error("the development key {} is not an Ed25519 key; remove it and a new one is made", file.display())]
    Invalid {
        /// The key file.
        file: PathBuf,
    },
}

impl DevKey {
    /// The key in `dir`; it is made if it is not there, and so is the directory.
    /// Of several processes that make it at once, all get the same.
    pub fn load_or_create(dir: &Path) -> Result<Self, DevKeyError> {
        let file = dir.join(DEV_KEY_FILE);
        if let Some(key) = load(&file)? {
            return Ok(key);
        }
        let refuse = |source| DevKeyError::Io {
            file: file.clone(),
            source,
        };
        create(dir, &file).map_err(refuse)?;
        load(&file)?.ok_or_else(|| refuse(ErrorKind::NotFound.into()))
    }

    /// A key that lives as long as the process.
    #[expect(clippy::missing_panics_doc, reason = "any 32 bytes are a seed")]
    pub fn ephemeral(random: &dyn Random) -> Self {
        let mut seed = [0; 32];
        random.fill(&mut seed);
        Ed25519KeyPair::from_seed_unchecked(&seed)
            .ok()
            .and_then(Self::new)
            .expect("any 32 bytes are the seed of an Ed25519 key")
    }

    /// A token for `user` that is good from now on for `lifetime`, in whole
    /// seconds.
    pub fn sign(&self, user: &UserId, lifetime: Duration, clock: &dyn Clock) -> String {
        let issued = clock.now().0 / 1_000;
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": KEY_ID});
        let claims = json!({
            "sub": user.as_str(),
            "iat": issued,
            "exp": issued.saturating_add(lifetime.as_secs()),
        });
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The public half, which verifies what this key signs.
    pub fn verifier_key(&self) -> VerificationKey {
        VerificationKey::ed25519(Some(KEY_ID.to_owned()), &self.public)
    }

    /// The public half as JWKS, for processes that are told whose tokens to accept.
    pub fn public_jwks(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.public);
        let key = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
                         "kid": KEY_ID, "x": x});
        json!({"keys": [key]}).to_string()
    }

    fn new(pair: Ed25519KeyPair) -> Option<Self> {
        let public = pair.public_key().as_ref().try_into().ok()?;
        Some(Self { pair, public })
    }
}

impl fmt::Debug for DevKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevKey").finish_non_exhaustive()
    }
}

/// None if there is no file.
fn load(file: &Path) -> Result<Option<DevKey>, DevKeyError> {
    let refuse = |source| DevKeyError::Io {
        file: file.to_owned(),
        source,
    };
    let opened = match File::open(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(refuse)?,
    };
    if let Some(mode) = exposed(&opened).map_err(refuse)? {
        let file = file.to_owned();
        return Err(DevKeyError::Exposed { file, mode });
    }
    let mut pem = Vec::new();
    opened
        .take(MAX_DEV_KEY_FILE_BYTES)
        .read_to_end(&mut pem)
        .map_err(refuse)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&pem)
        .ok()
        .and_then(|der| Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).ok())
        .and_then(DevKey::new);
    let file = file.to_owned();
    key.map(Some).ok_or(DevKeyError::Invalid { file })
}

/// Makes the file in one step: it is written under another name and then linked,
/// so that nobody reads half a key, and whoever comes second changes nothing.
fn create(dir: &Path, file: &Path) -> io::Result<()> {
    let no_key = |_| io::Error::other("no key could be generated");
    let pair = Ed25519KeyPair::generate().map_err(no_key)?;
    let der = pair.to_pkcs8v1().map_err(no_key)?;
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der)
    );
    create_private_dir(dir)?;
    let temporary = Temporary(dir.join(format!("{DEV_KEY_FILE}.{}.tmp", SystemRandom.id())));
    let mut written = create_private_file(&temporary.0)?;
    written.write_all(pem.as_bytes())?;
    written.sync_all()?;
    match std::fs::hard_link(&temporary.0, file) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        linked => linked?,
    }
    drop(temporary);
    File::open(dir)?.sync_all()
}

/// A file that is removed when it goes out of scope.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(file.path = %self.0.display(), %error, "temporary file left behind");
        }
    }
}

#[cfg(unix)]
fn create_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(not(unix))]
fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).create(dir)
}

#[cfg(unix)]
fn create_private_file(file: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
}

#[cfg(not(unix))]
fn create_private_file(file: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(file)
}

/// The permissions, if anybody but the owner has any.
#[cfg(unix)]
fn exposed(file: &File) -> io::Result<Option<u32>> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

/// Elsewhere the data directory's own protection must do.
#[cfg(not(unix))]
fn exposed(_file: &File) -> io::Result<Option<u32>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use duologue_proto::ids::UnixMillis;

    use super::*;
    use crate::auth::{AuthError, TokenRules, Verifier};
    use crate::clock::{ManualClock, SeededRandom};

    const HOUR: Duration = Duration::from_hours(1);

    fn clock() -> ManualClock {
        ManualClock::at(UnixMillis(1_700_000_000_000))
    }

    fn alice() -> UserId {
        UserId::parse("alice").unwrap()
    }

    fn verifier(key: &DevKey, clock: &ManualClock) -> Verifier {
        let clock = Arc::new(clock.clone());
        Verifier::new(vec![key.verifier_key()], TokenRules::default(), clock)
    }

    fn names_in(dir: &Path) -> Vec<String> {
        let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        let names = std::fs::read_dir(dir).unwrap().map(name);
        names.map(|name| name.into_string().unwrap()).collect()
    }

    #[test]
    fn a_token_is_good_until_its_lifetime_is_over() {
        let (clock, key) = (clock(), DevKey::ephemeral(&SeededRandom::new(1)));
        let token = key.sign(&alice(), HOUR, &clock);
        let identity = verifier(&key, &clock).verify(&token).unwrap();
        assert_eq!(identity.user, alice());
        assert_eq!(identity.expires_at, clock.now().plus(HOUR));
        clock.advance(HOUR);
        assert_eq!(
            verifier(&key, &clock).verify(&token),
            Err(AuthError::Expired)
        );
    }

    #[test]
    fn a_token_of_another_key_is_refused() {
        let clock = clock();
        let (one, other) = (SeededRandom::new(1), SeededRandom::new(2));
        let token = DevKey::ephemeral(&one).sign(&alice(), HOUR, &clock);
        let verifier = verifier(&DevKey::ephemeral(&other), &clock);
        assert_eq!(verifier.verify(&token), Err(AuthError::BadSignature));
    }

    #[test]
    fn the_key_is_made_once_and_found_again_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("data").join("deeper");
        let made = DevKey::load_or_create(&dir).unwrap();
        let found = DevKey::load_or_create(&dir).unwrap();
        let token = found.sign(&alice(), HOUR, &clock());
        assert!(verifier(&made, &clock()).verify(&token).is_ok());
        assert_eq!(names_in(&dir), [DEV_KEY_FILE]);
    }

    #[test]
    fn processes_that_race_get_the_same_key() {
        const RACERS: usize = 8;
        let dir = tempfile::tempdir().unwrap();
        let start = Barrier::new(RACERS);
        let race = || {
            start.wait();
            DevKey::load_or_create(dir.path()).unwrap()
        };
        let keys: Vec<DevKey> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS).map(|_| scope.spawn(race)).collect();
            let finish = racers.into_iter().map(|racer| racer.join().unwrap());
            finish.collect()
        });
        let token = keys[0].sign(&alice(), HOUR, &clock());
        for key in &keys {
            assert!(verifier(key, &clock()).verify(&token).is_ok());
        }
        assert_eq!(names_in(dir.path()), [DEV_KEY_FILE]);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_the_key_and_one_that_others_can_is_refused() {
        use std::fs::{Permissions, metadata, set_permissions};
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(DEV_KEY_FILE);
        DevKey::load_or_create(dir.path()).unwrap();
        let mode = metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        let error = DevKey::load_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, DevKeyError::Exposed { mode: 0o640, .. }));
        assert!(error.to_string().contains("mode 640"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(DEV_KEY_FILE);
        create_private_file(&file)
            .unwrap()
            .write_all(b"no key")
            .unwrap();
        let error = DevKey::load_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, DevKeyError::Invalid { .. }));
        assert_eq!(std::fs::read(&file).unwrap(), b"no key");
    }

    #[test]
    fn no_debug_shows_the_key() {
        let key = DevKey::ephemeral(&SeededRandom::new(1));
        assert_eq!(format!("{key:?}"), "DevKey { .. }");
        let shown = format!("{:?}", key.verifier_key());
        assert_eq!(
            shown,
            r#"VerificationKey { id: Some("development"), algorithm: EdDSA, .. }"#
        );
    }
}
