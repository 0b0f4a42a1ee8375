//! `grpc.reflection`: the contract as the server tells it, so that tools such as
//! grpcurl need no files.

use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

/// Adds reflection, v1 and v1alpha, of Duologue's public contract and health.
pub fn add_reflection(routes: Routes) -> Result<Routes, Error> {
    Ok(routes
        .add_service(builder().build_v1()?)
        .add_service(builder().build_v1alpha()?))
}

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(duologue_proto::DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // So that tools can show the details of a refusal.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
