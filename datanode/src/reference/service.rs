//! The gRPC service `KeyValue`: what a client of a sharded system would call.

use std::sync::Arc;

use datanode::{RegionAliveKeeper, RegionId};
use metasrv_proto::admin::key_value_server::KeyValue;
use metasrv_proto::admin::{
    GetRequest, GetResponse, KeyValuePair, PutRequest, PutResponse, ScanRequest, ScanResponse,
};
use tonic::{Request, Response, Status};

use super::region::KeyValueError;
use super::regions::Regions;

/// Bytes of one request: the largest pair, and room.
pub const MESSAGE_BYTES: usize = 2 << 20;
/// Bytes of a key.
const KEY_BYTES: usize = 4 << 10;
/// Bytes of a value.
const VALUE_BYTES: usize = 1 << 20;

/// See the module.
pub struct KeyValueService {
    regions: Arc<Regions>,
    keeper: Arc<RegionAliveKeeper>,
}

impl KeyValueService {
    /// Over these regions; the keeper says which of them may be written to.
    pub fn new(regions: Arc<Regions>, keeper: Arc<RegionAliveKeeper>) -> KeyValueService {
        KeyValueService { regions, keeper }
    }
}

fn region(region_id: u64) -> Result<RegionId, Status> {
    if region_id == 0 {
        Err(Status::invalid_argument("region_id: 0 is no region"))
    } else {
        Ok(RegionId(region_id))
    }
}

fn limited(field: &str, bytes: &[u8], limit: usize) -> Result<(), Status> {
    if bytes.len() > limit {
        return Err(Status::resource_exhausted(format!(
            "{field} (bytes): at most {limit} are accepted, not {}",
            bytes.len()
        )));
    }
    Ok(())
}

fn status(error: KeyValueError) -> Status {
    let text = error.to_string();
    match error {
        KeyValueError::NotWritable(_) | KeyValueError::Fenced { .. } => Status::failed_precondition(text),
        KeyValueError::Unknown => Status::unknown(text),
        KeyValueError::Storage(_) => {
            tracing::error!(error = text, "the storage failed");
            Status::internal(text)
        }
    }
}

#[tonic::async_trait]
impl KeyValue for KeyValueService {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let PutRequest { region_id, key, value } = request.into_inner();
        limited("key", &key, KEY_BYTES)?;
        limited("value", &value, VALUE_BYTES)?;
        let region = region(region_id)?;
        let guard = self.keeper.write_guard(region);
        let guard = guard.or_else(|error| self.regions.kept_right(region).ok_or(error));
        let guard = guard.map_err(|error| status(error.into()))?;
        let epoch = guard.epoch().0;
        self.regions.put(guard, key, value).await.map_err(status)?;
        Ok(Response::new(PutResponse { epoch }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { region_id, key } = request.into_inner();
        limited("key", &key, KEY_BYTES)?;
        let value = self.regions.get(region(region_id)?, &key).map_err(status)?;
        Ok(Response::new(GetResponse { value }))
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        let ScanRequest { region_id, start, limit } = request.into_inner();
        limited("start", &start, KEY_BYTES)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let scanned = self.regions.scan(region(region_id)?, &start, limit).map_err(status)?;
        let pairs = scanned.pairs.into_iter().map(|(key, value)| KeyValuePair { key, value }).collect();
        Ok(Response::new(ScanResponse { pairs, more: scanned.more }))
    }
}
