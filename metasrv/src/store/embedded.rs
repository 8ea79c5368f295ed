//! The store of embedded mode: one file, crash-safe, no server.
//!
//! redb allows one writer at a time and holds a lock on the file, so a second process is refused. Records stand under
//! their keys as two revisions and the value; the store's own revision stands in a table beside them.
//!
//! Whoever listens is told of each transaction once it is on disk, in their order: that is what etcd's watch is for
//! replicas.

use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};
use tokio::sync::broadcast;

use super::{Evaluation, Outcome, Page, Place, Record, Store, StoreError, Txn, check_key, evaluate};

const RECORDS: TableDefinition<&str, (i64, i64, &[u8])> = TableDefinition::new("records-v1");
const REVISION: TableDefinition<&str, i64> = TableDefinition::new("revision-v1");
const CURRENT: &str = "current";

/// Transactions that wait for whoever listens. It lags behind only where it does not run at all; 64 MiB at most, since
/// a transaction has no more than one.
const WAITING: usize = 64;

/// A transaction that is on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// Its revision.
    pub revision: i64,
    /// What was written.
    pub puts: Vec<Record>,
    /// The keys that were removed.
    pub deletes: Vec<String>,
}

/// See the module.
pub struct EmbeddedStore {
    database: Arc<Database>,
    /// Held by a writer until it has told its transaction, so that they are told in their order.
    telling: Arc<Mutex<broadcast::Sender<Arc<Committed>>>>,
}

impl EmbeddedStore {
    /// Opens the store in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// Where the directory cannot be made, another process has the store open, or its bytes make no sense.
    pub fn open(dir: &Path) -> Result<EmbeddedStore, StoreError> {
        std::fs::create_dir_all(dir).map_err(|error| unavailable("open", &error))?;
        let database = Database::create(dir.join("metadata.redb")).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                StoreError::Unavailable { operation: "open", why: "another process has it open".to_owned() }
            }
            error => StoreError::Corrupt { why: error.to_string() },
        })?;
        let store = EmbeddedStore {
            database: Arc::new(database),
            telling: Arc::new(Mutex::new(broadcast::channel(WAITING).0)),
        };
        // Makes both tables, so that readers find them.
        store.database.begin_write().map_err(|error| unavailable("open", &error)).and_then(|write| {
            write.open_table(RECORDS).map_err(|error| corrupt(&error))?;
            write.open_table(REVISION).map_err(|error| corrupt(&error))?;
            write.commit().map_err(|error| unavailable("open", &error))
        })?;
        Ok(store)
    }

    /// Every transaction from now on.
    pub fn commits(&self) -> broadcast::Receiver<Arc<Committed>> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner).subscribe()
    }

    /// All records from `from` up to, and without, `end`, in the order of their keys, at one revision.
    ///
    /// # Errors
    /// As for a list.
    pub async fn range(&self, from: String, end: String) -> Result<Page, StoreError> {
        self.scan(from, move |key| key < end.as_str()).await
    }

    /// The revision of the last transaction.
    ///
    /// # Errors
    /// As for a read.
    pub async fn revision(&self) -> Result<i64, StoreError> {
        self.blocking("read the revision", |database| {
            let read = database.begin_read().map_err(|error| unavailable("read the revision", &error))?;
            current(&read.open_table(REVISION).map_err(|error| corrupt(&error))?)
        })
        .await
    }

    /// The records from `from` on, as long as their keys belong to it.
    async fn scan(
        &self,
        from: String,
        belongs: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Page, StoreError> {
        self.blocking("list", move |database| {
            let read = database.begin_read().map_err(|error| unavailable("list", &error))?;
            let table = read.open_table(RECORDS).map_err(|error| corrupt(&error))?;
            let revision = current(&read.open_table(REVISION).map_err(|error| corrupt(&error))?)?;
            let mut records = Vec::new();
            for entry in table.range(from.as_str()..).map_err(|error| corrupt(&error))? {
                let (key, stored) = entry.map_err(|error| corrupt(&error))?;
                if !belongs(key.value()) {
                    break;
                }
                let (create_revision, mod_revision, value) = stored.value();
                let key = key.value().to_owned();
                records.push(Record { key, value: value.to_vec(), create_revision, mod_revision });
            }
            Ok(Page { records, revision })
        })
        .await
    }

    /// Runs blocking work off the runtime's threads.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.database);
        match tokio::task::spawn_blocking(move || work(&database)).await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Unknown { operation, why: error.to_string() }),
        }
    }
}

fn unavailable(operation: &'static str, error: &dyn std::error::Error) -> StoreError {
    StoreError::Unavailable { operation, why: error.to_string() }
}

fn corrupt(error: &dyn std::error::Error) -> StoreError {
    StoreError::Corrupt { why: error.to_string() }
}

