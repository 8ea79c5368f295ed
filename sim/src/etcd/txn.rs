//! What a transaction compares, does and answers; a put, a delete and a read outside of one are the same without compares.

use tonic::Status;

use super::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use super::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use super::pb::etcdserverpb::request_op::Request;
use super::pb::etcdserverpb::response_op::Response;
use super::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use super::state::{State, Write, compacted, future, no_lease, no_space};
use crate::plant::Plant;

/// Operations of one transaction.
const MOST_OPERATIONS: usize = 128;

/// Bytes of one request.
const MOST_BYTES: usize = 1_572_864;

pub fn header(revision: i64) -> ResponseHeader {
    ResponseHeader { cluster_id: 0x00c1_0573_25a1, member_id: 1, revision, raft_term: 2 }
}

pub fn read(state: &State, request: &RangeRequest, present: i64) -> Result<RangeResponse, Status> {
    if request.key.is_empty() {
        return Err(Status::invalid_argument("etcdserver: key is not provided"));
    }
    if request.revision > present {
        return Err(future());
    }
    if request.revision > 0 && request.revision < state.compacted() {
        return Err(compacted());
    }
    let at = if request.revision > 0 { request.revision } else { present };
    let mut found = state.range(&request.key, &request.range_end, at);
    let count = i64::try_from(found.len()).unwrap_or(i64::MAX);
    match request.sort_target() {
        SortTarget::Key => {}
        SortTarget::Version => found.sort_by_key(|kv| kv.version),
        SortTarget::Create => found.sort_by_key(|kv| kv.create_revision),
        SortTarget::Mod => found.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => found.sort_by(|a, b| a.value.cmp(&b.value)),
    }
    if request.sort_order() == SortOrder::Descend {
        found.reverse();
    }
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let more = found.len() > limit && !request.count_only;
    let kvs = match request.count_only {
        true => Vec::new(),
        false => found.into_iter().take(limit).cloned().collect(),
    };
    Ok(RangeResponse { header: Some(header(present)), kvs, more, count })
}

fn check_put(state: &State, put: &PutRequest) -> Result<(), Status> {
    if put.key.is_empty() {
        return Err(Status::invalid_argument("etcdserver: key is not provided"));
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(Status::invalid_argument("etcdserver: lease is provided"));
    }
    if state.is_full() {
        return Err(no_space());
    }
    if put.lease != 0 && !state.has_lease(put.lease) {
        return Err(no_lease());
    }
    if put.ignore_lease && state.get(&put.key).is_none() {
        return Err(Status::invalid_argument("etcdserver: key not found"));
    }
    Ok(())
}

pub fn put(write: &mut Write<'_>, put: PutRequest) -> PutResponse {
    let lease = match put.ignore_lease {
        true => write.state().get(&put.key).map_or(0, |kv| kv.lease),
        false => put.lease,
    };
    write.put(&put.key, put.value, lease);
    PutResponse { header: Some(header(write.present())) }
}

pub fn delete(write: &mut Write<'_>, request: &DeleteRangeRequest) -> DeleteRangeResponse {
    let keys: Vec<Vec<u8>> =
        write.state().range(&request.key, &request.range_end, 0).iter().map(|kv| kv.key.clone()).collect();
    let deleted = keys.iter().filter(|key| write.delete(key)).count();
    DeleteRangeResponse {
        header: Some(header(write.present())),
        deleted: i64::try_from(deleted).unwrap_or(i64::MAX),
    }
}

fn holds(state: &State, compare: &Compare) -> bool {
    let found = state.get(&compare.key);
    let planted = match compare.target() {
        CompareTarget::Create => state.plant == Some(Plant::Unfenced),
        CompareTarget::Mod => state.plant == Some(Plant::RevisionIgnored),
        _ => false,
    };
    if planted {
        return true;
    }
    let number = |found: i64, wanted: i64| match compare.result() {
        CompareResult::Equal => found == wanted,
        CompareResult::Greater => found > wanted,
        CompareResult::Less => found < wanted,
        CompareResult::NotEqual => found != wanted,
    };
    match (compare.target(), &compare.target_union) {
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(wanted))) => {
            number(found.map_or(0, |kv| kv.create_revision), *wanted)
        }
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(wanted))) => {
            number(found.map_or(0, |kv| kv.mod_revision), *wanted)
        }
        (CompareTarget::Version, Some(TargetUnion::Version(wanted))) => {
            number(found.map_or(0, |kv| kv.version), *wanted)
        }
        // metasrv compares nothing else.
        _ => false,
    }
}

fn check(request: &TxnRequest) -> Result<(), Status> {
    let operations = request.compare.len().max(request.success.len()).max(request.failure.len());
    if operations > MOST_OPERATIONS {
        return Err(Status::invalid_argument("etcdserver: too many operations in txn request"));
    }
    if prost::Message::encoded_len(request) > MOST_BYTES {
        return Err(Status::invalid_argument("etcdserver: request is too large"));
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Status::invalid_argument("etcdserver: key is not provided"));
    }
    let puts = request.success.iter().filter_map(|operation| match &operation.request {
        Some(Request::RequestPut(put)) => Some(put.key.as_slice()),
        _ => None,
    });
    let mut keys: Vec<&[u8]> = puts.collect();
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    if keys.len() < all {
        return Err(Status::invalid_argument("etcdserver: duplicate key given in txn request"));
    }
    Ok(())
}

pub fn commit(state: &mut State, request: TxnRequest, by: Option<String>) -> Result<TxnResponse, Status> {
    check(&request)?;
    let succeeded = request.compare.iter().all(|compare| holds(state, compare));
    let guards = request.compare.iter().filter_map(|compare| match compare.target_union {
        Some(TargetUnion::CreateRevision(revision)) => {
            Some((String::from_utf8_lossy(&compare.key).into_owned(), revision))
        }
        _ => None,
    });
    let guards: Vec<(String, i64)> = guards.collect();
    let operations = if succeeded { request.success } else { request.failure };
    // Everything or nothing: what would be refused is found before anything is changed.
    for operation in &operations {
        if let Some(Request::RequestPut(put)) = &operation.request {
            check_put(state, put)?;
        }
    }
    let mut write = state.begin(guards, by);
    let mut responses = Vec::with_capacity(operations.len());
    for RequestOp { request } in operations {
        let response = match request {
            Some(Request::RequestRange(range)) => {
                let present = write.present();
                Response::ResponseRange(read(write.state(), &range, present)?)
            }
            Some(Request::RequestPut(request)) => Response::ResponsePut(put(&mut write, request)),
            Some(Request::RequestDeleteRange(range)) => {
                Response::ResponseDeleteRange(delete(&mut write, &range))
            }
            None => continue,
        };
        responses.push(ResponseOp { response: Some(response) });
    }
    let revision = write.end();
    Ok(TxnResponse { header: Some(header(revision)), succeeded, responses })
}

pub fn put_alone(state: &mut State, request: PutRequest, by: Option<String>) -> Result<PutResponse, Status> {
    check_put(state, &request)?;
    let mut write = state.begin(Vec::new(), by);
    let response = put(&mut write, request);
    write.end();
    Ok(response)
}
