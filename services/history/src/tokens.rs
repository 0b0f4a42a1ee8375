//! Opaque tokens: made here, given back by clients, bound to what they belong to.
//!
//! A token is base64url of a version, a payload and the truncated digest of both
//! with what the token is bound to. The digest finds garbled and foreign tokens;
//! it is no secret, so a token must not grant anything: who forges one can
//! mislead only themself, and what it holds is checked like any input.

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use duologue_proto::ids::{UnixMillis, UserId};
use duologue_proto::limits::MAX_TOKEN_BYTES;

const VERSION: u8 = 1;
const DIGEST_BYTES: usize = 16;

/// What a token is for; part of what it is bound to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Sync = 1,
    Messages = 2,
    Conversations = 3,
}

/// Makes a token that only opens with the same purpose and `bound`.
pub(crate) fn seal(purpose: Purpose, bound: &[&[u8]], payload: &Payload) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&payload.0);
    bytes.extend_from_slice(&digest(purpose, bound, &payload.0));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The payload of a token; none if the token is garbled or of something else.
pub(crate) fn open(purpose: Purpose, bound: &[&[u8]], token: &str) -> Option<Vec<u8>> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (version, rest) = bytes.split_first()?;
    let (payload, found) = rest.split_at_checked(rest.len().checked_sub(DIGEST_BYTES)?)?;
    let genuine = *version == VERSION && found == digest(purpose, bound, payload);
    genuine.then(|| payload.to_vec())
}

fn digest(purpose: Purpose, bound: &[&[u8]], payload: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut context = Context::new(&SHA256);
    context.update(&[VERSION, purpose as u8]);
    for part in bound.iter().chain([&payload]) {
        // With its length, so that no two bindings read the same.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut truncated = [0; DIGEST_BYTES];
    truncated.copy_from_slice(&context.finish().as_ref()[..DIGEST_BYTES]);
    truncated
}

/// What a token holds, field by field.
#[derive(Debug, Clone, Default)]
pub(crate) struct Payload(Vec<u8>);

impl Payload {
    #[must_use]
    pub(crate) fn number(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A place in an order: none, or a number and a user.
    #[must_use]
    pub(crate) fn place(mut self, place: Option<(u64, &UserId)>) -> Self {
        let Some((number, user)) = place else {
            self.0.push(0);
            return self;
        };
        let user = user.as_str().as_bytes();
        // A user id is 1 to 64 bytes long.
        self.0.push(u8::try_from(user.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(user);
        self.number(number)
    }
}

/// Reads a payload in the order in which it was written.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn number(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*bytes))
    }

    pub(crate) fn time(&mut self) -> Option<UnixMillis> {
        self.number().map(UnixMillis)
    }

    #[expect(
        clippy::option_option,
        reason = "the payload may be garbled; the place may be none"
    )]
    pub(crate) fn place(&mut self) -> Option<Option<(u64, UserId)>> {
        let (length, rest) = self.0.split_first()?;
        self.0 = rest;
        if *length == 0 {
            return Some(None);
        }
        let (user, rest) = self.0.split_at_checked(usize::from(*length))?;
        self.0 = rest;
        let user = UserId::parse(std::str::from_utf8(user).ok()?).ok()?;
        Some(Some((self.number()?, user)))
    }

    /// That nothing follows.
    pub(crate) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(payload: u64) -> String {
        seal(
            Purpose::Sync,
            &[b"history", b"alice"],
            &Payload::default().number(payload),
        )
    }

    #[test]
    fn a_token_opens_with_what_it_is_bound_to_and_with_nothing_else() {
        let token = token(7);
        let open = |purpose, bound: &[&[u8]]| open(purpose, bound, &token);
        let payload = 7_u64.to_be_bytes().to_vec();
        assert_eq!(open(Purpose::Sync, &[b"history", b"alice"]), Some(payload));
        assert_eq!(open(Purpose::Messages, &[b"history", b"alice"]), None);
        assert_eq!(open(Purpose::Sync, &[b"history", b"bob"]), None);
        assert_eq!(open(Purpose::Sync, &[b"historyalice"]), None);
        assert_eq!(open(Purpose::Sync, &[b"historya", b"lice"]), None);
    }

    #[test]
    fn a_token_fits_into_the_contract_s_limit() {
        let longest = UserId::parse(&"u".repeat(64)).unwrap();
        let place = Some((u64::MAX, &longest));
        let payload = Payload::default().number(1).place(place).place(place);
        assert!(seal(Purpose::Conversations, &[], &payload).len() <= MAX_TOKEN_BYTES);
    }

    proptest! {
        #[test]
        fn a_token_with_any_character_changed_is_refused(
            payload: u64,
            at: prop::sample::Index,
            with in "[ -~]",
        ) {
            let token = token(payload);
            let at = at.index(token.len());
            let mut garbled = token.clone();
            garbled.replace_range(at..=at, &with);
            let found = open(Purpose::Sync, &[b"history", b"alice"], &garbled);
            prop_assert_eq!(found.is_some(), garbled == token);
        }

        #[test]
        fn no_bytes_make_a_panic(bytes: Vec<u8>, text in ".{0,600}") {
            let bound: &[&[u8]] = &[b"history", b"alice"];
            prop_assert_eq!(open(Purpose::Sync, bound, &text), None);
            prop_assert_eq!(open(Purpose::Sync, bound, &URL_SAFE_NO_PAD.encode(&bytes)), None);
            let mut fields = Fields(&bytes);
            while fields.place().is_some() && fields.number().is_some() {}
        }
    }
}
