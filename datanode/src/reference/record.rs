//! What a region's files are made of: frames, each of which says how long it is and carries a checksum.
//!
//! ```text
//! length u32 | checksum u32 | payload          all numbers little-endian
//! payload:  1 | region u64 | epoch u64 | node u64 | directory u64             the header, first in a file
//!           2 | previous epoch u64 | counted bytes u64 | position u64         the seal, second
//!           3 | epoch u64 | node u64 | position u64 | key length u32 | key | value
//! ```
//!
//! A frame that was torn by the end of its process, or of the machine, fails its length or its checksum; what follows it
//! is not looked at. Every put names its epoch and its node, so that a reader of the bare files can tell who wrote what.

use datanode::{Epoch, RegionId};

/// Bytes of a frame before its payload.
const HEAD: usize = 8;

/// Bytes of a payload: the largest pair that the service takes, and room. What claims to be longer is torn.
const LARGEST: usize = 2 << 20;

/// Who writes a file: a node, and the data directory that the kernel lets one process of it use at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The node's id.
    pub node: u64,
    /// Identity of its data directory.
    pub directory: u64,
}

/// The first frame of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The region.
    pub region: RegionId,
    /// The epoch under which the file is written.
    pub epoch: Epoch,
    /// By whom.
    pub owner: Owner,
}

/// The second frame: what of the region was there before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seal {
    /// The file before this one; 0: this is the first.
    pub previous: Epoch,
    /// So many bytes of it belong to the region. What was appended later does not.
    pub counted: u64,
    /// The last position before this file.
    pub position: u64,
}

/// A pair that was put.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// The epoch of the writer.
    pub epoch: Epoch,
    /// The node of the writer.
    pub node: u64,
    /// The number of this put in the region, from 1.
    pub position: u64,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// A payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// First in a file.
    Header(Header),
    /// Second.
    Seal(Seal),
    /// All others.
    Put(Put),
}

impl Record {
    /// The frame that carries it.
    pub fn frame(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut numbers = |kind: u8, numbers: &[u64]| {
            payload.push(kind);
            numbers.iter().for_each(|number| payload.extend(number.to_le_bytes()));
        };
        match self {
            Record::Header(Header { region, epoch, owner }) => {
                numbers(1, &[region.0, epoch.0, owner.node, owner.directory]);
            }
            Record::Seal(Seal { previous, counted, position }) => {
                numbers(2, &[previous.0, *counted, *position])
            }
            Record::Put(put) => {
                numbers(3, &[put.epoch.0, put.node, put.position]);
                payload.extend(u32::try_from(put.key.len()).unwrap_or(u32::MAX).to_le_bytes());
                payload.extend(&put.key);
                payload.extend(&put.value);
            }
        }
        let mut frame = Vec::with_capacity(HEAD + payload.len());
        frame.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        frame.extend(checksum(&payload).to_le_bytes());
        frame.extend(payload);
        frame
    }

    fn decode(payload: &[u8]) -> Option<Record> {
        let mut rest = Rest(payload);
        let record = match rest.bytes(1)?[0] {
            1 => Record::Header(Header {
                region: RegionId(rest.number()?),
                epoch: Epoch(rest.number()?),
                owner: Owner { node: rest.number()?, directory: rest.number()? },
            }),
            2 => Record::Seal(Seal {
                previous: Epoch(rest.number()?),
                counted: rest.number()?,
                position: rest.number()?,
            }),
            3 => {
                let (epoch, node, position) = (Epoch(rest.number()?), rest.number()?, rest.number()?);
                let length = u32::from_le_bytes(rest.bytes(4)?.try_into().ok()?);
                let key = rest.bytes(usize::try_from(length).ok()?)?.to_vec();
                let value = std::mem::take(&mut rest.0).to_vec();
                Record::Put(Put { epoch, node, position, key, value })
            }
            _ => return None,
        };
        rest.0.is_empty().then_some(record)
    }
}

/// Takes the first frame off the front; `None` where the bytes do not begin with a whole one.
pub fn next(bytes: &mut &[u8]) -> Option<(Record, u64)> {
    let mut rest = Rest(bytes);
    let length = usize::try_from(u32::from_le_bytes(rest.bytes(4)?.try_into().ok()?)).ok()?;
    let expected = u32::from_le_bytes(rest.bytes(4)?.try_into().ok()?);
    if length > LARGEST {
        return None;
    }
    let payload = rest.bytes(length)?;
    let record = Record::decode(payload).filter(|_| checksum(payload) == expected)?;
    *bytes = rest.0;
    Some((record, u64::try_from(HEAD + length).ok()?))
}

/// What is still to be decoded.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }
}

/// CRC-32 with the polynomial of IEEE 802.3, a byte at a time.
fn checksum(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    let step = |sum: u32, byte: &u8| (sum >> 8) ^ TABLE[usize::from((sum as u8) ^ byte)];
    !bytes.iter().fold(u32::MAX, step)
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut sum = index as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 };
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &[u8], value: &[u8]) -> Record {
        Record::Put(Put { epoch: Epoch(3), node: 7, position: 9, key: key.to_vec(), value: value.to_vec() })
    }

    #[test]
    fn the_checksum_is_the_well_known_one() {
        assert_eq!(checksum(b"123456789"), 0xCBF4_3926);
    }

    /// Goal: what was written is read, and nothing that was torn or altered is. Method: every kind of record, cut at
    /// each length and with each byte changed.
    #[test]
    fn whole_frames_are_read_and_torn_or_altered_ones_are_not() {
        let owner = Owner { node: 7, directory: 8 };
        let records = [
            Record::Header(Header { region: RegionId(1), epoch: Epoch(3), owner }),
            Record::Seal(Seal { previous: Epoch(2), counted: 99, position: 8 }),
            put(b"key", b"value"),
            put(b"", b""),
        ];
        let bytes: Vec<u8> = records.iter().flat_map(Record::frame).collect();
        let mut rest = &bytes[..];
        let mut seen = Vec::new();
        while let Some((record, length)) = next(&mut rest) {
            assert_eq!(length, u64::try_from(record.frame().len()).unwrap());
            seen.push(record);
        }
        assert_eq!(seen, records);
        assert!(rest.is_empty());
        for record in &records {
            let frame = record.frame();
            for cut in 0..frame.len() {
                assert_eq!(next(&mut &frame[..cut]), None, "cut at {cut}");
                let mut altered = frame.clone();
                altered[cut] ^= 0x10;
                assert_eq!(next(&mut &altered[..]), None, "altered at {cut}");
            }
        }
        assert_eq!(next(&mut &[0; 64][..]), None, "zeroes that a crash left behind");
    }
}
