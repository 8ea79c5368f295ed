//! The files of one region: one append-only segment for each epoch, and the order in which they are the region.
//!
//! Segment `EPOCH.log` is written by one node only, the one that was given this epoch. Every node reads all of them.
//! A segment comes to be in two steps, and this order is what fences an older writer:
//!
//! 1. it is **claimed**: the file appears under its name, whole with its header, by a link that fails where the name
//!    is taken;
//! 2. it is **sealed**: whoever claimed it reads the segment before it to the end of what is whole there, and writes down
//!    how many bytes that was. What is appended to that segment later is not part of the region.
//!
//! A region is what the chain of seals says, from the newest sealed segment back to the first. A segment that was claimed
//! and never sealed is in nobody's chain: its claimant died, and had acknowledged nothing.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read as _, Result, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use datanode::{Epoch, RegionId};

use super::record::{self, Header, Put, Record, Seal};

/// The segments of one region.
#[derive(Clone, Debug)]
pub struct Segments {
    directory: PathBuf,
    region: RegionId,
}

/// The beginning of one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beginning {
    /// Who writes it.
    pub header: Header,
    /// What was before it, and where its puts begin; `None` where it is not sealed.
    pub seal: Option<(Seal, u64)>,
    /// Bytes of the header.
    pub header_bytes: u64,
}

/// A part of a region: puts of one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The segment.
    pub epoch: Epoch,
    /// Where its puts begin.
    pub begin: u64,
    /// Where the next segment says that they end; `None` in the last part.
    pub end: Option<u64>,
    /// The last position before it.
    pub position: u64,
}

/// Puts of one segment that were read.
#[derive(Debug)]
pub struct Puts {
    /// In their order.
    pub puts: Vec<Put>,
    /// Where the last whole one ends.
    pub end: u64,
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}

