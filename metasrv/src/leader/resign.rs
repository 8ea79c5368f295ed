//! The way out: one transaction, guarded by the fence, that deletes the leader's key and records that it resigned. Where it
//! is known whose turn is next, the same transaction begins that one's term (`succession.rs`).

use metasrv_core::id::{Fence, Term};
use metasrv_proto::admin::TermRecord;

use super::succession::Succession;
use crate::keys::Keys;
use crate::record;
use crate::store::{Change, Compare, Outcome, Store, StoreError, Txn};

/// What became of a resignation.
#[derive(Debug)]
pub enum Resignation {
    /// The key is deleted, and successors know that nothing was granted afterwards.
    Done,
    /// The same, and the successor's term has begun.
    HandedOver,
    /// The fence was gone: somebody else leads, or may. This is the refused write of a leader that woke up too late.
    FenceGone,
    /// The term's record was not as expected; only the key was left to be released.
    Conflict,
    /// Nobody knows; the lease's release ends it all the same.
    Unknown(StoreError),
}

/// Resigns. The leader must have stopped granting before. Safe to call at any time, by whoever was a leader: the
/// fence decides in the store. Where the queue or the terms are not as the succession expects them any more, which the
/// store's answer makes certain, the resignation is sent again without it. Without a record of its own, the term is not
/// recorded as resigned: that is how a leader is deposed.
pub async fn resign(
    store: &dyn Store,
    keys: &Keys,
    fence: &Fence,
    own: Option<(TermRecord, i64)>,
    next: Option<&Succession>,
) -> Resignation {
    let mut txn = Txn {
        compares: vec![Compare::CreateRevision { key: fence.key.clone(), revision: fence.create_revision }],
        changes: vec![Change::Delete { key: fence.key.clone() }],
    };
    if let Some((record, revision)) = own {
        let key = keys.term_record(Term(record.term));
        txn.compares.push(Compare::ModRevision { key: key.clone(), revision });
        txn.changes
            .push(Change::Put { key, value: record::encode(&TermRecord { resigned: true, ..record }) });
    }
    if let Some(next) = next {
        let mut both = txn.clone();
        next.add_to(&mut both);
        match commit(store, fence, both).await {
            Resignation::Done => return Resignation::HandedOver,
            Resignation::Conflict => {}
            other => return other,
        }
        tracing::info!(
            next = next.name,
            "the queue or the terms have changed; the successor begins its term itself"
        );
    }
    commit(store, fence, txn).await
}

async fn commit(store: &dyn Store, fence: &Fence, txn: Txn) -> Resignation {
    match store.commit(txn).await {
        Ok(Outcome::Done { .. }) => Resignation::Done,
        Ok(Outcome::Refused { found, .. }) => {
            let held = found
                .first()
                .and_then(Option::as_ref)
                .is_some_and(|key| key.create_revision == fence.create_revision);
            if held { Resignation::Conflict } else { Resignation::FenceGone }
        }
        Err(error) => Resignation::Unknown(error),
    }
}
