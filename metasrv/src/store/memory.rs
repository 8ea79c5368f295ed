//! A store in memory: the model of the other two, and the store of unit tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::{Evaluation, Outcome, Page, Record, Store, StoreError, Txn, check_key, evaluate};

/// See the module.
#[derive(Default, Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Default, Debug)]
struct State {
    revision: i64,
    records: BTreeMap<String, Record>,
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        check_key(key)?;
        Ok(self.lock().records.get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Page, StoreError> {
        let state = self.lock();
        let range = state.records.range(prefix.to_owned()..);
        let records =
            range.take_while(|(key, _)| key.starts_with(prefix)).map(|(_, record)| record.clone()).collect();
        Ok(Page { records, revision: state.revision })
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        let mut state = self.lock();
        let revision = state.revision.saturating_add(1);
        match evaluate(txn, revision, |key| Ok(state.records.get(key).cloned()))? {
            Evaluation::Refused(found) => Ok(Outcome::Refused { revision: state.revision, found }),
            Evaluation::Apply { puts, deletes } => {
                if puts.is_empty() && deletes.is_empty() {
                    return Ok(Outcome::Done { revision: state.revision });
                }
                state.revision = revision;
                for key in deletes {
                    state.records.remove(&key);
                }
                for record in puts {
                    state.records.insert(record.key.clone(), record);
                }
                Ok(Outcome::Done { revision })
            }
        }
    }
}

impl MemoryStore {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A transaction is evaluated before anything changes, so a panic leaves no half of it behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
