//! `grpc.reflection`: the contract as the server tells it, so that tools such as
//! grpcurl need no files.

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

/// Adds reflection, v1 and v1alpha, of Duologue's public contract and health.
pub fn add_reflection(routes: Routes) -> Result<Routes, Error> {
    Ok(routes
        .add_service(builder()?.build_v1()?)
        .add_service(builder()?.build_v1alpha()?))
}

fn builder() -> Result<Builder<'static>, Error> {
    Ok(Builder::configure()
        .register_file_descriptor_set(public_contract()?)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // So that tools can show the details of a refusal.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET))
}

/// What services say to each other is not for users.
fn public_contract() -> Result<FileDescriptorSet, Error> {
    let mut set = FileDescriptorSet::decode(duologue_proto::DESCRIPTOR_SET)?;
    set.file.retain(|file| {
        let package = file.package();
        !package.starts_with("duologue.") || package.starts_with("duologue.chat.")
    });
    Ok(set)
}
