//! Stored records: one byte of format version, then protobuf.

use metasrv_core::id::Term;
use metasrv_core::stats::Batch;
use metasrv_proto::admin::{NodeStat, StatsRecord, StoredRegionStat};
use prost::Message;

use crate::store::Record;

/// The one format there is.
const FORMAT: u8 = 1;

/// Bytes of one record of stats; beyond it regions are left out, of the oldest heartbeats first.
const STATS_BYTES: usize = 512 * 1024;

/// A stored record that cannot be understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the record under {key:?} cannot be understood: {why}")]
pub struct RecordError {
    /// Where it is.
    pub key: String,
    /// Why not.
    pub why: String,
}

/// The stored bytes of a record.
pub fn encode<M: Message>(message: &M) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.encoded_len().saturating_add(1));
    bytes.push(FORMAT);
    bytes.extend(message.encode_to_vec());
    bytes
}

/// The record in stored bytes.
///
/// # Errors
/// [`RecordError`] for bytes of a newer format, and for garbage: never a guess.
pub fn decode<M: Message + Default>(stored: &Record) -> Result<M, RecordError> {
    let error = |why: String| RecordError { key: stored.key.clone(), why };
    match stored.value.split_first() {
        None => Err(error("it is empty".to_owned())),
        Some((&FORMAT, message)) => M::decode(message).map_err(|garbage| error(garbage.to_string())),
        Some((format, _)) => Err(error(format!("it has format {format}; this version knows {FORMAT}"))),
    }
}

/// The stored bytes of a batch of stats, within its limit.
pub fn encode_stats(batch: &Batch, term: Term) -> Vec<u8> {
    let mut record = StatsRecord {
        node_epoch: batch.node_epoch,
        term: term.0,
        stats: batch
            .stats
            .iter()
            .map(|stat| NodeStat {
                timestamp_ms: stat.timestamp_ms,
                region_count: u64::try_from(stat.region_count()).unwrap_or(u64::MAX),
                rcus: stat.rcus,
                wcus: stat.wcus,
                approximate_bytes: stat.approximate_bytes,
                regions: stat
                    .regions
                    .iter()
                    .map(|region| StoredRegionStat {
                        region_id: region.region.0,
                        rcus: region.rcus,
                        wcus: region.wcus,
                        approximate_bytes: region.approximate_bytes,
                        engine: region.engine.clone(),
                        epoch: region.epoch.0,
                        role: region.role,
                    })
                    .collect(),
                regions_omitted: u64::try_from(stat.omitted).unwrap_or(u64::MAX),
            })
            .collect(),
    };
    let mut size = record.encoded_len();
    for stat in &mut record.stats {
        if size <= STATS_BYTES {
            break;
        }
        let before = stat.encoded_len();
        stat.regions_omitted = stat.region_count;
        stat.regions.clear();
        size = size.saturating_sub(before).saturating_add(stat.encoded_len());
    }
    encode(&record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use metasrv_proto::admin::{
        CandidateRecord, CounterRecord, InstallationRecord, NodeLeaseRecord, NodeRecord, RouteRecord,
        SpareRecord, TermRecord,
    };
    use proptest::prelude::*;

    fn stored(value: Vec<u8>) -> Record {
        Record { key: "/m/v1/x".to_owned(), value, create_revision: 1, mod_revision: 1 }
    }

    #[test]
    fn records_are_read_back_as_they_were_written() {
        let route = RouteRecord {
            cluster_id: 1,
            node_id: 2,
            epoch: 3,
            term: 4,
            created_at_ms: 5,
            reason: "x".to_owned(),
            group: "g".to_owned(),
        };
        assert_eq!(decode::<RouteRecord>(&stored(encode(&route))), Ok(route));
    }

    #[test]
    fn a_newer_format_and_nothing_at_all_are_errors_that_name_the_key() {
        let newer = decode::<CounterRecord>(&stored(vec![2, 8, 1])).unwrap_err();
        assert!(newer.to_string().contains("/m/v1/x") && newer.why.contains("format 2"));
        assert!(decode::<CounterRecord>(&stored(vec![])).is_err());
    }

    #[test]
    fn stats_beyond_the_limit_lose_the_regions_of_the_oldest_heartbeats() {
        let region = metasrv_core::stats::RegionStat { engine: "e".repeat(100), ..Default::default() };
        let stat =
            metasrv_core::stats::NodeStat { regions: vec![region; 3_000], rcus: 7, ..Default::default() };
        let bytes = encode_stats(&Batch { node_epoch: 1, stats: vec![stat; 3] }, Term(2));
        assert!(bytes.len() <= STATS_BYTES + 1);
        let record: StatsRecord = decode(&stored(bytes)).unwrap();
        assert_eq!(record.stats.len(), 3);
        assert_eq!(record.stats[0].regions_omitted, 3_000);
        assert_eq!(record.stats[0].rcus, 7, "the sums stay");
        assert_eq!(record.stats[2].regions.len(), 3_000, "the newest keeps its regions");
    }

    proptest! {
        /// No panic is reachable from stored bytes.
        #[test]
        fn garbage_is_an_error_and_no_panic(value in proptest::collection::vec(any::<u8>(), 0..200), format in 0_u8..3) {
            for value in [value.clone(), [vec![format], value].concat()] {
                let record = stored(value);
                let _ = decode::<CandidateRecord>(&record);
                let _ = decode::<CounterRecord>(&record);
                let _ = decode::<InstallationRecord>(&record);
                let _ = decode::<NodeLeaseRecord>(&record);
                let _ = decode::<NodeRecord>(&record);
                let _ = decode::<RouteRecord>(&record);
                let _ = decode::<SpareRecord>(&record);
                let _ = decode::<StatsRecord>(&record);
                let _ = decode::<TermRecord>(&record);
            }
        }
    }
}
