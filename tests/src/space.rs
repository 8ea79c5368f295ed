//! Runs an etcd out of space, and makes room again as its operator would: compact, defragment, disarm the alarm.

use std::time::Duration;

use metasrv::etcd::store::EtcdStore;
use metasrv::store::{Change, Store as _, StoreError, Txn};
use serde_json::{Value, json};

use crate::etcd::Etcd;
use crate::replica::http_exchange;
use crate::wait::eventually;

/// A quota of the etcd of a test: little enough to be filled in a moment, room enough for what a test stores.
pub const QUOTA: [&str; 2] = ["--quota-backend-bytes", "4194304"];

/// What fills it. Outside every prefix that a cluster has.
const FILLER: &str = "/filler";

/// Defragmenting takes milliseconds; a loaded machine takes longer.
const LIMIT: Duration = Duration::from_secs(20);

/// A store on this etcd, to look at what is there, and to meddle with it.
pub fn store(etcd: &Etcd) -> EtcdStore {
    EtcdStore::new(&etcd.endpoints()).expect("an etcd that serves")
}

/// Writes until etcd raises its alarm, and refuses also the smallest write.
pub async fn fill(etcd: &Etcd) {
    let store = store(etcd);
    for bytes in [256 << 10, 1] {
        eventually(LIMIT, "etcd is out of space", async || {
            let change = Change::Put { key: FILLER.to_owned(), value: vec![0x5a; bytes] };
            match store.commit(Txn { compares: vec![], changes: vec![change] }).await {
                Err(StoreError::OutOfSpace) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

/// Makes room, and disarms the alarm.
pub async fn make_room(etcd: &Etcd) {
    let changes = vec![Change::Delete { key: FILLER.to_owned() }];
    store(etcd).commit(Txn { compares: vec![], changes }).await.expect("a delete needs no space");
    compact(etcd).await;
    let raised = ask(etcd, 0, "maintenance/alarm", &json!({"action": "GET"})).await;
    let alarms = raised["alarms"].as_array().cloned().unwrap_or_default();
    assert!(!alarms.is_empty(), "no alarm was raised: {raised}");
    for alarm in alarms {
        let disarm = json!({"action": "DEACTIVATE", "memberID": alarm["memberID"], "alarm": alarm["alarm"]});
        ask(etcd, 0, "maintenance/alarm", &disarm).await;
    }
}

/// Compacts up to the present revision, and defragments every member, one after the other.
pub async fn compact(etcd: &Etcd) {
    let present = store(etcd).list(FILLER).await.expect("etcd answers").revision;
    ask(etcd, 0, "kv/compaction", &json!({"revision": present.to_string(), "physical": true})).await;
    for member in 0..etcd.members() {
        ask(etcd, member, "maintenance/defragment", &json!({})).await;
    }
}

/// One call of etcd's JSON gateway.
async fn ask(etcd: &Etcd, member: usize, path: &str, body: &Value) -> Value {
    let path = format!("/v3/{path}");
    eventually(LIMIT, &format!("etcd does {path} {body}"), async || {
        let page = http_exchange(&etcd.addr(member), "POST", &path, &body.to_string()).await?;
        // Chunked or not, the answer is one JSON object.
        let object = page.find("\r\n\r\n{").or_else(|| page.find("\r\n{")).map(|at| page[at..].trim_start());
        let answer = object
            .and_then(|object| serde_json::Deserializer::from_str(object).into_iter::<Value>().next()?.ok());
        match answer {
            Some(answer) if page.starts_with("HTTP/1.1 200") => Ok(answer),
            _ => Err(page),
        }
    })
    .await
}
