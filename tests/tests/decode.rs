//! Bytes from the network: whatever they are, decoding them yields a message or an error, never a panic.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use metasrv_proto::admin::{
    CandidateRecord, CounterRecord, CreateRegionsRequest, InstallationRecord, Instruction, InstructionReply,
    NodeLeaseRecord, NodeRecord, PutRequest, RouteRecord, ScanRequest, StatsRecord, TermRecord,
};
use metasrv_proto::meta::{AskLeaderRequest, AskLeaderResponse, HeartbeatRequest, HeartbeatResponse};
use metasrv_tests::node::Identity;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

/// Decodes and, where that worked, encodes and decodes again: what was understood once is understood the same again.
fn decode<M: Message + Default + PartialEq>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(message) = M::decode(bytes) {
        let again = M::decode(message.encode_to_vec().as_slice());
        let again = again.map_err(|error| TestCaseError::fail(format!("our own encoding: {error}")))?;
        prop_assert_eq!(message.encode_to_vec(), again.encode_to_vec());
    }
    Ok(())
}

fn decode_as_everything(bytes: &[u8]) -> Result<(), TestCaseError> {
    decode::<HeartbeatRequest>(bytes)?;
    decode::<HeartbeatResponse>(bytes)?;
    decode::<AskLeaderRequest>(bytes)?;
    decode::<AskLeaderResponse>(bytes)?;
    decode::<Instruction>(bytes)?;
    decode::<InstructionReply>(bytes)?;
    decode::<CreateRegionsRequest>(bytes)?;
    decode::<PutRequest>(bytes)?;
    decode::<ScanRequest>(bytes)?;
    decode::<CandidateRecord>(bytes)?;
    decode::<TermRecord>(bytes)?;
    decode::<InstallationRecord>(bytes)?;
    decode::<NodeRecord>(bytes)?;
    decode::<NodeLeaseRecord>(bytes)?;
    decode::<StatsRecord>(bytes)?;
    decode::<RouteRecord>(bytes)?;
    decode::<CounterRecord>(bytes)
}

/// One change to an encoded message.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 1..=255u8).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        at().prop_map(Damage::Cut),
        (at(), vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), at()).prop_map(|(from, to)| Damage::Repeat(from, to)),
    ]
}

fn apply(damage: Damage, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match damage {
        Damage::Flip(at, bits) => bytes[at.index(length)] ^= bits,
        Damage::Cut(at) => bytes.truncate(at.index(length)),
        Damage::Insert(at, inserted) => {
            let at = at.index(length);
            bytes.splice(at..at, inserted);
        }
        Damage::Repeat(from, to) => {
            let (from, to) = (from.index(length), to.index(length));
            let repeated = bytes[from.min(to)..from.max(to)].to_vec();
            bytes.extend(repeated);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Goal: noise does not hurt. Method: random bytes, decoded as every message there is.
    #[test]
    fn noise_never_panics_a_decoder(bytes in vec(any::<u8>(), 0..512)) {
        decode_as_everything(&bytes)?;
    }

    /// Goal: nearly right messages do not hurt; they reach further into a decoder than noise does.
    /// Method: an encoded heartbeat with a few bytes flipped, cut, inserted or repeated.
    #[test]
    fn a_damaged_heartbeat_never_panics_a_decoder(
        regions in prop::collection::btree_map(any::<u64>(), any::<u64>(), 0..20),
        damages in vec(damage(), 1..6),
    ) {
        let mut bytes = Identity::datanode(1).heartbeat(&regions).encode_to_vec();
        for damage in damages {
            apply(damage, &mut bytes);
        }
        decode_as_everything(&bytes)?;
    }
}
