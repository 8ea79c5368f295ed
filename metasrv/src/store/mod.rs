//! Where metadata is kept: one trait, three stores behind it.
//!
//! | store | for |
//! | --- | --- |
//! | `crate::etcd::store::EtcdStore` | replicas |
//! | [`embedded::EmbeddedStore`] | one replica without etcd |
//! | [`memory::MemoryStore`] | tests, and the model of the other two |
//!
//! All three have etcd's semantics: one revision per successful transaction, records with a create and a mod revision,
//! transactions that compare revisions first and change either everything or nothing. The same contract tests run
//! against all of them (`tests/tests/store_contract.rs`).

pub mod embedded;
pub mod fenced;
pub mod memory;
#[cfg(test)]
pub mod quota;

use async_trait::async_trait;

/// Changes of one transaction. etcd allows 128 operations and as many compares; one compare is the fence.
pub const MAX_CHANGES: usize = 127;

/// Bytes of keys and values in one transaction. etcd's default limit is 1.5 MiB for a whole request.
pub const MAX_BYTES: usize = 1 << 20;

/// Bytes of a key. Keys stand up to three times in a request: in a compare, in a change, and in the read of what was
/// found; 128 times twice this much still fit beside [`MAX_BYTES`].
pub const MAX_KEY_BYTES: usize = 1 << 10;

/// A stored key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The whole key, including the cluster's prefix.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision that created it.
    pub create_revision: i64,
    /// The revision that changed it last.
    pub mod_revision: i64,
}

/// All records under a prefix, in the order of their keys, as they stood at one revision.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Page {
    /// The records.
    pub records: Vec<Record>,
    /// The revision.
    pub revision: i64,
}

/// Where a part of a list begins, and which way it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place<'a> {
    /// At the first record, upwards.
    First,
    /// Above this key, upwards.
    After(&'a str),
    /// At the last record, downwards.
    Last,
    /// Below this key, downwards.
    Before(&'a str),
}

/// What must hold for a transaction to change anything. Revision 0: the key must be absent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compare {
    /// The key was created at this revision.
    CreateRevision {
        /// The key.
        key: String,
        /// The revision.
        revision: i64,
    },
    /// The key was last changed at this revision.
    ModRevision {
        /// The key.
        key: String,
        /// The revision.
        revision: i64,
    },
}

impl Compare {
    /// The key that is compared.
    pub fn key(&self) -> &str {
        match self {
            Compare::CreateRevision { key, .. } | Compare::ModRevision { key, .. } => key,
        }
    }

    /// Whether it holds for what is stored under its key.
    pub fn holds(&self, found: Option<&Record>) -> bool {
        match self {
            Compare::CreateRevision { revision, .. } => {
                found.map_or(0, |found| found.create_revision) == *revision
            }
            Compare::ModRevision { revision, .. } => found.map_or(0, |found| found.mod_revision) == *revision,
        }
    }
}

/// One change of a transaction. A key may be changed once in a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Sets a value; the key hangs on no lease afterwards.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
    },
    /// Replaces the value of a key that must exist, and leaves the lease that it hangs on.
    Update {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
    },
    /// Removes a key; removing an absent one is no error.
    Delete {
        /// The key.
        key: String,
    },
}

impl Change {
    /// The key that is changed.
    pub fn key(&self) -> &str {
        match self {
            Change::Put { key, .. } | Change::Update { key, .. } | Change::Delete { key } => key,
        }
    }

    /// Bytes of key and value.
    pub fn bytes(&self) -> usize {
        match self {
            Change::Put { key, value } | Change::Update { key, value } => {
                key.len().saturating_add(value.len())
            }
            Change::Delete { key } => key.len(),
        }
    }
}

/// Compares, then changes everything or nothing.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Txn {
    /// All of them must hold.
    pub compares: Vec<Compare>,
    /// What is changed then.
    pub changes: Vec<Change>,
}

impl Txn {
    /// Checks what every store refuses, so that all refuse the same.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] or [`StoreError::Invalid`].
    pub fn check(&self) -> Result<(), StoreError> {
        let operations = self.changes.len().max(self.compares.len());
        if self.changes.len() > MAX_CHANGES || self.compares.len() > MAX_CHANGES + 1 {
            return Err(StoreError::TooLarge {
                what: format!("{operations} operations, {MAX_CHANGES} are allowed"),
            });
        }
        let bytes = self.changes.iter().map(Change::bytes).fold(0_usize, usize::saturating_add);
        if bytes > MAX_BYTES {
            return Err(StoreError::TooLarge { what: format!("{bytes} bytes, {MAX_BYTES} are allowed") });
        }
        for key in self.compares.iter().map(Compare::key).chain(self.changes.iter().map(Change::key)) {
            check_key(key)?;
        }
        let mut keys: Vec<&str> = self.changes.iter().map(Change::key).collect();
        keys.sort_unstable();
        if let Some(pair) = keys.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(StoreError::Invalid {
                why: format!("the transaction changes {:?} twice", pair.first()),
            });
        }
        Ok(())
    }
}

/// Checks a key that is read, compared or changed, so that all stores refuse the same.
///
/// # Errors
/// [`StoreError::Invalid`] for an empty one, [`StoreError::TooLarge`] for a long one.
pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    match key.len() {
        0 => Err(StoreError::Invalid { why: "a key without a name".to_owned() }),
        1..=MAX_KEY_BYTES => Ok(()),
        bytes => {
            Err(StoreError::TooLarge { what: format!("a key of {bytes} bytes, {MAX_KEY_BYTES} are allowed") })
        }
    }
}

