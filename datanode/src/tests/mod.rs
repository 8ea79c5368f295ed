//! The heartbeat task against small replicas that say what each test needs.

#[path = "../../../client/src/fake.rs"]
#[allow(dead_code)]
mod fake;

mod instruction;
mod migration;
mod silence;
mod stream;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use metasrv_client::{MetaClient, MetaClientConfig};
use metasrv_core::id::{Epoch, RegionId};
use metasrv_proto::meta::{HeartbeatRequest, Role};

use tokio::sync::Semaphore;

use crate::{
    HeartbeatTask, HeartbeatTaskOptions, OpenOptions, RegionError, RegionRole, RegionServer, RegionStat,
};
use fake::{FakeMetasrv, FakeStream, renewal};

/// Regions in memory. Opening one of the refused ones fails.
#[derive(Default)]
struct Memory {
    open: Mutex<BTreeMap<RegionId, Epoch>>,
    refused: Mutex<Vec<u64>>,
    flushed: Mutex<Vec<u64>>,
    /// The epoch that the storage of every region has seen.
    storage: Mutex<Epoch>,
    /// Opening a region waits for this, where it is set.
    slow: Mutex<Option<Arc<Semaphore>>>,
}

impl Memory {
    fn open_regions(&self) -> Vec<(u64, u64)> {
        self.open.lock().unwrap().iter().map(|(region, epoch)| (region.0, epoch.0)).collect()
    }
}

#[async_trait]
impl RegionServer for Memory {
    async fn open(&self, region: RegionId, options: OpenOptions) -> Result<(), RegionError> {
        if self.refused.lock().unwrap().contains(&region.0) {
            return Err(RegionError::new("its disk is gone"));
        }
        let storage = *self.storage.lock().unwrap();
        if options.epoch < storage {
            return Err(RegionError { message: "fenced".to_owned(), storage_epoch: Some(storage) });
        }
        let slow = self.slow.lock().unwrap().clone();
        if let Some(slow) = slow {
            slow.acquire().await.unwrap().forget();
        }
        self.open.lock().unwrap().insert(region, options.epoch);
        Ok(())
    }

    async fn close(&self, region: RegionId) -> Result<(), RegionError> {
        self.open.lock().unwrap().remove(&region);
        Ok(())
    }

    async fn set_role(&self, _: RegionId, _: Epoch, _: RegionRole) {}

    async fn flush(&self, region: RegionId) -> Result<(), RegionError> {
        self.flushed.lock().unwrap().push(region.0);
        Ok(())
    }

    fn stats(&self) -> Vec<RegionStat> {
        Vec::new()
    }
}

/// A datanode of id 7 whose only replica is the fake; its regular heartbeats are far apart.
struct Node {
    fake: FakeMetasrv,
    task: HeartbeatTask,
    server: Arc<Memory>,
}

const SELDOM: Duration = Duration::from_secs(300);

impl Node {
    /// Started.
    async fn start(change: impl FnOnce(&mut HeartbeatTaskOptions)) -> Node {
        let fake = FakeMetasrv::start().await;
        let mut config = MetaClientConfig::new([fake.addr.clone()], Role::Datanode, 7);
        config.timeouts.handshake = Duration::from_secs(5);
        let client = MetaClient::try_new(config).unwrap();
        let server = Arc::new(Memory::default());
        let mut options = HeartbeatTaskOptions::new(client, "127.0.0.1:4007", server.clone());
        options.interval = SELDOM;
        change(&mut options);
        let task = HeartbeatTask::try_new(options).unwrap();
        task.start();
        Node { fake, task, server }
    }

    /// Its next stream, after the handshake.
    async fn stream(&mut self) -> (HeartbeatRequest, FakeStream) {
        let mut stream = self.fake.stream().await;
        let handshake = stream.welcome(1).await;
        (handshake, stream)
    }
}
