//! Goal: what is stored comes back as it was, and nothing that is stored makes a leader guess or panic.
//! Method: random values there and back; records with one field that makes no sense; random records.

use proptest::prelude::*;

use super::*;
use crate::record::{decode, encode};
use crate::store::Record;

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Preparing),
        Just(State::Flushing),
        Just(State::Downgrading),
        any::<Option<u64>>().prop_map(|position| State::CatchingUp { position }),
        Just(State::Upgrading),
        Just(State::Closing),
        (any_why(), any::<bool>()).prop_map(|(why, owes_epoch)| State::Undoing { why, owes_epoch }),
    ]
}

fn any_why() -> impl Strategy<Value = Why> {
    prop_oneof![
        ".{0,20}".prop_map(Why::Cancelled),
        Just(Why::RegionDropped),
        Just(Why::RouteChanged),
        Just(Why::SourceLost),
        Just(Why::SourceRestarted),
        Just(Why::SourceSlow),
        Just(Why::SourceSilent),
        Just(Why::TargetLost),
        Just(Why::TargetRestarted),
        Just(Why::TargetLeft),
        Just(Why::TargetSlow),
        Just(Why::TargetBehind),
        Just(Why::TargetFailed),
    ]
}

fn any_process() -> impl Strategy<Value = Incarnation> {
    (any::<u64>(), 1..u64::MAX).prop_map(|(epoch, nonce)| Incarnation { epoch, nonce })
}

prop_compose! {
    fn any_migration()(
        ids in (1..u64::MAX, 1..u64::MAX, 1_u64..1_000, 1..u64::MAX),
        further in 1_u64..1_000,
        processes in (any_process(), any_process(), any::<bool>()),
        state in any_state(),
        reason in ".{0,40}",
        cluster in any::<u64>(),
        started_ms in any::<u64>(),
        drain in any::<Option<u64>>(),
    ) -> StoredMigration {
        let (id, region, from, epoch) = ids;
        let (leader, candidate, is_known) = processes;
        let candidate = match state {
            State::Preparing => None,
            State::Undoing { .. } => is_known.then_some(candidate),
            _ => Some(candidate),
        };
        StoredMigration {
            cluster: ClusterId(cluster),
            started_ms,
            drain: drain.filter(|id| *id != 0).map(ProcedureId),
            migration: Migration {
                id: ProcedureId(id),
                region: RegionId(region),
                from: NodeId(from),
                leader,
                to: NodeId(from + further),
                candidate,
                epoch: Epoch(epoch),
                state,
                reason,
            },
        }
    }
}

prop_compose! {
    fn any_drain()(
        id in 1..u64::MAX,
        node in 1..u64::MAX,
        started_ms in any::<u64>(),
        total in any::<u32>(),
        reason in ".{0,40}",
        cluster in any::<u64>(),
    ) -> StoredDrain {
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        let drain = Drain { id: ProcedureId(id), node: NodeId(node), started_ms, reason, total };
        StoredDrain { cluster: ClusterId(cluster), drain }
    }
}

fn example() -> MigrationRecord {
    MigrationRecord {
        region_id: 7,
        from_node: 1,
        from_epoch: 5,
        from_nonce: 6,
        to_node: 2,
        to_epoch: 8,
        to_nonce: 9,
        region_epoch: 3,
        state: "flushing".to_owned(),
        ..MigrationRecord::default()
    }
}

fn read(of: MigrationRecord) -> Result<Stored, Senseless> {
    Stored::from_record(&ProcedureRecord {
        id: 4,
        kind: Some(Kind::Migration(of)),
        ..ProcedureRecord::default()
    })
}

proptest! {
    #[test]
    fn a_migration_comes_back_from_the_store_as_it_was(stored in any_migration(), term in any::<u64>()) {
        let stored = Stored::Migration(stored);
        let record = Record {
            key: "/m/v1/procedure/x".to_owned(),
            value: encode(&stored.to_record(term)),
            create_revision: 1,
            mod_revision: 1,
        };
        prop_assert_eq!(Stored::from_record(&decode(&record).unwrap()), Ok(stored));
    }

    #[test]
    fn a_drain_comes_back_from_the_store_as_it_was(stored in any_drain(), term in any::<u64>()) {
        let stored = Stored::Drain(stored);
        prop_assert_eq!(Stored::from_record(&stored.to_record(term)), Ok(stored));
    }

    /// Whatever is understood is written back as it was read: nothing is guessed.
    #[test]
    fn a_random_record_is_an_error_or_comes_back_as_it_was(
        numbers in proptest::collection::vec(prop_oneof![Just(0_u64), 1..4_u64, Just(u64::MAX)], 10),
        state in prop_oneof!["[a-z_]{0,12}", "flushing", "undoing", "catching_up", "preparing"],
        why in prop_oneof!["[a-z_]{0,12}", "", "cancelled", "target_lost"],
        words in prop_oneof!["", ".{0,9}"],
        position in any::<Option<u64>>(),
        owes_epoch in any::<bool>(),
    ) {
        let of = MigrationRecord {
            region_id: numbers[0],
            from_node: numbers[1],
            from_epoch: numbers[2],
            from_nonce: numbers[3],
            to_node: numbers[4],
            to_epoch: numbers[5],
            to_nonce: numbers[6],
            region_epoch: numbers[7],
            state,
            position,
            why,
            why_words: words,
            owes_epoch,
            reason: String::new(),
            drain_id: numbers[8],
        };
        let record = ProcedureRecord {
            id: numbers[9],
            cluster_id: 1,
            term: 2,
            started_at_ms: 3,
            kind: Some(Kind::Migration(of)),
        };
        if let Ok(stored) = Stored::from_record(&record) {
            prop_assert_eq!(stored.to_record(2), record);
        }
    }
}

#[test]
fn a_field_that_makes_no_sense_is_named() {
    assert!(read(example()).is_ok());
    let refused = |change: fn(&mut MigrationRecord)| {
        let mut of = example();
        change(&mut of);
        read(of).unwrap_err().field
    };
    assert_eq!(refused(|of| of.state = "flying".to_owned()), "state");
    assert_eq!(refused(|of| of.region_id = 0), "region_id");
    assert_eq!(refused(|of| of.to_node = 1), "to_node");
    assert_eq!(refused(|of| of.region_epoch = u64::MAX), "region_epoch");
    assert_eq!(refused(|of| (of.to_epoch, of.to_nonce) = (0, 0)), "to_nonce");
    assert_eq!(refused(|of| of.state = "preparing".to_owned()), "to_nonce");
    assert_eq!(refused(|of| of.position = Some(1)), "position");
    assert_eq!(refused(|of| of.owes_epoch = true), "why");
    assert_eq!(refused(|of| of.state = "undoing".to_owned()), "why");
    let nothing = ProcedureRecord { id: 4, ..ProcedureRecord::default() };
    assert_eq!(Stored::from_record(&nothing).unwrap_err().field, "kind");
    let of = Held { value: nothing, revision: 1 };
    let error = understand(&Keys::new("/m"), &of).unwrap_err();
    assert!(error.key.ends_with("/procedure/00000000000000000004") && error.why.contains("kind"), "{error}");
}
