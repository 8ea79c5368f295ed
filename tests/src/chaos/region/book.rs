//! Where the writers believe that each region is: what any replica tells a frontend.
//!
//! One route cache serves all writers, as it would serve all requests of a frontend. It listens to one replica, whether
//! that leads or not, and goes on at another one where that ends or falls silent. Nobody asks again and again: a change
//! comes to whoever waits for it.

use std::sync::Arc;

use metasrv_client::{MetaClient, MetaClientConfig, RouteCache, RouteChange};
use metasrv_proto::meta::Role;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::chaos::servers::Routes;

/// See the module. Nobody is listened to any more when this is dropped.
pub struct Book {
    reader: Reader,
    _task: JoinSet<()>,
}

/// What a writer has of it.
#[derive(Clone)]
pub struct Reader {
    routes: watch::Receiver<Arc<Routes>>,
}

impl Book {
    /// Begins to listen to these replicas.
    ///
    /// # Errors
    /// The client does not take the addresses.
    pub fn open(replicas: &[String]) -> Result<Book, String> {
        let config = MetaClientConfig::new(replicas, Role::Frontend, 0);
        let cache = MetaClient::try_new(config).map_err(|error| error.to_string())?.route_cache(0);
        let (sender, routes) = watch::channel(Arc::new(Routes::new()));
        let mut task = JoinSet::new();
        task.spawn(follow(cache, sender));
        Ok(Book { reader: Reader { routes }, _task: task })
    }

    /// To be read by a writer.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }
}

impl Reader {
    /// The node and the epoch of a region, where they are known.
    pub fn route(&mut self, region: u64) -> Option<(u64, u64)> {
        self.routes.borrow_and_update().get(&region).copied()
    }

    /// Returns when the route of this region is another one than this.
    pub async fn changed(&mut self, region: u64, known: Option<(u64, u64)>) {
        while self.route(region) == known {
            if self.routes.changed().await.is_err() {
                // The book is closed: whoever reads it ends soon.
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn follow(cache: RouteCache, routes: watch::Sender<Arc<Routes>>) {
    let mut changes = cache.watch();
    let all = || {
        let all = cache.all();
        Arc::new(all.iter().map(|route| (route.region_id, (route.node_id, route.epoch))).collect())
    };
    // What came before anybody listened.
    routes.send_replace(all());
    while let Some(change) = changes.next().await {
        routes.send_modify(|known| match change {
            RouteChange::Changed(route) => {
                Arc::make_mut(known).insert(route.region_id, (route.node_id, route.epoch));
            }
            RouteChange::Dropped { region_id, .. } => {
                Arc::make_mut(known).remove(&region_id);
            }
            RouteChange::Replaced => *known = all(),
        });
    }
}
