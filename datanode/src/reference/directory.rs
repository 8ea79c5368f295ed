//! The data directory: one process at a time, and one installation for ever.
//!
//! | name | what |
//! | --- | --- |
//! | `LOCK` | held by the running process; the kernel frees it at its end, whatever the end was |
//! | `installation` | identity of the metasrv installation that this node belongs to, sixteen hexadecimal digits |
//! | `regions/ID.redb` | one region |

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
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
        Ok(DataDirectory { path: path.to_owned(), _lock: lock })
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
        let path = self.path.join("installation");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(Error::new(error.kind(), format!("{}: {error}", path.display()))),
        };
        let parsed = u64::from_str_radix(text.trim(), 16).ok().filter(|_| text.trim().len() == 16);
        parsed.filter(|installation| *installation != 0).ok_or_else(|| {
            let why = format!("{}: {:?} is not sixteen hexadecimal digits", path.display(), text.trim());
            Error::new(ErrorKind::InvalidData, why)
        })
    }

    /// Writes down the installation that this node belongs to.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remember(&self, installation: u64) -> Result<()> {
        if self.installation()? == installation {
            return Ok(());
        }
        // A crash leaves the old file or the new one, and none that is half written.
        let next = self.path.join("installation.new");
        let mut file = File::create(&next)?;
        writeln!(file, "{installation:016x}")?;
        file.sync_all()?;
        std::fs::rename(&next, self.path.join("installation"))?;
        File::open(&self.path)?.sync_all()
    }
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
}
