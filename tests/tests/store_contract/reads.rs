//! Clauses about get and list.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use metasrv::store::{MAX_BYTES, MAX_CHANGES, Place, Store, StoreError, each};

use super::{Change, delete, done, list, put};

/// What is not there is not there, and that is an answer.
pub async fn what_is_absent_is_no_error(store: Arc<dyn Store>, at: String) {
    assert_eq!(store.get(&format!("{at}nothing")).await, Ok(None));
    assert_eq!(list(store.as_ref(), &at).await.records, []);
    let empty = store.get("").await;
    assert!(matches!(empty, Err(StoreError::Invalid { .. })), "no key is empty: {empty:?}");
}

/// The order is that of bytes; a list has what begins with its prefix and nothing else; the empty prefix is everything.
pub async fn lists_are_in_the_order_of_bytes_and_end_with_the_prefix(store: Arc<dyn Store>, at: String) {
    let beside =
        [&at[..at.len() - 1], &format!("{}0", &at[..at.len() - 1]), &format!("{}.", &at[..at.len() - 1])]
            .map(str::to_owned);
    for key in &beside {
        done(store.as_ref(), vec![], vec![put(key, "beside")]).await;
    }
    let mut names: Vec<String> =
        ["", "\0", "a", "a/", "a/b", "a0", "aa", "b", "~", "\u{7f}", "é", "\u{ffff}", "\u{10ffff}"]
            .iter()
            .map(|name| format!("{at}{name}"))
            .collect();
    for name in names.iter().rev() {
        done(store.as_ref(), vec![], vec![put(name, name)]).await;
    }
    names.sort_unstable();
    let keys = async |prefix: &str| {
        list(store.as_ref(), prefix).await.records.into_iter().map(|record| record.key).collect::<Vec<_>>()
    };
    assert_eq!(keys(&at).await, names);
    for prefix in ["a", "a/", "\u{10ffff}", "é", "zz"].map(|name| format!("{at}{name}")) {
        let expected: Vec<_> = names.iter().filter(|name| name.starts_with(&prefix)).cloned().collect();
        assert_eq!(keys(&prefix).await, expected, "{prefix:?}");
    }
    let everything = keys("").await;
    assert!(everything.is_sorted());
    assert!(beside.iter().chain(&names).all(|key| everything.contains(key)));
}

/// A list of several thousand records, many pages in etcd, has each of them once, in order, with its revisions.
pub async fn a_list_of_many_pages_is_whole(store: Arc<dyn Store>, at: String) {
    const RECORDS: usize = 3_501;
    let keys: Vec<String> = (0..RECORDS).map(|number| format!("{at}{number:05}")).collect();
    let mut revisions = Vec::new();
    for chunk in keys.chunks(MAX_CHANGES) {
        let revision = done(store.as_ref(), vec![], chunk.iter().map(|key| put(key, key)).collect()).await;
        revisions.resize(revisions.len() + chunk.len(), revision);
    }
    let page = list(store.as_ref(), &at).await;
    assert_eq!(Some(&page.revision), revisions.last());
    assert_eq!(page.records.len(), RECORDS);
    for ((record, key), revision) in page.records.iter().zip(&keys).zip(&revisions) {
        assert_eq!((&record.key, &record.value[..]), (key, key.as_bytes()));
        assert_eq!((record.create_revision, record.mod_revision), (*revision, *revision));
    }
    for chunk in keys.chunks(MAX_CHANGES) {
        done(store.as_ref(), vec![], chunk.iter().map(|key| delete(key)).collect()).await;
    }
    assert_eq!(list(store.as_ref(), &at).await.records, []);
}