/// What became of a transaction whose answer arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Everything was changed, at this revision.
    Done {
        /// The revision.
        revision: i64,
    },
    /// A compare did not hold; nothing was changed.
    Refused {
        /// The store's revision.
        revision: i64,
        /// What was found under each compare's key, in their order.
        found: Vec<Option<Record>>,
    },
}

/// Why a store gave no answer, or would not do it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// Sent, and no answer came: it may have happened, it may still happen.
    #[error("{operation}: no answer, so the outcome is unknown: {why}")]
    Unknown {
        /// What was tried.
        operation: &'static str,
        /// What happened instead.
        why: String,
    },
    /// Certainly not done: the store could not be reached, or was not ready.
    #[error("{operation}: the store is not available: {why}")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// What happened instead.
        why: String,
    },
    /// Certainly not done: the store has no space left for writes.
    #[error("the store is out of space: compact, defragment, then disarm its alarm")]
    OutOfSpace,
    /// Certainly not done: beyond the store's limits.
    #[error("too large for one transaction: {what}")]
    TooLarge {
        /// How much was asked for.
        what: String,
    },
    /// Certainly not done: it makes no sense.
    #[error("not a valid request: {why}")]
    Invalid {
        /// Why.
        why: String,
    },
    /// What is stored cannot be understood.
    #[error("stored bytes cannot be understood: {why}")]
    Corrupt {
        /// Where, and why.
        why: String,
    },
}

impl StoreError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            StoreError::Unknown { .. } | StoreError::Unavailable { .. } | StoreError::OutOfSpace => true,
            StoreError::TooLarge { .. } | StoreError::Invalid { .. } | StoreError::Corrupt { .. } => false,
        }
    }
}

/// A store of metadata. Reads are linearizable; every call has a deadline of its own.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The record under a key. An empty or too long key is refused as in a transaction.
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError>;

    /// All records whose keys begin with `prefix`, in the order of their bytes, at one revision. The empty prefix
    /// stands for every record.
    async fn list(&self, prefix: &str) -> Result<Page, StoreError>;

    /// Up to `most` of these records, in the order in which they come from this place on, as they are now: for lists that
    /// nobody should hold whole. Fewer may come where they are large; none: there are no more.
    async fn list_part(
        &self,
        prefix: &str,
        place: Place<'_>,
        most: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let mut records = self.list(prefix).await?.records;
        match place {
            Place::First => {}
            Place::After(key) => records.retain(|record| record.key.as_str() > key),
            Place::Last => records.reverse(),
            Place::Before(key) => {
                records.retain(|record| record.key.as_str() < key);
                records.reverse();
            }
        }
        records.truncate(most);
        Ok(records)
    }

    /// Commits a transaction. [`StoreError::Unknown`] leaves open whether it happened, or will.
    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError>;
}

/// Shows each record under a prefix, in the order of their keys, and holds no more of them than `part` at a time. They are not
/// all of one moment.
///
/// # Errors
/// As for a list; some may have been shown.
pub async fn each(
    store: &dyn Store,
    prefix: &str,
    part: usize,
    mut see: impl FnMut(&Record),
) -> Result<(), StoreError> {
    let mut last = None::<String>;
    loop {
        let place = last.as_deref().map_or(Place::First, Place::After);
        let mut records = store.list_part(prefix, place, part).await?;
        records.iter().for_each(&mut see);
        let Some(record) = records.pop() else { return Ok(()) };
        last = Some(record.key);
    }
}

/// What a transaction does to the stored keys of a store of ours: shared by the memory and the embedded store, so
/// that both mean the same.
pub(crate) enum Evaluation {
    /// A compare does not hold.
    Refused(Vec<Option<Record>>),
    /// The records to be stored, and the keys to be removed.
    Apply {
        /// To be stored, with their revisions.
        puts: Vec<Record>,
        /// To be removed.
        deletes: Vec<String>,
    },
}

/// Evaluates a transaction that would get `revision`; `find` reads what is stored under a key.
pub(crate) fn evaluate(
    txn: Txn,
    revision: i64,
    find: impl Fn(&str) -> Result<Option<Record>, StoreError>,
) -> Result<Evaluation, StoreError> {
    txn.check()?;
    let mut found = Vec::with_capacity(txn.compares.len());
    for compare in &txn.compares {
        found.push(find(compare.key())?);
    }
    if !txn.compares.iter().zip(&found).all(|(compare, found)| compare.holds(found.as_ref())) {
        return Ok(Evaluation::Refused(found));
    }
    let (mut puts, mut deletes) = (Vec::new(), Vec::new());
    for change in txn.changes {
        match change {
            Change::Put { key, value } => {
                let create_revision = find(&key)?.map_or(revision, |before| before.create_revision);
                puts.push(Record { key, value, create_revision, mod_revision: revision });
            }
            Change::Update { key, value } => {
                let before = find(&key)?;
                let before =
                    before.ok_or_else(|| StoreError::Invalid { why: format!("{key:?} does not exist") })?;
                puts.push(Record {
                    key,
                    value,
                    create_revision: before.create_revision,
                    mod_revision: revision,
                });
            }
            Change::Delete { key } => {
                if find(&key)?.is_some() {
                    deletes.push(key);
                }
            }
        }
    }
    Ok(Evaluation::Apply { puts, deletes })
}
