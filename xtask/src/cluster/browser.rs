//! A user at a page, as a browser calls: HTTP/1.1 and gRPC-Web, by a gateway.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use duologue_proto::chat::v1::{Body, SendMessageRequest, body};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Who is signed in, and where.
pub(super) struct Page {
    web: SocketAddr,
    token: String,
}

impl Page {
    /// Signs in by name, as the page does with the development key.
    pub(super) async fn sign_in(web: SocketAddr, user: &str) -> Result<Self> {
        let asked = serde_json::json!({"user": user}).to_string();
        let headers = "content-type: application/json\r\n";
        let (head, body) = post(web, "/dev/token", headers, asked.as_bytes()).await?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "no token: {head}");
        let body: serde_json::Value = serde_json::from_slice(&body)?;
        let token = body["token"].as_str().context("an answer has no token")?;
        let token = token.to_owned();
        Ok(Self { web, token })
    }

    /// Sends, and waits until it is stored.
    pub(super) async fn send(&self, peer: &str, text: &str) -> Result<()> {
        let request = SendMessageRequest {
            peer: peer.to_owned(),
            message_id: Some(text.replace(' ', "-")),
            after_seq: None,
            body: Some(Body {
                kind: Some(body::Kind::Text(text.to_owned())),
            }),
        };
        let message = request.encode_to_vec();
        let length = u32::try_from(message.len())?.to_be_bytes();
        let body = [&[0][..], &length, &message].concat();
        let headers = format!(
            "content-type: application/grpc-web+proto\r\nauthorization: Bearer {}\r\n",
            self.token
        );
        let path = "/duologue.chat.v1.ChatService/SendMessage";
        let (head, body) = post(self.web, path, &headers, &body).await?;
        let body = String::from_utf8_lossy(&body);
        ensure!(
            body.contains("grpc-status:0\r\n"),
            "\"{text}\" is not stored: {head}\n{body}"
        );
        Ok(())
    }
}

/// Posts on a connection of its own; the head of the answer, and all behind it.
async fn post(
    web: SocketAddr,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(web).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {web}\r\norigin: http://{web}\r\nconnection: close\r\n\
         content-length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n");
    let end = end.context("an answer has no head")?;
    let body = answer.split_off(end + 4);
    Ok((String::from_utf8(answer)?, body))
}