/// A list that is read a part at a time is the whole list, from the first record upwards and from the last one downwards;
/// what stands beside the prefix is in no part, and where to go on need not be the key of a record.
pub async fn parts_come_from_either_end_and_are_the_whole(store: Arc<dyn Store>, at: String) {
    let keys: Vec<String> = (0..300).map(|number| format!("{at}in/{number:03}")).collect();
    for chunk in keys.chunks(MAX_CHANGES) {
        done(store.as_ref(), vec![], chunk.iter().map(|key| put(key, key)).collect()).await;
    }
    done(store.as_ref(), vec![], vec![put(&format!("{at}in"), ""), put(&format!("{at}in0"), "")]).await;
    let prefix = format!("{at}in/");
    let part = async |place: Place<'_>, most| {
        let records = store.list_part(&prefix, place, most).await.unwrap();
        assert!(records.iter().all(|record| record.key.as_bytes() == record.value));
        records.into_iter().map(|record| record.key).collect::<Vec<_>>()
    };
    let (mut up, mut down) = (part(Place::First, 70).await, part(Place::Last, 70).await);
    assert_eq!((up.len(), down.len()), (70, 70));
    loop {
        let (more, less) = (
            part(Place::After(&up[up.len() - 1]), 70).await,
            part(Place::Before(&down[down.len() - 1]), 70).await,
        );
        if more.is_empty() && less.is_empty() {
            break;
        }
        up.extend(more);
        down.extend(less);
    }
    down.reverse();
    assert_eq!((&up, &down), (&keys, &keys));
    let mut seen = Vec::new();
    each(store.as_ref(), &prefix, 70, |record| seen.push(record.key.clone())).await.unwrap();
    assert_eq!(seen, keys);
    for (place, expected) in [
        (Place::After(&format!("{prefix}0985")), keys.get(99)),
        (Place::Before(&format!("{prefix}0985")), keys.get(98)),
        (Place::After(&at), keys.first()),
        (Place::Before(&format!("{prefix}zzz")), keys.last()),
        (Place::After(&format!("{prefix}zzz")), None),
        (Place::Before(&prefix), None),
        (Place::Before(&at), None),
    ] {
        let expected: Vec<String> = expected.into_iter().cloned().collect();
        assert_eq!(part(place, 1).await, expected, "{place:?}");
    }
    assert!(part(Place::First, 0).await.is_empty());
    done(store.as_ref(), vec![], vec![delete(&format!("{at}in")), delete(&format!("{at}in0"))]).await;
    for chunk in keys.chunks(MAX_CHANGES) {
        done(store.as_ref(), vec![], chunk.iter().map(|key| delete(key)).collect()).await;
    }
    assert!(part(Place::First, 1).await.is_empty() && part(Place::Last, 1).await.is_empty());
}

/// All pages of one list show one moment: the first and the last record are always changed together, and are never
/// seen apart, however many transactions go on meanwhile.
pub async fn a_list_shows_one_revision_while_writes_go_on(store: Arc<dyn Store>, at: String) {
    let keys: Vec<String> = (0..2_500).map(|number| format!("{at}{number:05}")).collect();
    for chunk in keys.chunks(MAX_CHANGES) {
        done(store.as_ref(), vec![], chunk.iter().map(|key| put(key, "0")).collect()).await;
    }
    done(store.as_ref(), vec![], vec![put(&keys[0], "0"), put(&keys[2_499], "0")]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU32::new(0));
    let writing = tokio::spawn({
        let (store, first, last) = (Arc::clone(&store), keys[0].clone(), keys[2_499].clone());
        let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
        async move {
            while !stop.load(Ordering::Relaxed) {
                let value = written.fetch_add(1, Ordering::Relaxed).to_string();
                done(store.as_ref(), vec![], vec![put(&first, &value), put(&last, &value)]).await;
                tokio::task::yield_now().await;
            }
        }
    });
    let mut seen = Vec::new();
    // Without writes between the lists nothing would be proved.
    while seen.len() < 20 || written.load(Ordering::Relaxed) < 20 {
        let page = list(store.as_ref(), &at).await;
        assert_eq!(page.records.len(), 2_500);
        let (first, last) = (&page.records[0], &page.records[2_499]);
        assert_eq!(
            (&first.value, first.mod_revision),
            (&last.value, last.mod_revision),
            "two moments in one list"
        );
        assert!(page.records.iter().all(|record| record.mod_revision <= page.revision));
        seen.push(page.revision);
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    assert!(seen.is_sorted(), "a later list showed an earlier moment: {seen:?}");
}

/// A list may be larger than what one message of the transport takes: seventy values of nearly 1 MiB.
pub async fn a_list_may_be_larger_than_a_message(store: Arc<dyn Store>, at: String) {
    let size = MAX_BYTES - at.len() - 8;
    for number in 0..70_u8 {
        let change = Change::Put { key: format!("{at}{number:02}"), value: vec![number; size] };
        done(store.as_ref(), vec![], vec![change]).await;
    }
    let page = list(store.as_ref(), &at).await;
    assert_eq!(page.records.len(), 70);
    for (number, record) in (0..70_u8).zip(&page.records) {
        assert_eq!(record.value.len(), size);
        assert!(record.value.iter().all(|byte| *byte == number));
    }
    done(store.as_ref(), vec![], page.records.iter().map(|record| delete(&record.key)).collect()).await;
}
