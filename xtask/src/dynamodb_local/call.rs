//! One call to DynamoDB Local by plain HTTP: enough to see whether it answers, and
//! whether its data is still there.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Never checked, but it must be there and look like one.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 \
    Credential=local/20260101/us-east-1/dynamodb/aws4_request, \
    SignedHeaders=host, Signature=0";

/// Calls an operation; returns the HTTP status and the answer.
pub(super) async fn call(server: SocketAddr, operation: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(server).await?;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\
         Content-Type: application/x-amz-json-1.0\r\n\
         X-Amz-Target: DynamoDB_20120810.{operation}\r\n\
         Authorization: {AUTHORIZATION}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no HTTP answer: {answer:?}"))?;
    Ok((status, answer))
}
