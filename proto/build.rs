//! Compiles the .proto files without protoc and writes the descriptor set that reflection and the golden test read.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 11] = [
    "greptime/v1/meta/common.proto",
    "greptime/v1/meta/heartbeat.proto",
    "metasrv/v1/evidence.proto",
    "metasrv/v1/instruction.proto",
    "metasrv/v1/record.proto",
    "metasrv/v1/region_set.proto",
    "metasrv/v1/admin.proto",
    "metasrv/v1/key_value.proto",
    "metasrv/v1/replica.proto",
    "metasrv/v1/operations.proto",
    "metasrv/v1/routes.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().codec_path("crate::codec::QuietCodec").compile_fds(descriptors)?;
    Ok(())
}
