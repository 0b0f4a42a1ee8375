//! What every response tells the browser to forbid, and which URLs are refused.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};

use crate::error::WebError;

/// Scripts and styles come from files of ours only, and text never becomes markup.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const SECURITY: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // For browsers that do not know frame-ancestors.
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    // It does not concern calls that CORS allows.
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

pub(crate) const TOKEN_IN_URL: WebError = WebError::new(
    StatusCode::BAD_REQUEST,
    "token_in_url",
    "a token must not be in the URL, where it is logged and remembered: send it in the header \
     `authorization`, and do not use this one again",
);

/// Whether what is there never changes.
pub(crate) fn is_hashed(uri: &Uri) -> bool {
    uri.path().starts_with("/assets/")
}

/// Adds the headers that protect the page.
pub(crate) fn protect(headers: &mut HeaderMap, is_hashed: bool) {
    headers.reserve(SECURITY.len());
    for (name, value) in SECURITY {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !is_hashed && headers.contains_key(header::ETAG) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
}

/// Whether a URL holds a token: it must be refused before anything looks at it.
pub(crate) fn holds_token(uri: &Uri) -> bool {
    const NAMES: [&str; 4] = ["token", "access_token", "authorization", "jwt"];
    let is_token = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name).to_ascii_lowercase();
        NAMES.contains(&name.as_str()) || looks_like_jwt(&decoded(value)) || looks_like_jwt(&name)
    };
    let query = uri.query().unwrap_or_default();
    query.split(['&', ';']).any(is_token)
        || uri
            .path()
            .split('/')
            .any(|part| looks_like_jwt(&decoded(part)))
}

/// Three parts, of which the first begins as JSON does in base64.
fn looks_like_jwt(text: &str) -> bool {
    let is_base64 = |part: &str| {
        let is_it = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=');
        part.bytes().all(is_it)
    };
    // The scheme may stand before it.
    let text = text.rsplit([' ', '+']).next().unwrap_or_default();
    let parts: Vec<_> = text.split('.').collect();
    parts.len() == 3
        && parts[0]
            .get(..2)
            .is_some_and(|start| start.eq_ignore_ascii_case("ey"))
        && parts.into_iter().all(is_base64)
}

/// Without percent-encoding.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = byte.filter(|_| *first == b'%') {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JWT: &str = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";

    fn refused(url: &str) -> bool {
        holds_token(&url.parse().unwrap())
    }

    #[test]
    fn a_token_is_found_by_name_and_by_looks() {
        for url in [
            "/ws?token=x",
            "/ws?a=b&access_token=x",
            "/ws?Authorization=x",
            "/ws?JWT",
            "/ws?%74oken=x",
            &format!("/ws?x={JWT}"),
            &format!("/ws?x=Bearer%20{JWT}"),
            &format!("/ws?x=Bearer+{JWT}"),
            &format!("/ws?{JWT}"),
            &format!("/ws?x={}", JWT.replace('.', "%2E")),
            &format!("/assets/{JWT}"),
        ] {
            assert!(refused(url), "{url}");
        }
    }

    #[test]
    fn other_urls_are_not_refused() {
        for url in [
            "/",
            "/assets/page-3f2a.min.js",
            "/ws?protocol=json",
            "/?v=1.2.3",
            "/?tokens=1",
            "/?x=%",
            "/?x=%zz",
        ] {
            assert!(!refused(url), "{url}");
        }
    }
}
