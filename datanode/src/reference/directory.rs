//! The data directory: one process at a time, and one installation for ever.
//!
//! | name | what |
//! | --- | --- |
//! | `LOCK` | held by the running process; the kernel frees it at its end, whatever the end was |
//! | `identity` | random, written once: sixteen hexadecimal digits |
//! | `installation` | identity of the metasrv installation that this node belongs to, sixteen hexadecimal digits |
//! | `regions/` | the regions, where no shared directory is named |
//!
//! The lock is evidence: a process that holds it proves that every earlier process of this directory has ended. That
//! takes a kernel that keeps the lock itself, so it is claimed on file systems only that are known to be local.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use datanode::DirectoryLock;
use rustix::fs::{FlockOperation, flock, fstatfs};

/// File systems whose locks the kernel of this machine keeps: ext, xfs, btrfs, tmpfs, overlayfs, zfs, f2fs.
const LOCAL: [u64; 7] =
    [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630, 0x2FC1_2FC1, 0xF2F5_2010];

/// Names the running kernel: another one after each start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    lock: File,
    identity: u64,
}

impl DataDirectory {
    /// Takes the directory; makes it where it is missing.
    ///
    /// # Errors
    /// It cannot be used, or another process uses it.
    pub fn open(path: &Path) -> Result<DataDirectory> {
        let named = |error: Error| Error::new(error.kind(), format!("{} (--data): {error}", path.display()));
        std::fs::create_dir_all(path.join("regions")).map_err(named)?;
        // Never unlinked: a lock on a file that somebody replaced excludes nobody.
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("LOCK"))
            .map_err(named)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            named(Error::new(ErrorKind::ResourceBusy, "another datanode uses this directory"))
        })?;
        let mut directory = DataDirectory { path: path.to_owned(), lock, identity: 0 };
        directory.identity = match number(path, "identity")? {
            0 => {
                let identity = rand::random::<u64>().max(1);
                directory.write("identity", identity)?;
                identity
            }
            identity => identity,
        };
        Ok(directory)
    }

    /// Identity of this directory: random, written once.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// What proves to a later holder of this lock that this process has ended; `None` where that cannot be relied upon.
    pub fn evidence(&self) -> Option<DirectoryLock> {
        let kind = u64::try_from(fstatfs(&self.lock).ok()?.f_type).ok()?;
        if !LOCAL.contains(&kind) {
            return None;
        }
        let file = self.lock.metadata().ok()?;
        let boot_id = std::fs::read_to_string(BOOT_ID).ok()?.trim().to_owned();
        let lock =
            DirectoryLock { directory_id: self.identity, device: file.dev(), inode: file.ino(), boot_id };
        (!lock.boot_id.is_empty()).then_some(lock)
    }

    /// Where the regions' files are.
    pub fn regions(&self) -> PathBuf {
        self.path.join("regions")
    }

    /// The installation that this node belongs to; 0 where it was not told yet.
    ///
    /// # Errors
    /// The file cannot be read, or is no installation.
    pub fn installation(&self) -> Result<u64> {
        installation_in(&self.path)
    }

    /// Writes down the installation that this node belongs to.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remember(&self, installation: u64) -> Result<()> {
        if self.installation()? == installation {
            return Ok(());
        }
        self.write("installation", installation)
    }

    /// Writes a number down. A crash leaves the old file or the new one, and none that is half written.
    fn write(&self, name: &str, number: u64) -> Result<()> {
        let next = self.path.join(format!("{name}.new"));
        let mut file = File::create(&next)?;
        writeln!(file, "{number:016x}")?;
        file.sync_all()?;
        std::fs::rename(&next, self.path.join(name))?;
        File::open(&self.path)?.sync_all()
    }
}

/// The installation that the node of this directory belongs to, also while its process runs; 0: it was not told yet.
///
/// # Errors
/// The file cannot be read, or is no installation.
pub fn installation_in(directory: &Path) -> Result<u64> {
    number(directory, "installation")
}

/// A number that was written down; 0: none was.
fn number(directory: &Path, name: &str) -> Result<u64> {
    let path = directory.join(name);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(Error::new(error.kind(), format!("{}: {error}", path.display()))),
    };
    let parsed = u64::from_str_radix(text.trim(), 16).ok().filter(|_| text.trim().len() == 16);
    parsed.filter(|number| *number != 0).ok_or_else(|| {
        let why = format!("{}: {:?} is not sixteen hexadecimal digits", path.display(), text.trim());
        Error::new(ErrorKind::InvalidData, why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_for_one_process_at_a_time_and_remembers_its_installation() {
        let place = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(place.path()).unwrap();
        assert_eq!(DataDirectory::open(place.path()).unwrap_err().kind(), ErrorKind::ResourceBusy);
        assert_eq!(first.installation().unwrap(), 0);
        first.remember(0xfeed).unwrap();
        drop(first);
        let second = DataDirectory::open(place.path()).unwrap();
        assert_eq!(second.installation().unwrap(), 0xfeed);
        std::fs::write(place.path().join("installation"), "nonsense").unwrap();
        assert_eq!(second.installation().unwrap_err().kind(), ErrorKind::InvalidData);
    }
    /// Goal: the evidence of two processes that held the same lock is the same, and of another directory it is not.
    /// Method: a directory that is opened twice, one after the other, and a second one.
    #[test]
    fn the_lock_is_evidence_for_its_directory() {
        let (place, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = DataDirectory::open(place.path()).unwrap().evidence();
        let second = DataDirectory::open(place.path()).unwrap().evidence();
        let other = DataDirectory::open(other.path()).unwrap().evidence();
        assert_eq!(first, second);
        if let (Some(first), Some(other)) = (first, other) {
            assert_ne!(first.directory_id, other.directory_id);
            assert_ne!(first.inode, other.inode);
            assert_eq!(first.boot_id.len(), 36, "{}", first.boot_id);
        }
    }
}
