//! The model by itself, over TCP and in real time: how the contract is asked of it in the same words as of a real etcd.

use std::time::Duration;

use metasrv::clock::SystemClock;
use metasrv_core::time::Clock as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::server::TcpIncoming;

use super::{MEMBERS, ModelEtcd};

/// Time between two looks at leases.
const TICK: Duration = Duration::from_millis(20);

/// A model whose members listen on local ports until this is dropped.
pub struct Served {
    /// What befalls it is done here.
    pub etcd: ModelEtcd,
    endpoints: Vec<String>,
    _tasks: JoinSet<()>,
}

impl Served {
    /// An empty one.
    ///
    /// # Errors
    /// Where no port is to be had.
    pub async fn start() -> std::io::Result<Served> {
        let etcd = ModelEtcd::new(1);
        let (mut endpoints, mut tasks) = (Vec::new(), JoinSet::new());
        for member in 0..MEMBERS {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            endpoints.push(format!("http://{}", listener.local_addr()?));
            let server = etcd.member(member).serve_with_incoming(TcpIncoming::from(listener));
            tasks.spawn(async move {
                // It ends with its task.
                let _ = server.await;
            });
        }
        let ticking = etcd.clone();
        tasks.spawn(async move {
            loop {
                ticking.advance(SystemClock.now().as_nanos());
                tokio::time::sleep(TICK).await;
            }
        });
        etcd.advance(SystemClock.now().as_nanos());
        Ok(Served { etcd, endpoints, _tasks: tasks })
    }

    /// `http://host:port` of each member.
    pub fn endpoints(&self) -> Vec<String> {
        self.endpoints.clone()
    }
}
