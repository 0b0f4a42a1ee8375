//! Whose tokens are accepted.

use std::sync::Arc;

use duologue_runtime::auth::{
    DEV_KEY_FILE, DevKey, TokenRules, VerificationKey, Verifier, load_keys,
};
use duologue_runtime::clock::{Clock, SystemRandom};

use super::config::ServeArgs;

/// The keys that sign users' tokens.
pub(super) struct Keys {
    verification: Vec<VerificationKey>,
    /// The development key, where no other is configured.
    pub(super) development: Option<Arc<DevKey>>,
}

impl Keys {
    /// Reads the configured keys, or reads or makes the development key.
    pub(super) fn load(args: &ServeArgs) -> anyhow::Result<Self> {
        if !args.public.uses_dev_key() {
            let verification = load_keys(&args.public.jwt_public_key)?;
            return Ok(Self {
                verification,
                development: None,
            });
        }
        let key = if args.in_memory() {
            DevKey::ephemeral(&SystemRandom)
        } else {
            DevKey::load_or_create(&args.data)?
        };
        Ok(Self {
            verification: vec![key.verifier_key()],
            development: Some(Arc::new(key)),
        })
    }

    /// Reads what [`Keys::load`] would read, and makes nothing.
    pub(super) fn check(args: &ServeArgs) -> anyhow::Result<()> {
        let none_yet = args.public.uses_dev_key() && !args.data.join(DEV_KEY_FILE).try_exists()?;
        if !none_yet {
            Self::load(args)?;
        }
        Ok(())
    }

    /// What verifies tokens.
    pub(super) fn verifier(&self, args: &ServeArgs, clock: Arc<dyn Clock>) -> Verifier {
        let rules = TokenRules {
            issuers: args.public.jwt_issuer.clone(),
            audiences: args.public.jwt_audience.clone(),
        };
        Verifier::new(self.verification.clone(), rules, clock)
    }
}
