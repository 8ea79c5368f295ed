//! `datanode inspect DIR`: what the regions' own files say about who wrote what, a second witness beside the leases.
//!
//! It reads the shared directory and nothing else, also while datanodes write to it. One line of JSON for each segment,
//! ordered by region and epoch: `region`, `epoch`, `node`, `sealed`, `previous` (the segment that it follows), `puts`,
//! `counted` (those that are the region; `null`: the segment is in nobody's chain), and the positions `first` and `last` of
//! its puts. It fails where a put is not of its segment's epoch and node, where positions are missing or stand twice, and
//! where the chain does not go from older epochs to newer ones.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use datanode::{Epoch, RegionId};

use super::segment::{Part, Segments};

/// What `datanode inspect` is told.
#[derive(Args, Debug)]
pub struct InspectOptions {
    /// The shared directory
    #[arg(value_name = "DIR")]
    shared: PathBuf,
}

/// Describes every segment below the directory in `out`.
///
/// # Errors
/// The files cannot be read, or contradict themselves; what was described before that is in `out`.
pub fn inspect(options: &InspectOptions, out: &mut impl Write) -> Result<()> {
    let named = |error: Error| Error::new(error.kind(), format!("{}: {error}", options.shared.display()));
    let mut regions = Vec::new();
    for entry in std::fs::read_dir(&options.shared).map_err(named)? {
        let name = entry?.file_name();
        regions.extend(name.to_str().and_then(|name| name.parse().ok()).map(RegionId));
    }
    regions.sort_unstable();
    regions.into_iter().try_for_each(|region| inspect_region(&options.shared, region, out))
}

fn inspect_region(shared: &Path, region: RegionId, out: &mut impl Write) -> Result<()> {
    let segments = Segments::open(shared, region)?;
    let parts = segments.parts(Epoch(u64::MAX))?;
    let mut counted: BTreeMap<Epoch, Part> = parts.iter().map(|part| (part.epoch, *part)).collect();
    let mut position = 0;
    for epoch in segments.epochs()?.into_iter().rev() {
        let beginning = segments.beginning(epoch)?;
        let node = beginning.header.owner.node;
        let Some((seal, begin)) = beginning.seal else {
            writeln!(
                out,
                "{{\"region\":{region},\"epoch\":{epoch},\"node\":{node},\"sealed\":false,\"previous\":null,\
                 \"puts\":0,\"counted\":null,\"first\":null,\"last\":null}}"
            )?;
            continue;
        };
        let whole = Part { epoch, begin, end: None, position: seal.position };
        let puts = segments.puts(&whole, begin, seal.position)?.puts;
        if let Some(foreign) = puts.iter().find(|put| put.node != node) {
            let why =
                format!("region {region}, epoch {epoch} of node {node}: a put of node {}", foreign.node);
            return Err(Error::new(ErrorKind::InvalidData, why));
        }
        let of_region = match counted.remove(&epoch) {
            None => None,
            Some(part) if part.position != position => {
                let why = format!(
                    "region {region}: epoch {epoch} begins after put {}, not {position}",
                    part.position
                );
                return Err(Error::new(ErrorKind::InvalidData, why));
            }
            Some(part) => {
                let found = segments.puts(&part, begin, position)?.puts.len();
                position += u64::try_from(found).unwrap_or(u64::MAX);
                Some(found)
            }
        };
        let number = |number: Option<u64>| number.map_or_else(|| "null".to_owned(), |n| n.to_string());
        writeln!(
            out,
            "{{\"region\":{region},\"epoch\":{epoch},\"node\":{node},\"sealed\":true,\"previous\":{},\
             \"puts\":{},\"counted\":{},\"first\":{},\"last\":{}}}",
            seal.previous,
            puts.len(),
            of_region.map_or_else(|| "null".to_owned(), |found| found.to_string()),
            number(puts.first().map(|put| put.position)),
            number(puts.last().map(|put| put.position)),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::record::{Header, Owner, Put, Record, Seal};

    /// A segment with these puts, each by its node and position.
    fn segment(segments: &Segments, epoch: u64, seal: Option<Seal>, puts: &[(u64, u64)]) -> u64 {
        let owner = Owner { node: epoch, directory: epoch };
        segments.claim(Header { region: RegionId(1), epoch: Epoch(epoch), owner }).unwrap();
        let Some(seal) = seal else { return 0 };
        let (mut file, mut end) = segments.seal(Epoch(epoch), seal).unwrap();
        for (node, position) in puts {
            let (key, value) = (b"k".to_vec(), b"v".to_vec());
            let put = Put { epoch: Epoch(epoch), node: *node, position: *position, key, value };
            let frame = Record::Put(put).frame();
            end += u64::try_from(frame.len()).unwrap();
            file.write_all(&frame).unwrap();
        }
        end
    }

    fn said(place: &Path) -> (String, Result<()>) {
        let mut out = Vec::new();
        let result = inspect(&InspectOptions { shared: place.to_owned() }, &mut out);
        (String::from_utf8(out).unwrap(), result)
    }

    /// Goal: the witness sees what was counted, what was not, and what contradicts itself. Method: segments of a region
    /// that was taken over twice, one claim that came to nothing; then a put of another node.
    #[test]
    fn segments_are_described_and_contradictions_found() {
        let place = tempfile::tempdir().unwrap();
        let segments = Segments::open(place.path(), RegionId(1)).unwrap();
        let seal = |previous, counted, position| Seal { previous: Epoch(previous), counted, position };
        let counted = segment(&segments, 1, Some(seal(0, 0, 0)), &[(1, 1), (1, 2)]);
        let mut late = segments.writable(Epoch(1), counted).unwrap();
        let (key, value) = (b"k".to_vec(), b"late".to_vec());
        let put = Put { epoch: Epoch(1), node: 1, position: 3, key, value };
        late.write_all(&Record::Put(put).frame()).unwrap();
        segment(&segments, 2, None, &[]);
        segment(&segments, 3, Some(seal(1, counted, 2)), &[(3, 3)]);
        let (text, result) = said(place.path());
        result.unwrap();
        let lines: Vec<_> = text.lines().collect();
        let expected = [
            r#"{"region":1,"epoch":1,"node":1,"sealed":true,"previous":0,"puts":3,"counted":2,"first":1,"last":3}"#,
            r#"{"region":1,"epoch":2,"node":2,"sealed":false,"previous":null,"puts":0,"counted":null,"first":null,"last":null}"#,
            r#"{"region":1,"epoch":3,"node":3,"sealed":true,"previous":1,"puts":1,"counted":1,"first":3,"last":3}"#,
        ];
        assert_eq!(lines, expected);

        segment(&segments, 4, Some(seal(1, counted, 2)), &[(3, 3)]);
        let error = said(place.path()).1.unwrap_err().to_string();
        assert!(error.contains("epoch 4 of node 4: a put of node 3"), "{error}");
    }
}
