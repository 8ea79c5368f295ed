//! The store of replicas: etcd's key-value and transaction APIs.

use async_trait::async_trait;
use etcd_client::{CompareOp, GetOptions, KeyValue, PutOptions, SortOrder, SortTarget, TxnOp, TxnOpResponse};

use super::connection::{CALL_TIMEOUT, EtcdConnection, kv};
use crate::dial::Dialer;
use crate::store::{Change, Compare, Outcome, Page, Place, Record, Store, StoreError, Txn, check_key};

/// Records of one page of a list.
const PAGE: i64 = 1_000;

/// A page that is too large for one message, or for the time that an answer may take, is asked for again with so many
/// times fewer records.
const SMALLER: i64 = 32;

/// A list that is overtaken by a compaction is begun again so many times.
const RESTARTS: usize = 5;

/// See the module.
pub struct EtcdStore {
    connection: EtcdConnection,
}

impl EtcdStore {
    /// A store on these endpoints; connects when it is used.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where an endpoint is no URL.
    pub fn new(endpoints: &[String]) -> Result<EtcdStore, StoreError> {
        EtcdStore::through(endpoints, &Dialer::default())
    }

    /// The same, reached by this dialer.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where an endpoint is no URL.
    pub fn through(endpoints: &[String], dialer: &Dialer) -> Result<EtcdStore, StoreError> {
        Ok(EtcdStore { connection: EtcdConnection::new(endpoints, dialer)? })
    }

    /// One page of the keys from `from` up to, and without, `end`; `revision` 0 means the present one. In descending order
    /// etcd reads the whole range for each page.
    async fn page(
        &self,
        from: &str,
        end: &[u8],
        order: SortOrder,
        revision: i64,
        limit: i64,
    ) -> Result<(Vec<Record>, i64, bool), StoreError> {
        self.connection
            .repeatable("list", CALL_TIMEOUT, |client| {
                let options = GetOptions::new()
                    .with_range(end)
                    .with_limit(limit)
                    .with_revision(revision)
                    .with_sort(SortTarget::Key, order);
                let from = from.to_owned();
                async move { kv(&client).get(from, Some(options)).await }
            })
            .await
            .and_then(|mut answer| {
                let at = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
                let more = answer.more();
                let records: Result<Vec<Record>, StoreError> =
                    answer.take_kvs().iter().map(to_record).collect();
                Ok((records?, at, more))
            })
    }

