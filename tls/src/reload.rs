//! Settings of TLS that are made of files, and made anew when the files change.
//!
//! Whether they changed is looked at with each connection that begins: three questions to the file system, beside a handshake.
//! Files that cannot be used, or do not fit one another yet because the second one is still to be written, change
//! nothing: what was in use stays in use, and the log says so once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::files::{Material, Stamps, TlsError, TlsFiles};

type Make<T> = Box<dyn Fn(Material) -> Result<T, TlsError> + Send + Sync>;

/// See the module.
pub(crate) struct Reloading<T> {
    files: TlsFiles,
    make: Make<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    current: Arc<T>,
    ends: Option<SystemTime>,
    /// Of the files as they were looked at last, usable or not.
    stamps: Stamps,
}

impl<T> Reloading<T> {
    /// Reads the files for the first time.
    pub(crate) fn new(
        files: TlsFiles,
        make: impl Fn(Material) -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Reloading<T>, TlsError> {
        let stamps = files.stamps();
        let material = files.load()?;
        let ends = material.ends;
        let current = Arc::new(make(material)?);
        Ok(Reloading { files, make: Box::new(make), state: Mutex::new(State { current, ends, stamps }) })
    }

    /// What holds now, and until when one's own certificate is valid.
    pub(crate) fn current(&self) -> (Arc<T>, Option<SystemTime>) {
        // Nothing in here panics between two assignments.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps();
        if stamps != state.stamps {
            state.stamps = stamps;
            let read = self.files.load().and_then(|material| {
                let ends = material.ends;
                Ok(((self.make)(material)?, ends))
            });
            match read {
                Ok((made, ends)) => {
                    state.current = Arc::new(made);
                    state.ends = ends;
                    tracing::info!(ca = %self.files.ca.display(), "new certificates are in use");
                }
                Err(error) => {
                    tracing::warn!(%error, "certificates have changed and cannot be used; the former ones stay in use");
                }
            }
        }
        (Arc::clone(&state.current), state.ends)
    }
}
