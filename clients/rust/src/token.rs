//! Where bearer tokens come from.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

/// A token to come.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send + 'a>>;

/// Why a source has no token.
pub type TokenError = Box<dyn std::error::Error + Send + Sync>;

/// Gives bearer tokens. Every closure that returns such a future is one:
///
/// ```
/// # use duologue_client::TokenSource;
/// fn source() -> impl TokenSource {
///     |_refused: bool| async { Ok(String::from("a token from my login service")) }
/// }
/// ```
pub trait TokenSource: Send + Sync + 'static {
    /// A token; asked for before every connect. `refused`: the server did not
    /// take the last one, so a cached one is of no use. If the same comes again,
    /// the client stops.
    fn token(&self, refused: bool) -> TokenFuture<'_>;
}

impl<F, T> TokenSource for F
where
    F: Fn(bool) -> T + Send + Sync + 'static,
    T: Future<Output = Result<String, TokenError>> + Send + 'static,
{
    fn token(&self, refused: bool) -> TokenFuture<'_> {
        Box::pin(self(refused))
    }
}

/// The one token that there is.
pub(crate) struct StaticToken(pub(crate) String);

impl TokenSource for StaticToken {
    fn token(&self, _refused: bool) -> TokenFuture<'_> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

/// A source, and the last token that it gave. Tokens are never shown.
pub(crate) struct Tokens {
    source: Box<dyn TokenSource>,
    last: Mutex<Option<String>>,
}

/// Why there is no token to use.
pub(crate) enum NoToken {
    /// The source gave the refused one again.
    SameAgain,
    Source(TokenError),
}

impl Tokens {
    pub(crate) fn new(source: Box<dyn TokenSource>) -> Self {
        Self {
            source,
            last: Mutex::new(None),
        }
    }

    /// The last token, or a first one.
    pub(crate) async fn cached(&self) -> Result<String, NoToken> {
        match self.last() {
            Some(token) => Ok(token),
            None => self.ask(false).await,
        }
    }

    /// A token from the source.
    pub(crate) async fn ask(&self, refused: bool) -> Result<String, NoToken> {
        let token = self.source.token(refused).await.map_err(NoToken::Source)?;
        if refused && self.last().as_ref() == Some(&token) {
            return Err(NoToken::SameAgain);
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(token)
    }

    fn last(&self) -> Option<String> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
