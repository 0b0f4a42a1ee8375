//! A page: calls by gRPC-Web, each on a connection of its own.

use std::net::SocketAddr;

use bytes::{Buf as _, Bytes, BytesMut};
use duologue_proto::chat::v1::subscribe_response::Frame;
use duologue_proto::chat::v1::{Envelope, SubscribeRequest, SubscribeResponse};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::soon;

/// An answer on a connection of its own, as a page reads it.
pub(crate) struct Page {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: Incoming,
    read: BytesMut,
    /// The connection ends with the page.
    _connection: JoinSet<()>,
}

impl Page {
    pub(crate) async fn post(
        web: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Self {
        let stream = soon(TcpStream::connect(web)).await.unwrap();
        Self::post_on(stream, web, path, headers, body).await
    }

    /// A `Subscribe` that has caught up.
    pub(crate) async fn subscribed(web: SocketAddr, token: &str) -> Self {
        let mut page = Self::call(web, "Subscribe", token, &SubscribeRequest::default()).await;
        page.caught_up().await;
        page
    }

    /// Posts on a connection that is made already.
    pub(crate) async fn post_on(
        stream: TcpStream,
        web: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Self {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut running = JoinSet::new();
        running.spawn(async move {
            // That it breaks off shows at the body.
            let _ = connection.await;
        });
        let mut request = Request::post(path)
            .header("host", web.to_string())
            .header("origin", format!("http://{web}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let answer = soon(sender.send_request(request)).await.unwrap();
        Self {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.into_body(),
            read: BytesMut::new(),
            _connection: running,
        }
    }

    pub(crate) async fn call(
        web: SocketAddr,
        method: &str,
        token: &str,
        message: &impl Message,
    ) -> Self {
        let stream = soon(TcpStream::connect(web)).await.unwrap();
        Self::call_on(stream, web, method, token, message, &[]).await
    }

    /// Calls on a connection that is made already, with more headers.
    pub(crate) async fn call_on(
        stream: TcpStream,
        web: SocketAddr,
        method: &str,
        token: &str,
        message: &impl Message,
        more: &[(&str, &str)],
    ) -> Self {
        let path = format!("/duologue.chat.v1.ChatService/{method}");
        let bearer = format!("Bearer {token}");
        let mut headers = vec![
            ("content-type", "application/grpc-web+proto"),
            ("authorization", &*bearer),
        ];
        headers.extend(more);
        let bytes = message.encode_to_vec();
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        let body = [&[0][..], &length, &bytes].concat();
        Self::post_on(stream, web, &path, &headers, body).await
    }

    /// More of the answer; none once it has ended, well or not.
    pub(crate) async fn next_chunk(&mut self) -> Option<Bytes> {
        self.body.frame().await?.ok()?.into_data().ok()
    }

    /// The next frame of a call: its kind, and what it holds.
    pub(crate) async fn frame(&mut self) -> (u8, Bytes) {
        loop {
            if let Some((prefix, rest)) = self.read.split_first_chunk::<5>() {
                let [kind, length @ ..] = *prefix;
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap();
                if rest.len() >= length {
                    self.read.advance(5);
                    return (kind, self.read.split_to(length).freeze());
                }
            }
            let more = soon(self.body.frame()).await.expect("the answer has ended");
            self.read
                .extend_from_slice(&more.unwrap().into_data().unwrap());
        }
    }

    /// The next event of the wanted kind.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let (kind, frame) = self.frame().await;
            assert_eq!(kind, 0, "{frame:?}");
            let event = SubscribeResponse::decode(frame).unwrap().frame.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    }

    /// Reads on until the page has caught up; its sync token.
    pub(crate) async fn caught_up(&mut self) -> String {
        match self
            .until(|frame| matches!(frame, Frame::CaughtUp(_)))
            .await
        {
            Frame::CaughtUp(caught_up) => caught_up.sync_token,
            _ => unreachable!(),
        }
    }

    /// The next message that is delivered.
    pub(crate) async fn message(&mut self) -> Envelope {
        let delivered = |frame: &Frame| matches!(frame, Frame::MessageDelivered(_));
        match self.until(delivered).await {
            Frame::MessageDelivered(delivered) => delivered.envelope.unwrap(),
            _ => unreachable!(),
        }
    }

    /// The status of an answer that has nothing but one.
    pub(crate) fn refusal(&self) -> Option<u32> {
        let status = self.headers.get("grpc-status")?;
        status.to_str().unwrap().parse().ok()
    }

    /// The status at the end, whatever comes before, and all that stands beside it.
    pub(crate) async fn status(&mut self) -> (u32, String) {
        if let Some(code) = self.refusal() {
            return (code, format!("{:?}", self.headers));
        }
        loop {
            let (kind, frame) = self.frame().await;
            if kind == 0x80 {
                let text = String::from_utf8(frame.to_vec()).unwrap();
                let code = text
                    .lines()
                    .find_map(|line| line.strip_prefix("grpc-status:"));
                return (code.unwrap().trim().parse().unwrap(), text);
            }
        }
    }
}
