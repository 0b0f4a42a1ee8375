//! The chat page, from memory: committed build output, compressed when it is
//! compiled in.

use std::sync::LazyLock;

use axum::Router;
use memory_serve::CacheControl;
use tracing::subscriber::{NoSubscriber, with_default};

/// The routes of the page. Names below `/assets` have a hash and never change; what
/// else there is, is asked for again by its `ETag`.
pub(crate) fn router() -> Router {
    // Made once, since it keeps what it decompresses for good; and quietly, since it
    // tells of each file.
    static ASSETS: LazyLock<Router> = LazyLock::new(|| {
        with_default(NoSubscriber::default(), || {
            memory_serve::load!()
                .index_file(Some("/index.html"))
                .html_cache_control(CacheControl::NoCache)
                .cache_control(CacheControl::Long)
                .into_router()
        })
    });
    ASSETS.clone()
}

/// Whether a path is of the page, which anybody may read.
pub(crate) fn is_static(path: &str) -> bool {
    path == "/" || path == "/index.html" || path.starts_with("/assets/")
}
