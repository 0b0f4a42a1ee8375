//! `duologue.v1.json`: the frames of `Converse` in the canonical JSON of proto3, by
//! the committed descriptors.
//!
//! It changes the form and nothing else. Integers of 64 bits go out as strings, and
//! may come in either way.

use bytes::Bytes;
use duologue_proto::DESCRIPTOR_SET;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use serde_json::error::Category;

/// What a client says.
const REQUEST: &str = "duologue.chat.v1.ConverseRequest";
/// What it is told.
const RESPONSE: &str = "duologue.chat.v1.ConverseResponse";

/// Reads and writes JSON. Clones share the descriptors.
#[derive(Debug, Clone)]
pub(super) struct Json {
    request: MessageDescriptor,
    response: MessageDescriptor,
}

/// Descriptors that are not those of the contract: a fault of the build.
#[derive(Debug, thiserror::Error)]
#[error("the descriptors of the contract are not usable")]
pub struct BadDescriptors;

/// A response that is not what the contract says.
#[derive(Debug)]
pub(super) struct Undecodable;

impl Json {
    /// From the committed descriptors.
    pub(super) fn load() -> Result<Self, BadDescriptors> {
        let pool = DescriptorPool::decode(DESCRIPTOR_SET).map_err(|_| BadDescriptors)?;
        let message = |name| pool.get_message_by_name(name).ok_or(BadDescriptors);
        Ok(Self {
            request: message(REQUEST)?,
            response: message(RESPONSE)?,
        })
    }

    /// A text of a client as protobuf; the error says where it is wrong. What is written
    /// there is not said: reasons of closing are logged by clients.
    pub(super) fn read(&self, text: &[u8]) -> Result<Vec<u8>, String> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let request =
            DynamicMessage::deserialize_with_options(self.request.clone(), &mut json, &options)
                .and_then(|message| json.end().map(|()| message));
        match request {
            Ok(request) => Ok(request.encode_to_vec()),
            Err(error) => Err(fault(&error)),
        }
    }

    /// A protobuf message of the server as text.
    pub(super) fn write(&self, message: Bytes) -> Result<Vec<u8>, Undecodable> {
        let message = DynamicMessage::decode(self.response.clone(), message);
        let message = message.map_err(|_| Undecodable)?;
        let mut json = serde_json::Serializer::new(Vec::new());
        message
            .serialize_with_options(&mut json, &SerializeOptions::new())
            .map_err(|_| Undecodable)?;
        Ok(json.into_inner())
    }
}

fn fault(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Data => "is no ConverseRequest: a field is unknown or of another type",
        Category::Syntax | Category::Eof | Category::Io => "is not JSON",
    };
    let (line, column) = (error.line(), error.column());
    format!("{what}, at line {line}, column {column}")
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
