//! The methods that a server offers, read from their descriptors.
//!
//! Spans and metrics name a method only if it is known here: a path is text that
//! a caller chose. What is known of a method also decides whether it needs a
//! token and whether it has a deadline by default.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};

/// The name of service and method where a call names none that is known.
pub const OTHER: &str = "other";

/// One method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// The service, with its package.
    pub service: Arc<str>,
    /// The method.
    pub name: Arc<str>,
    /// Whether the request is a stream.
    pub client_streaming: bool,
    /// Whether the response is a stream.
    pub server_streaming: bool,
}

impl Method {
    /// Whether the method may be called without a token: health and reflection.
    pub fn is_public(&self) -> bool {
        &*self.service == "grpc.health.v1.Health" || self.service.starts_with("grpc.reflection.")
    }

    /// Whether the method is of the public contract.
    fn is_for_users(&self) -> bool {
        self.service.starts_with("duologue.chat.")
    }

    /// Whether either side is a stream, so that a call may rightly last.
    pub fn is_streaming(&self) -> bool {
        self.client_streaming || self.server_streaming
    }
}

/// Every method of a server, by path.
#[derive(Debug)]
pub struct Methods {
    known: BTreeMap<String, Arc<Method>>,
    other: Arc<Method>,
}

impl Methods {
    /// The methods of encoded descriptor sets.
    pub fn from_descriptor_sets(sets: &[&[u8]]) -> Result<Self, prost::DecodeError> {
        let mut known = BTreeMap::new();
        for set in sets {
            for file in FileDescriptorSet::decode(*set)?.file {
                for service in &file.service {
                    let service_name = format!("{}.{}", file.package(), service.name());
                    for method in &service.method {
                        let path = format!("/{service_name}/{}", method.name());
                        known.insert(path, Arc::new(describe(&service_name, method)));
                    }
                }
            }
        }
        let other = Arc::new(Method {
            service: OTHER.into(),
            name: OTHER.into(),
            client_streaming: false,
            server_streaming: false,
        });
        Ok(Self { known, other })
    }

    /// The methods of the public door: chat, health and reflection.
    pub fn standard() -> Result<Self, prost::DecodeError> {
        Self::from_descriptor_sets(&[
            duologue_proto::DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ])
    }

    /// The methods of the inner door: those that services offer each other, and
    /// health.
    pub fn inner() -> Result<Self, prost::DecodeError> {
        let mut methods = Self::from_descriptor_sets(&[
            duologue_proto::INTERNAL_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
        ])?;
        methods.known.retain(|_, method| !method.is_for_users());
        Ok(methods)
    }

    /// Whether there is a method at a path.
    pub fn is_known(&self, path: &str) -> bool {
        self.known.contains_key(path)
    }

    /// The method at a path; a unary one called [`OTHER`] where none is known.
    pub fn at(&self, path: &str) -> &Arc<Method> {
        self.known.get(path).unwrap_or(&self.other)
    }
}

fn describe(service: &str, method: &MethodDescriptorProto) -> Method {
    Method {
        service: service.into(),
        name: method.name().into(),
        client_streaming: method.client_streaming(),
        server_streaming: method.server_streaming(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_public(path: &str) -> bool {
        Methods::standard().unwrap().at(path).is_public()
    }

    #[test]
    fn only_health_and_reflection_are_public() {
        let methods = Methods::standard().unwrap();
        let public: Vec<_> = methods
            .known
            .iter()
            .filter(|(_, method)| method.is_public())
            .map(|(path, _)| path.as_str())
            .collect();
        assert_eq!(
            public,
            [
                "/grpc.health.v1.Health/Check",
                "/grpc.health.v1.Health/Watch",
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            ]
        );
    }

    #[test]
    fn no_method_but_health_is_known_at_both_doors() {
        let (outer, inner) = (Methods::standard().unwrap(), Methods::inner().unwrap());
        let both: Vec<_> = outer
            .known
            .keys()
            .filter(|path| inner.is_known(path))
            .collect();
        assert_eq!(
            both,
            [
                "/grpc.health.v1.Health/Check",
                "/grpc.health.v1.Health/Watch"
            ]
        );
        let is_chat = |method: &Arc<Method>| &*method.service == "duologue.chat.v1.ChatService";
        let is_ours = |method: &&Arc<Method>| method.service.starts_with("duologue.");
        assert!(outer.known.values().filter(is_ours).all(is_chat));
    }

    #[test]
    fn a_path_that_only_looks_public_is_not() {
        for path in [
            "",
            "/",
            "/grpc.health.v1.Health",
            "/grpc.health.v1.Health/check",
            "/grpc.health.v1.Health/Check/",
            "//grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/../duologue.chat.v1.ChatService/SendMessage",
            "/grpc.reflection.x/Y",
        ] {
            assert!(!is_public(path), "{path}");
        }
    }

    #[test]
    fn streams_are_known_from_the_contract() {
        let methods = Methods::standard().unwrap();
        let streaming = |name: &str| {
            let path = format!("/duologue.chat.v1.ChatService/{name}");
            methods.at(&path).is_streaming()
        };
        assert!(streaming("Converse") && streaming("Subscribe"));
        assert!(!streaming("SendMessage") && !streaming("ListMessages"));
        assert!(!methods.at("/made.up.Service/Call").is_streaming());
    }
}
