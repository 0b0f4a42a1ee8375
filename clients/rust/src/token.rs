//! Where bearer tokens come from.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::timeout;

use crate::limits::OPEN_TIMEOUT;

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

/// A source, and what is known of the tokens that it gave. They are never shown.
pub(crate) struct Tokens {
    source: Box<dyn TokenSource>,
    given: Mutex<Given>,
}

#[derive(Default)]
struct Given {
    last: Option<String>,
    /// The last one with which the server has opened a link, or refused one. One
    /// with which no server was reached is neither good nor bad.
    judged: Option<String>,
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
            given: Mutex::default(),
        }
    }

    /// The last token, or a first one.
    pub(crate) async fn cached(&self) -> Result<String, NoToken> {
        let last = self.given().last.clone();
        match last {
            Some(token) => Ok(token),
            None => self.ask(None).await,
        }
    }

    /// A token from the source, other than one that was refused.
    pub(crate) async fn ask(&self, refused: Option<&str>) -> Result<String, NoToken> {
        let asking = timeout(OPEN_TIMEOUT, self.source.token(refused.is_some()));
        let late = |_| NoToken::Source("its source does not answer".into());
        let token = asking.await.map_err(late)?.map_err(NoToken::Source)?;
        if refused == Some(token.as_str()) {
            return Err(NoToken::SameAgain);
        }
        self.given().last = Some(token.clone());
        Ok(token)
    }

    /// A token for a link. `fresh`: that of the last link was refused. It may have
    /// been replaced since then.
    pub(crate) async fn for_link(&self, fresh: bool) -> Result<String, NoToken> {
        let refused = {
            let given = self.given();
            let is_last = given.judged == given.last;
            given.judged.clone().filter(|_| fresh && is_last)
        };
        self.ask(refused.as_deref()).await
    }

    /// The server has opened a link with this token, or refused it.
    pub(crate) fn judged(&self, token: &str) {
        self.given().judged = Some(token.to_owned());
    }

    fn given(&self) -> MutexGuard<'_, Given> {
        // Whole between any two statements.
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Tokens of a source whose present one is the number.
    fn tokens() -> (Tokens, Arc<AtomicUsize>) {
        let number = Arc::new(AtomicUsize::new(1));
        let present = Arc::clone(&number);
        let source = move |_refused: bool| {
            std::future::ready(Ok(present.load(Ordering::SeqCst).to_string()))
        };
        (Tokens::new(Box::new(source)), number)
    }

    #[tokio::test]
    async fn a_token_that_no_server_has_seen_may_come_again() {
        let (tokens, number) = tokens();
        assert_eq!(tokens.for_link(false).await.ok().as_deref(), Some("1"));
        tokens.judged("1");
        number.store(2, Ordering::SeqCst);
        // The first has expired; with the second no server is reached.
        for _ in 0..2 {
            assert_eq!(tokens.for_link(true).await.ok().as_deref(), Some("2"));
        }
        tokens.judged("2");
        let again = tokens.for_link(true).await;
        assert!(matches!(again, Err(NoToken::SameAgain)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_does_not_answer_is_one_without_a_token() {
        let hangs = |_refused: bool| std::future::pending();
        let tokens = Tokens::new(Box::new(hangs));
        for asked in [
            tokens.cached().await,
            tokens.for_link(false).await,
            tokens.ask(Some("1")).await,
        ] {
            assert!(matches!(asked, Err(NoToken::Source(_))));
        }
    }

    #[tokio::test]
    async fn a_token_that_a_call_has_renewed_is_good_for_the_link() {
        let (tokens, number) = tokens();
        assert!(tokens.for_link(false).await.is_ok());
        tokens.judged("1");
        number.store(2, Ordering::SeqCst);
        assert!(tokens.ask(Some("1")).await.is_ok());
        assert_eq!(tokens.for_link(true).await.ok().as_deref(), Some("2"));
    }
}
