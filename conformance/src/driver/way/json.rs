//! `duologue.v1.json`, as a client has it: requests to the canonical JSON of proto3,
//! and responses from it. A response must hold nothing that the contract does not
//! know.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use duologue_proto::DESCRIPTOR_SET;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use tonic::Status;

/// Clones share the descriptors.
#[derive(Debug, Clone)]
pub(super) struct Json {
    request: MessageDescriptor,
    response: MessageDescriptor,
}

impl Json {
    /// From the committed descriptors.
    pub(super) fn load() -> Result<Self> {
        let pool = DescriptorPool::decode(DESCRIPTOR_SET).context("unusable descriptors")?;
        let message = |name| {
            let found = pool.get_message_by_name(name);
            found.with_context(|| format!("{name} is not in the contract"))
        };
        Ok(Self {
            request: message("duologue.chat.v1.ConverseRequest")?,
            response: message("duologue.chat.v1.ConverseResponse")?,
        })
    }

    /// A request as text.
    pub(super) fn write(&self, request: Bytes) -> Result<String, Status> {
        let request = DynamicMessage::decode(self.request.clone(), request);
        let request = request.map_err(|error| Status::internal(error.to_string()))?;
        let mut json = serde_json::Serializer::new(Vec::new());
        request
            .serialize_with_options(&mut json, &SerializeOptions::new())
            .map_err(|error| Status::internal(error.to_string()))?;
        String::from_utf8(json.into_inner()).map_err(|error| Status::internal(error.to_string()))
    }

    /// A text as a response.
    pub(super) fn read(&self, text: &str) -> Result<Bytes, Status> {
        let mut json = serde_json::Deserializer::from_str(text);
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        DynamicMessage::deserialize_with_options(self.response.clone(), &mut json, &options)
            .and_then(|message| json.end().map(|()| message.encode_to_vec().into()))
            .map_err(|error| Status::data_loss(format!("not a response in JSON: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use duologue_proto::chat::v1 as wire;

    use super::*;

    #[test]
    fn both_forms_hold_the_same() {
        let json = Json::load().unwrap();
        let request = wire::ConverseRequest {
            r#ref: 7,
            frame: None,
        };
        let text = json.write(request.encode_to_vec().into()).unwrap();
        assert_eq!(text, r#"{"ref":"7"}"#);
        let response = wire::ConverseResponse {
            r#ref: 7,
            frame: None,
        };
        assert_eq!(json.read(&text).unwrap(), response.encode_to_vec());
        for bad in [
            "",
            "{",
            r#"{"new":1}"#,
            r#"{"ref":"7"} "#.repeat(2).as_str(),
        ] {
            assert!(json.read(bad).is_err(), "{bad}");
        }
    }
}
