//! The wire of metasrv. Two packages: [`meta`], which is compatible with the public GreptimeDB heartbeat protocol,
//! and [`metasrv`], which is ours alone. `proto/*.proto` is the source; everything here is generated from it.

pub mod codec;

/// `greptime.v1.meta`: the heartbeat service, open to any client generated from the public schema.
#[allow(missing_docs, clippy::all)]
pub mod greptime {
    /// Version 1.
    pub mod v1 {
        /// The meta package.
        pub mod meta {
            tonic::include_proto!("greptime.v1.meta");
        }
    }
}

/// `metasrv.v1`: instructions, stored records, the admin service, the reference datanode's service.
#[allow(missing_docs, clippy::all)]
pub mod metasrv {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("metasrv.v1");
    }
}

pub use greptime::v1::meta;
pub use metasrv::v1 as admin;

/// The compiled descriptor of all files, for reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// The one version of the public protocol that exists.
pub const PROTOCOL_VERSION: u64 = 1;

/// Error codes in [`meta::Error`]. 1 and 2 are public, 100 and above are ours.
pub mod code {
    /// There are not enough datanodes to place a region on.
    pub const NOT_ENOUGH_DATANODES: i32 = 1;
    /// This replica does not lead; the header may name the one that does.
    pub const NOT_LEADER: i32 = 2;
    /// A process with this node id and a newer incarnation is known; `known_node_epoch` names it.
    pub const STALE_INCARNATION: i32 = 100;
    /// A newer process with this node id took over while this one had a session.
    pub const SUPERSEDED: i32 = 101;
    /// The sender belongs to another metasrv installation.
    pub const OTHER_INSTALLATION: i32 = 102;
    /// In answers to probes: a part of this replica stands still, so it does not do its work.
    pub const STANDS_STILL: i32 = 103;
}
