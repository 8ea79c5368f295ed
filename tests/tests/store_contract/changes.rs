//! Clauses about transactions.

use std::sync::Arc;

use metasrv::store::{MAX_BYTES, MAX_CHANGES, MAX_KEY_BYTES, Outcome, Store, StoreError, Txn};

use super::{Change, changed_at, created_at, delete, done, list, put, refused, update};

/// Each transaction that changes something is one revision, all its changes stand at it, and reads say so.
pub async fn each_change_is_one_revision(store: Arc<dyn Store>, at: String) {
    let [a, b, c] = ["a", "b", "c"].map(|name| format!("{at}{name}"));
    let first = done(store.as_ref(), vec![], vec![put(&a, "1"), put(&b, "1")]).await;
    assert!(first > 0, "0 stands for what is absent");
    let second = done(store.as_ref(), vec![], vec![put(&c, "1"), delete(&b), put(&a, "2")]).await;
    assert_eq!(second, first + 1);
    let page = list(store.as_ref(), &at).await;
    assert_eq!(page.revision, second);
    let shown: Vec<_> =
        page.records.iter().map(|r| (r.key.as_str(), r.create_revision, r.mod_revision)).collect();
    assert_eq!(shown, [(a.as_str(), first, second), (c.as_str(), second, second)]);
    assert_eq!(store.get(&a).await.unwrap().as_ref(), page.records.first());
}

/// A key keeps its create revision over puts and updates; after a delete it begins anew.
pub async fn a_create_revision_lasts_until_the_delete(store: Arc<dyn Store>, at: String) {
    let key = format!("{at}key");
    let revisions = async || {
        let found = store.get(&key).await.unwrap().unwrap();
        (found.create_revision, found.mod_revision)
    };
    let created = done(store.as_ref(), vec![], vec![put(&key, "1")]).await;
    assert_eq!(revisions().await, (created, created));
    let replaced = done(store.as_ref(), vec![], vec![put(&key, "2")]).await;
    assert_eq!(revisions().await, (created, replaced));
    let updated = done(store.as_ref(), vec![], vec![update(&key, "3")]).await;
    assert_eq!(revisions().await, (created, updated));
    let same = done(store.as_ref(), vec![], vec![put(&key, "3")]).await;
    assert_eq!(revisions().await, (created, same), "the same value is a change all the same");
    done(store.as_ref(), vec![], vec![delete(&key)]).await;
    assert_eq!(store.get(&key).await, Ok(None));
    let anew = done(store.as_ref(), vec![], vec![put(&key, "4")]).await;
    assert_eq!(revisions().await, (anew, anew));
}

/// Compares on the create and on the mod revision, each alone and together; 0 is for what is absent, and nothing else.
pub async fn compares_hold_for_what_is_there_and_for_what_is_absent(store: Arc<dyn Store>, at: String) {
    let [key, absent, other] = ["key", "absent", "other"].map(|name| format!("{at}{name}"));
    let created = done(store.as_ref(), vec![], vec![put(&key, "1")]).await;
    let changed = done(store.as_ref(), vec![], vec![put(&key, "2")]).await;
    let hold = [
        vec![created_at(&key, created)],
        vec![changed_at(&key, changed)],
        vec![created_at(&absent, 0)],
        vec![changed_at(&absent, 0)],
        vec![
            created_at(&key, created),
            changed_at(&key, changed),
            changed_at(&absent, 0),
            created_at(&absent, 0),
        ],
    ];
    for compares in hold {
        done(store.as_ref(), compares, vec![put(&other, "x")]).await;
    }
    let fail = [
        created_at(&key, 0),
        changed_at(&key, 0),
        created_at(&key, changed),
        changed_at(&key, created),
        created_at(&key, -1),
        created_at(&absent, 1),
        changed_at(&absent, changed),
        changed_at(&key, i64::MAX),
    ];
    for compare in fail {
        let compares = vec![changed_at(&key, changed), compare.clone(), created_at(&absent, 0)];
        assert_eq!(refused(store.as_ref(), compares, vec![delete(&key)]).await.len(), 3, "{compare:?}");
    }
}