impl Segments {
    /// The segments of a region below the directory that all nodes share; there may be none yet.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(shared: &Path, region: RegionId) -> Result<Segments> {
        let directory = shared.join(region.to_string());
        if !directory.is_dir() {
            std::fs::create_dir_all(&directory)?;
            File::open(shared)?.sync_all()?;
        }
        Ok(Segments { directory, region })
    }

    /// The epochs that were ever claimed, the newest first. What is claimed before this is called is in it.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn epochs(&self) -> Result<Vec<Epoch>> {
        let mut epochs = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(".log"));
            epochs.extend(digits.and_then(|digits| digits.parse().ok()).map(Epoch));
        }
        epochs.sort_unstable_by(|a, b| b.cmp(a));
        Ok(epochs)
    }

    /// The newest epoch that was ever claimed; 0: none.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn newest(&self) -> Result<Epoch> {
        Ok(self.epochs()?.first().copied().unwrap_or_default())
    }

    /// The first step: the segment is there for everybody to see, or was there before. Returns its header.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn claim(&self, header: Header) -> Result<Header> {
        let path = self.path(header.epoch);
        if !path.exists() {
            let own = format!("{:020}.{:016x}.new", header.epoch.0, header.owner.directory);
            let own = self.directory.join(own);
            let mut file = File::create(&own)?;
            file.write_all(&Record::Header(header).frame())?;
            file.sync_all()?;
            match std::fs::hard_link(&own, &path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                // Taken meanwhile, or ours: its header says which.
                Ok(()) | Err(_) => {}
            }
            std::fs::remove_file(&own)?;
        }
        // Also where it was there: its maker may have ended before this line.
        File::open(&self.directory)?.sync_all()?;
        Ok(self.beginning(header.epoch)?.header)
    }

    /// Brings a segment to the disk, whoever wrote it; 0: there is none.
    ///
    /// # Errors
    /// It is not on the disk.
    pub fn sync(&self, epoch: Epoch) -> Result<()> {
        if epoch == Epoch(0) { Ok(()) } else { File::open(self.path(epoch))?.sync_data() }
    }

    /// The second step, by the claimant only.
    ///
    /// # Errors
    /// The seal is not durable; it may be there.
    pub fn seal(&self, epoch: Epoch, seal: Seal) -> Result<(File, u64)> {
        let header_bytes = self.beginning(epoch)?.header_bytes;
        let mut file = self.writable(epoch, header_bytes)?;
        let frame = Record::Seal(seal).frame();
        file.write_all(&frame)?;
        file.sync_all()?;
        Ok((file, header_bytes + u64::try_from(frame.len()).unwrap_or(u64::MAX)))
    }

    /// The segment, for its own writer, cut to so many bytes: what follows was torn by its predecessor's end.
    ///
    /// # Errors
    /// It cannot be opened or cut.
    pub fn writable(&self, epoch: Epoch, bytes: u64) -> Result<File> {
        let mut file = OpenOptions::new().write(true).open(self.path(epoch))?;
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        Ok(file)
    }

    /// The header of a segment, and its seal.
    ///
    /// # Errors
    /// It cannot be read, or is no segment of this region.
    pub fn beginning(&self, epoch: Epoch) -> Result<Beginning> {
        let path = self.path(epoch);
        // Header and seal have 74 bytes together.
        let mut bytes = Vec::with_capacity(128);
        File::open(&path)?.take(128).read_to_end(&mut bytes)?;
        let mut rest = &bytes[..];
        let Some((Record::Header(header), header_bytes)) = record::next(&mut rest) else {
            return Err(damaged(&path, "its header is no header"));
        };
        if (header.region, header.epoch) != (self.region, epoch) {
            return Err(damaged(&path, "its header speaks of another region or epoch"));
        }
        let seal = match record::next(&mut rest) {
            Some((Record::Seal(seal), length)) => Some((seal, header_bytes + length)),
            _ => None,
        };
        Ok(Beginning { header, seal, header_bytes })
    }

    /// What the region is made of below this epoch, the oldest part first; empty for a new region.
    ///
    /// # Errors
    /// A file cannot be read, or the chain of seals is broken.
    pub fn parts(&self, below: Epoch) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for epoch in self.epochs()?.into_iter().filter(|epoch| *epoch < below) {
            if let Some((seal, begin)) = self.beginning(epoch)?.seal {
                parts.push(Part { epoch, begin, end: None, position: seal.position });
                self.follow(seal, &mut parts)?;
                break;
            }
        }
        parts.reverse();
        Ok(parts)
    }

    /// The parts before a seal, the newest first.
    fn follow(&self, mut seal: Seal, parts: &mut Vec<Part>) -> Result<()> {
        while seal.previous != Epoch(0) {
            let epoch = seal.previous;
            let Some((before, begin)) = self.beginning(epoch)?.seal else {
                return Err(damaged(&self.path(epoch), "a later segment counts it, but it was never sealed"));
            };
            if before.previous >= epoch {
                return Err(damaged(&self.path(epoch), "it follows a segment that is not older"));
            }
            parts.push(Part { epoch, begin, end: Some(seal.counted), position: before.position });
            seal = before;
        }
        Ok(())
    }

    /// The puts of a part, from this byte on.
    ///
    /// # Errors
    /// The segment cannot be read; it is not whole up to where a later one counts it; a put in it is not its own.
    pub fn puts(&self, part: &Part, from: u64, position: u64) -> Result<Puts> {
        let path = self.path(part.epoch);
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(part.end.map_or(u64::MAX, |end| end.saturating_sub(from))).read_to_end(&mut bytes)?;
        let (mut rest, mut end, mut puts) = (&bytes[..], from, Vec::new());
        while let Some((record, length)) = record::next(&mut rest) {
            let expected = position + u64::try_from(puts.len()).unwrap_or(u64::MAX) + 1;
            match record {
                Record::Put(put) if put.epoch == part.epoch && put.position == expected => puts.push(put),
                other => return Err(damaged(&path, &format!("byte {end}: not put {expected}: {other:?}"))),
            }
            end += length;
        }
        if part.end.is_some_and(|counted| counted != end) {
            return Err(damaged(
                &path,
                &format!("it is whole up to byte {end} only: {:?} are counted", part.end),
            ));
        }
        Ok(Puts { puts, end })
    }

    fn path(&self, epoch: Epoch) -> PathBuf {
        self.directory.join(format!("{:020}.log", epoch.0))
    }
}
