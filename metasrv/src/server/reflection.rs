//! gRPC reflection: tools such as `grpcurl` need no `.proto` files.

/// The service, over every service of a replica.
pub fn service()
-> tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection> {
    let built = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(metasrv_proto::DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    match built {
        Ok(service) => service,
        Err(error) => unreachable!("our own descriptor does not decode: {error}"),
    }
}
