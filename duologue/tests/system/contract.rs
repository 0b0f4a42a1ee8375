//! The contract's descriptors against what is served.

use duologue_proto::DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::FileDescriptorSet;

use crate::support::{Server, raw, soon};

#[tokio::test]
async fn every_method_of_the_contract_is_served() {
    let server = Server::start(&[]).await;
    let token = server.token("alice");
    let set = FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap();
    let mut methods = 0;
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                methods += 1;
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                // A message of no bytes is a message of every kind.
                let answer =
                    raw::call(server.channel().await, Some(&token), &path, vec![vec![]]).await;
                let code = match answer {
                    Err(status) => status.code(),
                    // The first answer will do: a stream may never end.
                    Ok(response) => match soon(response.into_inner().message()).await {
                        Err(status) => status.code(),
                        Ok(_) => tonic::Code::Ok,
                    },
                };
                let expected = [tonic::Code::Ok, tonic::Code::InvalidArgument];
                assert!(expected.contains(&code), "{path}: {code:?}");
            }
        }
    }
    assert_eq!(methods, 8);
}