/// A refused transaction changes nothing, not even the revision, and says compare by compare what was found.
pub async fn a_refusal_changes_nothing_and_says_what_was_found(store: Arc<dyn Store>, at: String) {
    let [a, b, absent] = ["a", "b", "absent"].map(|name| format!("{at}{name}"));
    done(store.as_ref(), vec![], vec![put(&a, "1"), put(&b, "2")]).await;
    let before = list(store.as_ref(), &at).await;
    let compares = vec![
        changed_at(&b, before.revision),
        created_at(&absent, 7),
        changed_at(&a, 0),
        created_at(&b, before.revision),
    ];
    let changes = vec![put(&a, "3"), delete(&b), put(&absent, "3"), update(&format!("{at}none"), "3")];
    let outcome = store.commit(Txn { compares, changes }).await.unwrap();
    let (a, b) = (before.records[0].clone(), before.records[1].clone());
    let found = vec![Some(b.clone()), None, Some(a), Some(b)];
    assert_eq!(outcome, Outcome::Refused { revision: before.revision, found });
    assert_eq!(list(store.as_ref(), &at).await, before);
}

/// An update of a key that is not there is invalid, and nothing of its transaction happens.
pub async fn an_update_needs_its_key(store: Arc<dyn Store>, at: String) {
    let [key, absent] = ["key", "absent"].map(|name| format!("{at}{name}"));
    done(store.as_ref(), vec![], vec![put(&key, "1")]).await;
    let before = list(store.as_ref(), &at).await;
    let changes = vec![put(&key, "2"), update(&absent, "2")];
    let outcome = store.commit(Txn { compares: vec![], changes }).await;
    assert!(matches!(outcome, Err(StoreError::Invalid { .. })), "{outcome:?}");
    assert_eq!(list(store.as_ref(), &at).await, before);
}

/// No changes at all, or the delete of what is absent, are done without a new revision.
pub async fn what_changes_nothing_costs_no_revision(store: Arc<dyn Store>, at: String) {
    let [key, absent] = ["key", "absent"].map(|name| format!("{at}{name}"));
    let revision = done(store.as_ref(), vec![], vec![put(&key, "1")]).await;
    assert_eq!(done(store.as_ref(), vec![], vec![]).await, revision);
    assert_eq!(done(store.as_ref(), vec![changed_at(&key, revision)], vec![]).await, revision);
    assert_eq!(done(store.as_ref(), vec![], vec![delete(&absent)]).await, revision);
    assert_eq!(done(store.as_ref(), vec![], vec![delete(&absent), put(&key, "2")]).await, revision + 1);
}

