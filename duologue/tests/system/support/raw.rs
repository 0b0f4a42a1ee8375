//! Calls whose messages are any bytes.

use duologue_proto::chat::v1::ConverseResponse;
use prost::Message as _;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::{End, Server, soon};

/// Hands bytes over as they are.
#[derive(Clone, Copy, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        use prost::bytes::Buf as _;
        let mut item = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// Calls a method with these messages, and then none.
pub(crate) async fn call(
    channel: Channel,
    token: Option<&str>,
    path: &str,
    messages: Vec<Vec<u8>>,
) -> Result<Response<Streaming<Vec<u8>>>, Status> {
    let mut request = Request::new(tokio_stream::iter(messages));
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let path: PathAndQuery = path.parse().unwrap();
    let mut grpc = Grpc::new(channel);
    let ready = soon(grpc.ready()).await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    soon(grpc.streaming(request, path, Raw)).await
}

/// The status of a call, whether it comes before or after messages.
pub(crate) async fn status_of(
    answer: Result<Response<Streaming<Vec<u8>>>, Status>,
) -> Result<(), Status> {
    let mut stream = answer?.into_inner();
    while soon(stream.message()).await?.is_some() {}
    Ok(())
}

/// How a `Converse` stream with these frames ends, the client half-closing.
pub(crate) async fn converse(server: &Server, user: &str, frames: Vec<Vec<u8>>) -> End {
    let token = server.token(user);
    let path = "/duologue.chat.v1.ChatService/Converse";
    let answer = call(server.channel().await, Some(&token), path, frames).await;
    let mut stream = answer.unwrap().into_inner();
    let mut frames = Vec::new();
    let status = loop {
        match soon(stream.message()).await {
            Ok(Some(frame)) => frames.push(ConverseResponse::decode(&*frame).unwrap()),
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        }
    };
    End { frames, status }
}
