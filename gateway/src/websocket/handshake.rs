//! Whether a request becomes a WebSocket, and with which subprotocol. Who may ask is
//! the router's matter, and was decided before.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, Response, StatusCode};

use super::frame::Kind;

/// What RFC 6455 has a server put behind the key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a client's key.
const KEY_BYTES: usize = 16;
/// The version of RFC 6455.
const VERSION: HeaderValue = HeaderValue::from_static("13");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// How the frames of `Converse` are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Protocol {
    /// Each binary message is one of protobuf.
    Proto,
    /// Each text message is one in JSON.
    Json,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::Proto, Self::Json];

    /// As clients name it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Proto => "duologue.v1.proto",
            Self::Json => "duologue.v1.json",
        }
    }

    /// Which messages it is made of.
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Proto => Kind::Binary,
            Self::Json => Kind::Text,
        }
    }
}

/// An upgrade that is granted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Handshake {
    pub(super) protocol: Protocol,
    accept: String,
}

/// An answer that is not an upgrade; for a person.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) text: &'static str,
}

impl Refused {
    /// The answer. It says what an upgrade needs.
    pub(super) fn response(&self) -> Response<String> {
        let mut response = Response::new(format!("{}\n", self.text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        if self.status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(UPGRADE, WEBSOCKET);
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(SEC_WEBSOCKET_VERSION, VERSION);
        }
        response
    }
}

impl Handshake {
    /// Judges a request by its head.
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Result<Self, Refused> {
        if method != Method::GET
            || !lists(headers, &UPGRADE, "websocket")
            || !lists(headers, &CONNECTION, "upgrade")
        {
            return Err(Refused {
                status: StatusCode::UPGRADE_REQUIRED,
                text: "this is a WebSocket: connect to it with one, over HTTP/1.1",
            });
        }
        if headers.get(SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
            return Err(Refused {
                status: StatusCode::UPGRADE_REQUIRED,
                text: "only version 13 of WebSocket is known",
            });
        }
        let accept = accept(headers).ok_or(Refused {
            status: StatusCode::BAD_REQUEST,
            text: "sec-websocket-key must be there once, with 16 bytes in base64",
        })?;
        let protocol = choose(headers).ok_or(Refused {
            status: StatusCode::BAD_REQUEST,
            text: "offer one of the subprotocols duologue.v1.proto and duologue.v1.json",
        })?;
        Ok(Self { protocol, accept })
    }

    /// The answer, after which the connection is a WebSocket.
    pub(super) fn response(&self) -> Response<String> {
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, WEBSOCKET);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        // Base64 is always a header's value.
        if let Ok(accept) = HeaderValue::try_from(&self.accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        let name = HeaderValue::from_static(self.protocol.name());
        headers.insert(SEC_WEBSOCKET_PROTOCOL, name);
        response
    }
}

/// The first that we know of those that the client offers, in its order.
fn choose(headers: &HeaderMap) -> Option<Protocol> {
    let known = |offered: &str| {
        let mut all = Protocol::ALL.into_iter();
        all.find(|protocol| protocol.name() == offered)
    };
    items(headers, &SEC_WEBSOCKET_PROTOCOL).find_map(known)
}

/// What proves that the request was understood.
fn accept(headers: &HeaderMap) -> Option<String> {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return None;
    };
    let key = key.to_str().ok()?.trim();
    let bytes = STANDARD.decode(key).ok()?;
    let hash = || digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    (bytes.len() == KEY_BYTES).then(|| STANDARD.encode(hash()))
}

fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    items(headers, name).any(|item| item.eq_ignore_ascii_case(wanted))
}

/// The items of a header that is a list.
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455, with our subprotocols.
    fn headers(changes: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let all = [
            ("upgrade", "websocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
            (
                "sec-websocket-protocol",
                "duologue.v1.json, duologue.v1.proto",
            ),
        ];
        for (name, value) in all.iter().chain(changes) {
            headers.remove(*name);
            if !value.is_empty() {
                headers.insert(*name, value.parse().unwrap());
            }
        }
        headers
    }

    fn judged(changes: &[(&'static str, &'static str)]) -> Result<Protocol, u16> {
        match Handshake::of(&Method::GET, &headers(changes)) {
            Ok(handshake) => Ok(handshake.protocol),
            Err(refused) => Err(refused.response().status().as_u16()),
        }
    }

    #[test]
    fn the_example_of_the_rfc_is_answered_as_there() {
        let handshake = Handshake::of(&Method::GET, &headers(&[])).unwrap();
        let response = handshake.response();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(
            response.headers()["sec-websocket-accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(
            response.headers()["sec-websocket-protocol"],
            "duologue.v1.json"
        );
    }

    #[test]
    fn of_the_subprotocols_the_first_known_one_is_chosen() {
        let offer = |list| judged(&[("sec-websocket-protocol", list)]);
        assert_eq!(offer("duologue.v1.proto"), Ok(Protocol::Proto));
        assert_eq!(offer("chat, duologue.v1.json"), Ok(Protocol::Json));
        assert_eq!(
            offer("duologue.v1.proto,duologue.v1.json"),
            Ok(Protocol::Proto)
        );
        assert_eq!(offer("chat"), Err(400));
        assert_eq!(offer("DUOLOGUE.V1.PROTO"), Err(400));
        assert_eq!(offer(""), Err(400));
    }

    #[test]
    fn a_request_that_is_no_upgrade_is_told_so() {
        for name in ["upgrade", "connection", "sec-websocket-version"] {
            assert_eq!(judged(&[(name, "")]), Err(426), "{name}");
            assert_eq!(judged(&[(name, "other")]), Err(426), "{name}");
        }
        let post = Handshake::of(&Method::POST, &headers(&[]));
        assert_eq!(post.unwrap_err().status, StatusCode::UPGRADE_REQUIRED);
        for key in ["", "short", "dGhlIHNhbXBsZSBub25j"] {
            assert_eq!(judged(&[("sec-websocket-key", key)]), Err(400), "{key}");
        }
    }
}