fn find(
    table: &impl ReadableTable<&'static str, (i64, i64, &'static [u8])>,
    key: &str,
) -> Result<Option<Record>, StoreError> {
    let found = table.get(key).map_err(|error| corrupt(&error))?;
    Ok(found.map(|found| {
        let (create_revision, mod_revision, value) = found.value();
        Record { key: key.to_owned(), value: value.to_vec(), create_revision, mod_revision }
    }))
}

fn current(table: &impl ReadableTable<&'static str, i64>) -> Result<i64, StoreError> {
    Ok(table.get(CURRENT).map_err(|error| corrupt(&error))?.map_or(0, |revision| revision.value()))
}

fn apply(
    table: &mut Table<&'static str, (i64, i64, &'static [u8])>,
    puts: &[Record],
    deletes: &[String],
) -> Result<(), StoreError> {
    for key in deletes {
        table.remove(key.as_str()).map_err(|error| corrupt(&error))?;
    }
    for record in puts {
        let stored = (record.create_revision, record.mod_revision, record.value.as_slice());
        table.insert(record.key.as_str(), stored).map_err(|error| corrupt(&error))?;
    }
    Ok(())
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking("get", move |database| {
            let read = database.begin_read().map_err(|error| unavailable("get", &error))?;
            find(&read.open_table(RECORDS).map_err(|error| corrupt(&error))?, &key)
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Page, StoreError> {
        let prefix = prefix.to_owned();
        self.scan(prefix.clone(), move |key| key.starts_with(&prefix)).await
    }

    async fn list_part(
        &self,
        prefix: &str,
        place: Place<'_>,
        most: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let (prefix, upwards) = (prefix.to_owned(), matches!(place, Place::First | Place::After(_)));
        let above = if let Place::After(key) = place { Some(key.to_owned()) } else { None };
        let below = if let Place::Before(key) = place { Some(key.to_owned()) } else { None };
        self.blocking("list", move |database| {
            let read = database.begin_read().map_err(|error| unavailable("list", &error))?;
            let table = read.open_table(RECORDS).map_err(|error| corrupt(&error))?;
            let from = above.as_deref().filter(|above| *above >= prefix.as_str());
            let from = from.map_or(Bound::Included(prefix.as_str()), Bound::Excluded);
            let end = below.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            if let (Bound::Included(from), Bound::Excluded(end)) = (from, end)
                && from >= end
            {
                return Ok(Vec::new());
            }
            let mut range = table.range::<&str>((from, end)).map_err(|error| corrupt(&error))?;
            let mut records = Vec::new();
            while records.len() < most {
                let Some(entry) = (if upwards { range.next() } else { range.next_back() }) else { break };
                let (key, stored) = entry.map_err(|error| corrupt(&error))?;
                let key = key.value();
                if key.starts_with(&prefix) {
                    let (create_revision, mod_revision, value) = stored.value();
                    let (key, value) = (key.to_owned(), value.to_vec());
                    records.push(Record { key, value, create_revision, mod_revision });
                } else if upwards || key < prefix.as_str() {
                    break;
                }
            }
            Ok(records)
        })
        .await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        let telling = Arc::clone(&self.telling);
        self.blocking("commit", move |database| {
            let telling = telling.lock().unwrap_or_else(PoisonError::into_inner);
            let write = database.begin_write().map_err(|error| unavailable("commit", &error))?;
            let (outcome, committed) = {
                let mut records = write.open_table(RECORDS).map_err(|error| corrupt(&error))?;
                let mut revisions = write.open_table(REVISION).map_err(|error| corrupt(&error))?;
                let before = current(&revisions)?;
                let revision = before.saturating_add(1);
                match evaluate(txn, revision, |key| find(&records, key))? {
                    Evaluation::Refused(found) => (Outcome::Refused { revision: before, found }, None),
                    Evaluation::Apply { puts, deletes } if puts.is_empty() && deletes.is_empty() => {
                        (Outcome::Done { revision: before }, None)
                    }
                    Evaluation::Apply { puts, deletes } => {
                        apply(&mut records, &puts, &deletes)?;
                        revisions.insert(CURRENT, revision).map_err(|error| corrupt(&error))?;
                        (Outcome::Done { revision }, Some(Committed { revision, puts, deletes }))
                    }
                }
            };
            match outcome {
                Outcome::Refused { .. } => write.abort().map_err(|error| unavailable("commit", &error))?,
                // Returns when it is on disk.
                Outcome::Done { .. } => write
                    .commit()
                    .map_err(|error| StoreError::Unknown { operation: "commit", why: error.to_string() })?,
            }
            if let Some(committed) = committed {
                // Nobody may be listening.
                let _ = telling.send(Arc::new(committed));
            }
            Ok(outcome)
        })
        .await
    }
}
