//! A witness for tests: every acknowledged write, with the time that it took, in a file (`--write-intervals FILE`).
//!
//! One line of JSON for each put: node, process id, region, epoch, and two instants in nanoseconds since the machine was
//! started: `from`, after the right to write was found, and `until`, just before the acknowledgement. All processes of a
//! machine share that clock. Between two writes of one epoch nobody else may write either, so a checker may join the lines
//! of one process and one epoch to one interval: those of different processes must not overlap for a region.

use std::fs::{File, OpenOptions};
use std::io::{Result, Write as _};
use std::path::Path;

use datanode::{BootTime, Epoch, RegionId};

/// The file. Lines of several processes may go into one.
#[derive(Debug)]
pub struct WriteIntervals {
    file: File,
    node: u64,
}

impl WriteIntervals {
    /// Appends to this file, in the name of this node.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, node: u64) -> Result<WriteIntervals> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(WriteIntervals { file, node })
    }

    /// Notes one write. It has to be there before the write is acknowledged: the process may end in between.
    ///
    /// # Errors
    /// It is not noted.
    pub fn note(&self, region: RegionId, epoch: Epoch, from: BootTime, until: BootTime) -> Result<()> {
        let (node, process, from, until) = (self.node, std::process::id(), from.as_nanos(), until.as_nanos());
        let line = format!(
            "{{\"node\":{node},\"process\":{process},\"region\":{region},\"epoch\":{epoch},\"from\":{from},\
             \"until\":{until}}}\n"
        );
        // One call: lines of several threads and processes do not mix.
        (&self.file).write_all(line.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_write_is_a_line_and_a_later_process_appends() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("intervals");
        for node in [1, 2] {
            let intervals = WriteIntervals::open(&path, node).unwrap();
            intervals
                .note(RegionId(7), Epoch(3), BootTime::from_nanos(10), BootTime::from_nanos(20))
                .unwrap();
        }
        let process = std::process::id();
        let line = |node| {
            format!(
                "{{\"node\":{node},\"process\":{process},\"region\":7,\"epoch\":3,\"from\":10,\"until\":20}}\n"
            )
        };
        assert_eq!(std::fs::read_to_string(&path).unwrap(), [line(1), line(2)].concat());
    }
}
