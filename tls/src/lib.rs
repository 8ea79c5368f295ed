//! TLS between metasrv's parts: certificates from files, read again when the files change, and whom a certificate names.
//!
//! | file | what |
//! | --- | --- |
//! | `files.rs` | the files, and what stands in them |
//! | `reload.rs` | settings made of them, made anew when they change |
//! | `server.rs` | the side that accepts |
//! | `client.rs` | the side that connects, also below a gRPC channel |
//! | `identity.rs` | whom a certificate names: a node, a replica, an operator |
//! | `validity.rs` | until when a certificate is valid |
//!
//! TLS 1.3 alone, by rustls with ring. Sessions are never resumed: a session that goes on would be one whose certificate
//! nobody looks at any more.

pub mod client;
mod files;
mod identity;
mod reload;
pub mod server;
mod validity;

pub use client::ClientTls;
pub use files::{Own, TlsError, TlsFiles};
pub use identity::Identity;
pub use server::{Clients, ServerTls};

use std::sync::Arc;

use tokio_rustls::rustls::crypto::CryptoProvider;

/// What signs and encrypts. Named at each use: a process-wide default would be for whoever comes first to choose.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(tokio_rustls::rustls::crypto::ring::default_provider())
}