/// What is within the limits is done, what is beyond them is refused in the same way, and changes nothing.
pub async fn limits_are_the_same_everywhere(store: Arc<dyn Store>, at: String) {
    let keys: Vec<String> = (0..=MAX_CHANGES).map(|number| format!("{at}{number:03}")).collect();
    let puts = |count: usize| keys[..count].iter().map(|key| put(key, "x")).collect::<Vec<_>>();
    let absent =
        |count: usize| (0..count).map(|number| created_at(&format!("{at}-{number}"), 0)).collect::<Vec<_>>();
    done(store.as_ref(), absent(MAX_CHANGES + 1), puts(MAX_CHANGES)).await;
    let sized = |bytes: usize| Change::Put { key: keys[0].clone(), value: vec![b'x'; bytes - keys[0].len()] };
    done(store.as_ref(), vec![], vec![sized(MAX_BYTES)]).await;
    // Long keys everywhere: in as many compares and changes as there may be.
    let long = |number: usize| format!("{at}long-{number:03}-{}", "k".repeat(MAX_KEY_BYTES - at.len() - 9));
    assert_eq!(long(0).len(), MAX_KEY_BYTES);
    let compares: Vec<_> = (0..=MAX_CHANGES).map(|number| changed_at(&long(number), 0)).collect();
    let changes: Vec<_> = (0..MAX_CHANGES).map(|number| put(&long(number), &"v".repeat(7_000))).collect();
    done(store.as_ref(), compares.clone(), changes.clone()).await;
    assert_eq!(refused(store.as_ref(), compares, changes).await.iter().flatten().count(), MAX_CHANGES);

    let before = list(store.as_ref(), &at).await;
    let too_large = [
        Txn { compares: vec![], changes: puts(MAX_CHANGES + 1) },
        Txn { compares: absent(MAX_CHANGES + 2), changes: vec![] },
        Txn { compares: vec![], changes: vec![sized(MAX_BYTES + 1)] },
        Txn { compares: vec![], changes: vec![put(&format!("{}k", long(0)), "x")] },
        Txn { compares: vec![created_at(&format!("{}k", long(0)), 0)], changes: vec![] },
    ];
    for txn in too_large {
        let outcome = store.commit(txn).await;
        assert!(matches!(outcome, Err(StoreError::TooLarge { .. })), "{outcome:?}");
    }
    let invalid = [
        Txn { compares: vec![], changes: vec![put(&keys[0], "a"), delete(&keys[1]), put(&keys[0], "b")] },
        Txn { compares: vec![], changes: vec![delete(&keys[0]), delete(&keys[0])] },
        Txn { compares: vec![], changes: vec![put("", "x")] },
        Txn { compares: vec![], changes: vec![delete("")] },
        Txn { compares: vec![created_at("", 0)], changes: vec![] },
    ];
    for txn in invalid {
        let outcome = store.commit(txn.clone()).await;
        assert!(matches!(outcome, Err(StoreError::Invalid { .. })), "{txn:?}: {outcome:?}");
    }
    assert_eq!(list(store.as_ref(), &at).await, before);
}

/// Of transactions at the same time that expect the same revision, exactly one wins, and its value stands; the others
/// are shown a record that is not the one they expected.
pub async fn of_conflicting_transactions_one_wins(store: Arc<dyn Store>, at: String) {
    let key = format!("{at}key");
    let mut expected = 0;
    for _ in 0..10 {
        let contenders: Vec<_> = (0..16)
            .map(|number| {
                let (store, key) = (Arc::clone(&store), key.clone());
                tokio::spawn(async move {
                    let changes = vec![put(&key, &number.to_string())];
                    store.commit(Txn { compares: vec![changed_at(&key, expected)], changes }).await.unwrap()
                })
            })
            .collect();
        let mut winner = None;
        for (number, contender) in contenders.into_iter().enumerate() {
            match contender.await.unwrap() {
                Outcome::Done { revision } => {
                    assert_eq!(winner.replace((number, revision)), None, "two of them won");
                }
                Outcome::Refused { found, .. } => {
                    assert!(
                        found[0].as_ref().is_some_and(|found| found.mod_revision > expected),
                        "{found:?}"
                    );
                }
            }
        }
        let (number, revision) = winner.expect("one of them wins");
        let found = store.get(&key).await.unwrap().unwrap();
        assert_eq!((found.value, found.mod_revision), (number.to_string().into_bytes(), revision));
        expected = revision;
    }
}

/// A value is bytes: empty ones, zeros, and what is no text come back as they were.
pub async fn any_bytes_are_a_value(store: Arc<dyn Store>, at: String) {
    for (number, value) in [vec![], vec![0], vec![0xff; 300], (0..=255).collect()].into_iter().enumerate() {
        let key = format!("{at}{number}");
        done(store.as_ref(), vec![], vec![Change::Put { key: key.clone(), value: value.clone() }]).await;
        assert_eq!(store.get(&key).await.unwrap().unwrap().value, value);
    }
    assert_eq!(list(store.as_ref(), &at).await.records.len(), 4);
}
