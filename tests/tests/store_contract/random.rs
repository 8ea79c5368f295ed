//! Random operations: the model, the embedded store and the real etcd agree on every single outcome.
//!
//! The stores number their revisions from different beginnings. Everything is compared as the distance from the
//! revision at which a run began; 0 stays 0, because it stands for what is absent.

use std::cell::Cell;
use std::sync::Arc;

use metasrv::store::embedded::EmbeddedStore;
use metasrv::store::memory::MemoryStore;
use metasrv::store::{Change, Compare, Outcome, Record, Store, StoreError, Txn};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::etcd;

/// What a store is asked. Keys are numbers, and revisions say what they mean, so that each store can make its own.
#[derive(Clone, Debug)]
enum Operation {
    Get(u8),
    List(u8),
    Commit(Vec<(u8, On, Revision)>, Vec<(u8, To)>),
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
enum On {
    Create,
    Mod,
}

/// With what it is compared.
#[derive(Clone, Copy, Debug)]
enum Revision {
    /// The key must be absent.
    Absent,
    /// As it stands.
    Current,
    /// So long after the begin of the run.
    After(i64),
}

/// What becomes of a key.
#[derive(Clone, Debug)]
enum To {
    Put(u8),
    Update(u8),
    Delete,
}

/// An outcome in which revisions are distances.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Found(Option<Record>),
    Listed(Vec<Record>, i64),
    Done(i64),
    Refused(i64, Vec<Option<Record>>),
    Failed(&'static str),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    // Few keys, so that operations meet; key 0 is the empty one, which every store refuses.
    let key = || prop_oneof![1 => Just(0_u8), 40 => 1..7_u8];
    let on = prop_oneof![Just(On::Create), Just(On::Mod)];
    let revision = prop_oneof![
        3 => Just(Revision::Absent),
        5 => Just(Revision::Current),
        1 => (1..30_i64).prop_map(Revision::After),
    ];
    let to = prop_oneof![4 => any::<u8>().prop_map(To::Put), 1 => any::<u8>().prop_map(To::Update), 2 => Just(To::Delete)];
    let commit =
        (prop::collection::vec((key(), on, revision), 0..3), prop::collection::vec((key(), to), 0..4));
    let operation = prop_oneof![
        2 => key().prop_map(Operation::Get),
        1 => (1..4_u8).prop_map(Operation::List),
        6 => commit.prop_map(|(compares, changes)| Operation::Commit(compares, changes)),
    ];
    prop::collection::vec(operation, 1..60)
}

/// A store during one run.
struct Run {
    store: Arc<dyn Store>,
    prefix: String,
    began_at: i64,
}

impl Run {
    async fn begin(store: Arc<dyn Store>, prefix: &str) -> Run {
        let began_at = store.list(prefix).await.unwrap().revision;
        Run { store, prefix: prefix.to_owned(), began_at }
    }

    /// Keys of which some begin like others.
    fn key(&self, number: u8) -> String {
        match number {
            0 => String::new(),
            number => {
                format!("{}{}", self.prefix, ["a", "ab", "a/b", "b", "é", "a\0"][usize::from(number - 1) % 6])
            }
        }
    }

    fn distance(&self, revision: i64) -> i64 {
        if revision == 0 { 0 } else { revision - self.began_at }
    }

    fn seen(&self, record: Record) -> Record {
        Record {
            create_revision: self.distance(record.create_revision),
            mod_revision: self.distance(record.mod_revision),
            ..record
        }
    }

    async fn compare(&self, (key, on, revision): (u8, On, Revision)) -> Compare {
        let key = self.key(key);
        let found = self.store.get(&key).await.ok().flatten();
        let revision = match (revision, on) {
            (Revision::Absent, _) => 0,
            (Revision::Current, On::Create) => found.map_or(0, |found| found.create_revision),
            (Revision::Current, On::Mod) => found.map_or(0, |found| found.mod_revision),
            (Revision::After(distance), _) => self.began_at + distance,
        };
        match on {
            On::Create => Compare::CreateRevision { key, revision },
            On::Mod => Compare::ModRevision { key, revision },
        }
    }

    async fn execute(&self, operation: Operation) -> Seen {
        let failed = |error: StoreError| match error {
            StoreError::Invalid { .. } => Seen::Failed("invalid"),
            StoreError::TooLarge { .. } => Seen::Failed("too large"),
            other => panic!("a store in good health says {other}"),
        };
        match operation {
            Operation::Get(key) => match self.store.get(&self.key(key)).await {
                Ok(found) => Seen::Found(found.map(|found| self.seen(found))),
                Err(error) => failed(error),
            },
            Operation::List(key) => match self.store.list(&self.key(key)).await {
                Ok(page) => {
                    let records = page.records.into_iter().map(|record| self.seen(record)).collect();
                    Seen::Listed(records, self.distance(page.revision))
                }
                Err(error) => failed(error),
            },
            Operation::Commit(compares, changes) => {
                let mut txn = Txn::default();
                for compare in compares {
                    txn.compares.push(self.compare(compare).await);
                }
                for (key, to) in changes {
                    let key = self.key(key);
                    txn.changes.push(match to {
                        To::Put(value) => Change::Put { key, value: vec![value] },
                        To::Update(value) => Change::Update { key, value: vec![value] },
                        To::Delete => Change::Delete { key },
                    });
                }
                match self.store.commit(txn).await {
                    Ok(Outcome::Done { revision }) => Seen::Done(self.distance(revision)),
                    Ok(Outcome::Refused { revision, found }) => {
                        let found =
                            found.into_iter().map(|found| found.map(|found| self.seen(found))).collect();
                        Seen::Refused(self.distance(revision), found)
                    }
                    Err(error) => failed(error),
                }
            }
        }
    }
}

/// Drives the same operations through the model and another store.
async fn agree(other: Arc<dyn Store>, prefix: &str, operations: Vec<Operation>) -> Result<(), TestCaseError> {
    let model = Run::begin(Arc::new(MemoryStore::default()), prefix).await;
    let other = Run::begin(other, prefix).await;
    for (number, operation) in operations.into_iter().chain([Operation::List(1)]).enumerate() {
        let expected = model.execute(operation.clone()).await;
        let seen = other.execute(operation.clone()).await;
        prop_assert_eq!(seen, expected, "operation {}: {:?}", number, operation);
    }
    Ok(())
}

fn runner(cases: u32) -> TestRunner {
    let seed = RngSeed::Fixed(0x5EED);
    TestRunner::new(Config { cases, failure_persistence: None, rng_seed: seed, ..Config::default() })
}

/// Goal: the embedded store does what the model does. Method: random operations; every outcome is compared.
#[test]
fn the_embedded_store_agrees_with_the_model() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(directory.path()).unwrap());
    let run = Cell::new(0);
    runner(60)
        .run(&operations(), |operations| {
            run.set(run.get() + 1);
            runtime.block_on(agree(Arc::clone(&store), &format!("/run{}/", run.get()), operations))
        })
        .unwrap();
}

/// Goal: the model does what the real etcd does, or nothing proved with the model is true. Method: the same random
/// operations, a fixed number of seeds.
#[test]
fn etcd_agrees_with_the_model() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (_directory, _etcd, store) = runtime.block_on(etcd());
    let run = Cell::new(0);
    runner(60)
        .run(&operations(), |operations| {
            run.set(run.get() + 1);
            runtime.block_on(agree(Arc::clone(&store), &format!("/run{}/", run.get()), operations))
        })
        .unwrap();
}