    /// All records from `first` up to, and without, `end`, in the order of their keys, at one revision.
    pub(super) async fn range(&self, first: &str, end: &[u8]) -> Result<Page, StoreError> {
        let (mut restarts, mut limit) = (0, PAGE);
        'whole: loop {
            let mut page = Page::default();
            let mut from = first.to_owned();
            loop {
                match self.page(&from, end, SortOrder::Ascend, page.revision, limit).await {
                    Ok((records, at, more)) => {
                        if page.revision == 0 {
                            page.revision = at;
                        }
                        // The smallest key after the last one.
                        from = records.last().map_or_else(String::new, |last| format!("{}\0", last.key));
                        page.records.extend(records);
                        // A silence of etcd must not leave a list of many records with tiny pages.
                        limit = limit.saturating_mul(2).min(PAGE);
                        if !more || from.is_empty() {
                            return Ok(page);
                        }
                    }
                    Err(StoreError::Invalid { why }) if why.contains("compacted") && restarts < RESTARTS => {
                        restarts += 1;
                        continue 'whole;
                    }
                    Err(error) if limit > 1 && may_be_size(&error) => {
                        limit = limit.div_euclid(SMALLER).max(1)
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        check_key(key)?;
        let answer = self
            .connection
            .repeatable("get", CALL_TIMEOUT, |client| {
                let key = key.to_owned();
                async move { kv(&client).get(key, None).await }
            })
            .await?;
        answer.kvs().first().map(to_record).transpose()
    }

    async fn list(&self, prefix: &str) -> Result<Page, StoreError> {
        // etcd has no empty key; a zero byte is the smallest that there is.
        let first = if prefix.is_empty() { "\0" } else { prefix };
        self.range(first, &end_of(prefix)).await
    }

    async fn list_part(
        &self,
        prefix: &str,
        place: Place<'_>,
        most: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let first = if prefix.is_empty() { "\0" } else { prefix };
        let (from, end, order) = match place {
            Place::First => (first.to_owned(), end_of(prefix), SortOrder::Ascend),
            // The smallest key after it.
            Place::After(key) => {
                (format!("{key}\0").max(first.to_owned()), end_of(prefix), SortOrder::Ascend)
            }
            Place::Last => (first.to_owned(), end_of(prefix), SortOrder::Descend),
            Place::Before(key) => (first.to_owned(), key.as_bytes().to_vec(), SortOrder::Descend),
        };
        let mut limit = i64::try_from(most).unwrap_or(i64::MAX).min(PAGE);
        // etcd takes an empty range for a mistake, and no limit for none.
        if limit == 0 || (end != [0] && from.as_bytes() >= end.as_slice()) {
            return Ok(Vec::new());
        }
        loop {
            match self.page(&from, &end, order, 0, limit).await {
                Ok((records, ..)) => return Ok(records),
                Err(error) if limit > 1 && may_be_size(&error) => limit = limit.div_euclid(SMALLER).max(1),
                Err(error) => return Err(error),
            }
        }
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        txn.check()?;
        let compares: Vec<etcd_client::Compare> = txn.compares.iter().map(to_compare).collect();
        let changes: Vec<TxnOp> = txn.changes.iter().map(to_operation).collect();
        let reads: Vec<TxnOp> = txn.compares.iter().map(|compare| TxnOp::get(compare.key(), None)).collect();
        let request = etcd_client::Txn::new().when(compares).and_then(changes).or_else(reads);
        let answer = self
            .connection
            .once("commit", CALL_TIMEOUT, |client| {
                let request = request.clone();
                async move { kv(&client).txn(request).await }
            })
            .await?;
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        if answer.succeeded() {
            return Ok(Outcome::Done { revision });
        }
        let found: Result<Vec<Option<Record>>, StoreError> = answer
            .op_responses()
            .iter()
            .map(|response| match response {
                TxnOpResponse::Get(found) => found.kvs().first().map(to_record).transpose(),
                _ => Ok(None),
            })
            .collect();
        Ok(Outcome::Refused { revision, found: found? })
    }
}

/// Whether a smaller page may fare better: it was beyond the limit of messages, or did not come in time.
fn may_be_size(error: &StoreError) -> bool {
    match error {
        StoreError::Invalid { why } => why.contains("message length too large"),
        StoreError::Unavailable { why, .. } => why.contains("no answer within"),
        _ => false,
    }
}

/// The end of the range of keys that begin with `prefix`: the prefix with its last byte raised by one.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last.saturating_add(1));
            return end;
        }
    }
    // Every key there is.
    vec![0]
}

/// A stored key as ours.
///
/// # Errors
/// [`StoreError::Corrupt`] where it is no text: nothing of ours.
pub fn to_record(stored: &KeyValue) -> Result<Record, StoreError> {
    let key = String::from_utf8(stored.key().to_vec()).map_err(|error| StoreError::Corrupt {
        why: format!("a key under our prefix is no text: {error}"),
    })?;
    Ok(Record {
        key,
        value: stored.value().to_vec(),
        create_revision: stored.create_revision(),
        mod_revision: stored.mod_revision(),
    })
}

fn to_compare(compare: &Compare) -> etcd_client::Compare {
    match compare {
        Compare::CreateRevision { key, revision } => {
            etcd_client::Compare::create_revision(key.as_str(), CompareOp::Equal, *revision)
        }
        Compare::ModRevision { key, revision } => {
            etcd_client::Compare::mod_revision(key.as_str(), CompareOp::Equal, *revision)
        }
    }
}

fn to_operation(change: &Change) -> TxnOp {
    match change {
        Change::Put { key, value } => TxnOp::put(key.as_str(), value.as_slice(), None),
        Change::Update { key, value } => {
            TxnOp::put(key.as_str(), value.as_slice(), Some(PutOptions::new().with_ignore_lease()))
        }
        Change::Delete { key } => TxnOp::delete(key.as_str(), None),
    }
}
