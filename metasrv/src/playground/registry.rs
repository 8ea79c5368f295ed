//! Where the playgrounds of this user are found, so that a second terminal can speak to one.
//!
//! ```text
//! DIR                          --dir, METASRV_PLAYGROUND_DIR, or metasrv-playground-UID in the temporary directory
//! ├── playground-PID/          one per playground; goes away with it
//! │   ├── control.sock         it answers here; nobody listens any more if the playground was killed
//! │   └── data/                logs and data
//! └── kept-TIME-PID/           logs and data of a playground with --keep; nobody removes it
//! ```
//!
//! Whoever enters or looks around holds a lock on DIR, and removes what playgrounds that were killed left behind: under
//! the lock, a directory on whose socket nobody listens is stale. Process ids are not compared with anything; they
//! are names.

use std::cmp::Reverse;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::net::{UnixListener, UnixStream};

/// The lock is held for moments only.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to take the lock.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// DIR may be removed by a playground that ends while another one waits for the lock in it.
const ATTEMPTS: usize = 5;
/// What the directory of a playground is called before its process id.
const PREFIX: &str = "playground-";
/// The socket in it.
const SOCKET: &str = "control.sock";
/// A socket's path must fit into the kernel's structure.
const LONGEST_SOCKET_PATH: usize = 107;

/// What becomes of logs and data at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Data {
    /// They go away with the playground.
    Removed,
    /// They stay.
    Kept,
}

/// The directory of all playgrounds.
pub struct Registry {
    dir: PathBuf,
}

/// A playground that runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its process id.
    pub pid: u32,
    /// Where it answers.
    pub socket: PathBuf,
    since: SystemTime,
}

/// The directory of this process's own playground.
pub struct Home {
    registry: Registry,
    own: PathBuf,
    /// Where logs and data are.
    pub data: PathBuf,
    /// Where a second terminal connects. Taken by whoever serves it.
    pub listener: Option<UnixListener>,
}

impl Registry {
    /// The one at `dir`, or the user's own.
    ///
    /// # Errors
    /// The path of the working directory cannot be read.
    pub fn at(dir: Option<&Path>) -> Result<Registry, String> {
        let dir = match dir {
            Some(dir) => std::path::absolute(dir).map_err(|error| format!("{}: {error}", dir.display()))?,
            None => std::env::temp_dir()
                .join(format!("metasrv-playground-{}", rustix::process::getuid().as_raw())),
        };
        Ok(Registry { dir })
    }

    /// Makes the directory of this process's playground and listens there.
    ///
    /// # Errors
    /// A sentence that says which directory cannot be used, and why.
    pub async fn enter(self, data: Data) -> Result<Home, String> {
        let pid = std::process::id();
        let own = self.dir.join(format!("{PREFIX}{pid}"));
        let socket = own.join(SOCKET);
        if socket.as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(format!(
                "{} is too long for the path of a socket; name a shorter directory by --dir",
                socket.display()
            ));
        }
        for _ in 0..ATTEMPTS {
            make_private(&self.dir)?;
            let Some(_lock) = self.lock().await? else { continue };
            self.sweep().await;
            match DirBuilder::new().mode(0o700).create(&own) {
                // The directory went away before the lock was taken.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(format!("{} cannot be made: {error}", own.display())),
                Ok(()) => {}
            }
            let cannot = |error: std::io::Error| format!("{} cannot be used: {error}", own.display());
            let listener = UnixListener::bind(&socket).map_err(cannot)?;
            let data = match data {
                Data::Removed => own.join("data"),
                Data::Kept => {
                    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
                    self.dir.join(format!("kept-{}-{pid}", now.replace(':', "-")))
                }
            };
            DirBuilder::new().mode(0o700).create(&data).map_err(cannot)?;
            return Ok(Home { registry: self, own, data, listener: Some(listener) });
        }
        Err(format!("{} is removed again and again by somebody else", self.dir.display()))
    }

    /// The playgrounds that run, the newest first. Removes what killed ones left behind.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub async fn running(&self) -> Result<Vec<Found>, String> {
        match self.lock().await? {
            Some(_lock) => Ok(self.sweep().await),
            None => Ok(Vec::new()),
        }
    }

    /// Locks the directory itself: a file in it would be one more thing to leave behind. None if there is none.
    async fn lock(&self) -> Result<Option<File>, String> {
        let failed = |error: std::io::Error| format!("{} cannot be used: {error}", self.dir.display());
        let dir = match File::open(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let taking = async {
            loop {
                match dir.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_RETRY).await,
                    Err(TryLockError::Error(error)) => return Err(failed(error)),
                }
            }
        };
        let taken = tokio::time::timeout(LOCK_PATIENCE, taking).await;
        taken.map_err(|_| format!("{} stays locked by another playground", self.dir.display()))??;
        Ok(Some(dir))
    }

    /// Removes stale directories and lists the others. The caller holds the lock.
    async fn sweep(&self) -> Vec<Found> {
        let mut found = Vec::new();
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return found };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let pid =
                name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|pid| pid.parse().ok());
            let Some(pid) = pid else { continue };
            let socket = entry.path().join(SOCKET);
            match std::fs::symlink_metadata(&socket) {
                Ok(metadata) if is_listened_on(&socket).await => {
                    let since = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    found.push(Found { pid, socket, since });
                }
                // What cannot be removed today is tried again by the next one who looks.
                Ok(_) => drop(std::fs::remove_dir_all(entry.path())),
                // Without a socket it is ours only if nothing else is in it.
                Err(_) => drop(std::fs::remove_dir(entry.path())),
            }
        }
        found.sort_by_key(|found: &Found| Reverse((found.since, found.pid)));
        found
    }
}

impl Home {
    /// Removes what is to be removed, and says what could not be.
    pub async fn leave(self) -> Result<(), String> {
        let lock = self.registry.lock().await?;
        let removed = std::fs::remove_dir_all(&self.own);
        // Others may be in there, or what was kept.
        let _ = std::fs::remove_dir(&self.registry.dir);
        drop(lock);
        match removed {
            // Since nobody listens any more, somebody who looked for playgrounds may have removed it.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(format!("{} cannot be removed: {error}", self.own.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Only a refused connection says that nobody listens; a busy playground is alive.
async fn is_listened_on(socket: &Path) -> bool {
    match UnixStream::connect(socket).await {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound),
    }
}

/// Makes a directory that belongs to this user alone. In a shared temporary directory, somebody else may have made
/// one of that name before, to be told what to start.
fn make_private(dir: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{} cannot be used: {error}", dir.display());
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let metadata = match std::fs::symlink_metadata(dir) {
        // Removed at this very moment; the caller tries again.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        read => read.map_err(failed)?,
    };
    let ours = metadata.uid() == rustix::process::getuid().as_raw();
    if !metadata.is_dir() || !ours {
        return Err(format!("{} is not a directory of this user; name another one by --dir", dir.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a running playground is found, and nothing stays of it. Method: one enters and leaves.
    #[tokio::test]
    async fn who_enters_is_found_and_who_leaves_leaves_nothing() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("below").join("playgrounds");
        let looking = Registry::at(Some(&dir)).unwrap();
        assert_eq!(looking.running().await.unwrap(), [], "looking makes no directory");
        assert!(!dir.exists());
        let home = Registry::at(Some(&dir)).unwrap().enter(Data::Removed).await.unwrap();
        let found = looking.running().await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pid, std::process::id());
        std::fs::write(home.data.join("m1.log"), "text").unwrap();
        home.leave().await.unwrap();
        assert!(!dir.exists());
    }

    /// Goal: what is kept stays. Method: as above, with something to keep.
    #[tokio::test]
    async fn what_is_kept_stays_and_is_not_taken_for_a_playground() {
        let dir = tempfile::tempdir().unwrap();
        let home = Registry::at(Some(dir.path())).unwrap().enter(Data::Kept).await.unwrap();
        let data = home.data.clone();
        home.leave().await.unwrap();
        assert!(data.is_dir());
        assert_eq!(Registry::at(Some(dir.path())).unwrap().running().await.unwrap(), []);
        assert!(data.is_dir());
    }

    /// Goal: what killed playgrounds left is removed, and nothing else. Method: a socket without a listener, an empty
    /// directory, and things of other people.
    #[tokio::test]
    async fn only_what_killed_playgrounds_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["playground-1/data", "playground-2", "playground-3/theirs", "playground-x", "7"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        drop(UnixListener::bind(dir.path().join("playground-1").join(SOCKET)).unwrap());
        assert_eq!(Registry::at(Some(dir.path())).unwrap().running().await.unwrap(), []);
        let mut left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["7", "playground-3", "playground-x"]);
    }

    /// Goal: a path that no socket can have is reported as such. Method: a long one.
    #[tokio::test]
    async fn a_path_too_long_for_a_socket_is_a_clear_error() {
        let dir = std::env::temp_dir().join("x".repeat(100));
        let error = Registry::at(Some(&dir)).unwrap().enter(Data::Removed).await.err().unwrap();
        assert!(error.contains("--dir"), "{error}");
        assert!(!dir.exists());
    }
}
