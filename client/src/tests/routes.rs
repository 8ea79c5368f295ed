//! The route cache against small replicas that tell what each test needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metasrv_proto::admin::routes_server::{Routes, RoutesServer};
use metasrv_proto::admin::{Route as WireRoute, WatchRoutesRequest, WatchRoutesResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::*;
use crate::fake::{FakeMetasrv, INSTALLATION, LIMIT, eventually, nobody, within};
use crate::{RouteCache, RouteChange};

type Updates = mpsc::Sender<Result<WatchRoutesResponse, Status>>;

/// A stream that was opened, and what it was opened with.
struct Watched {
    request: WatchRoutesRequest,
    updates: Updates,
}

impl Watched {
    async fn tell(&self, message: WatchRoutesResponse) {
        within("a message is taken", self.updates.send(Ok(message))).await.expect("the stream lives");
    }
}

struct Service {
    opened: mpsc::Sender<Watched>,
    full: Arc<AtomicBool>,
}

#[tonic::async_trait]
impl Routes for Service {
    type WatchStream = ReceiverStream<Result<WatchRoutesResponse, Status>>;

    async fn watch(
        &self,
        request: Request<WatchRoutesRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if self.full.load(Ordering::SeqCst) {
            return Err(Status::resource_exhausted("there is no place"));
        }
        let (updates, receiver) = mpsc::channel(64);
        let watched = Watched { request: request.into_inner(), updates };
        self.opened.send(watched).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// A replica, and the streams that are opened to it.
struct Replica {
    fake: FakeMetasrv,
    opened: mpsc::Receiver<Watched>,
    full: Arc<AtomicBool>,
}

impl Replica {
    async fn start() -> Replica {
        let (sender, opened) = mpsc::channel(64);
        let full = Arc::new(AtomicBool::new(false));
        let service = Service { opened: sender, full: Arc::clone(&full) };
        let fake = FakeMetasrv::start_with(|routes| {
            routes.add_service(RoutesServer::new(service));
        });
        Replica { fake: fake.await, opened, full }
    }

    async fn watched(&mut self) -> Watched {
        within("a stream is opened", self.opened.recv()).await.expect("the service lives")
    }
}

/// Waits until a stream is opened to either of two replicas; says to which.
async fn either(replicas: &mut [Replica; 2]) -> (usize, Watched) {
    let [one, other] = replicas;
    tokio::select! {
        watched = one.watched() => (0, watched),
        watched = other.watched() => (1, watched),
    }
}

fn route(region_id: u64, node_id: u64, epoch: u64) -> WireRoute {
    WireRoute { region_id, node_id, node_addr: format!("n{node_id}:1"), epoch, ..WireRoute::default() }
}

fn changes(revision: u64, changed: Vec<WireRoute>) -> WatchRoutesResponse {
    WatchRoutesResponse {
        revision,
        installation: INSTALLATION,
        complete: true,
        changed,
        ..WatchRoutesResponse::default()
    }
}

fn snapshot(revision: u64, changed: Vec<WireRoute>) -> WatchRoutesResponse {
    WatchRoutesResponse { snapshot: true, ..changes(revision, changed) }
}

fn node(cache: &RouteCache, region: u64) -> Option<(u64, u64)> {
    cache.get(region).map(|route| (route.node_id, route.epoch))
}

/// Goal: the cache outlives its replica: it goes on at the revision that it has reached, on another one.
#[tokio::test]
async fn a_cache_goes_on_at_its_revision_when_its_replica_dies() {
    let mut replicas = [Replica::start().await, Replica::start().await];
    let cache = client([replicas[0].fake.addr.as_str(), &replicas[1].fake.addr]).route_cache(3);
    let (first, watched) = either(&mut replicas).await;
    assert_eq!(watched.request, WatchRoutesRequest { cluster_id: 3, after_revision: 0, installation: 0 });
    watched.tell(snapshot(5, vec![route(1, 1, 1)])).await;
    cache.ready(LIMIT).await.unwrap();
    let mut seen = cache.watch();
    watched.tell(changes(7, vec![route(1, 2, 2)])).await;
    cache.wait_for(1, LIMIT, |route| route.is_some_and(|route| route.epoch == 2)).await.unwrap();
    let [one, other] = replicas;
    let (dying, mut next) = if first == 0 { (one, other) } else { (other, one) };
    dying.fake.kill();
    let watched = next.watched().await;
    let resumed = WatchRoutesRequest { cluster_id: 3, after_revision: 7, installation: INSTALLATION };
    assert_eq!(watched.request, resumed);
    assert_eq!(node(&cache, 1), Some((2, 2)), "what is known stays known meanwhile");
    watched.tell(changes(9, vec![route(1, 1, 3)])).await;
    cache.wait_for_revision(9, LIMIT).await.unwrap();
    assert_eq!(node(&cache, 1), Some((1, 3)));
    for epoch in 2..=3 {
        let change = within("a change is told", seen.next()).await;
        assert!(matches!(change, Some(RouteChange::Changed(route)) if route.epoch == epoch));
    }
    assert_eq!((cache.counts().streams, cache.counts().snapshots), (2, 1));
    assert_eq!(cache.replica().as_deref(), Some(next.fake.addr.as_str()));
}

#[tokio::test]
async fn a_replica_that_falls_silent_is_left() {
    let mut replicas = [Replica::start().await, Replica::start().await];
    let cache = client([replicas[0].fake.addr.as_str(), &replicas[1].fake.addr]).route_cache(0);
    let (first, watched) = either(&mut replicas).await;
    watched.tell(snapshot(5, vec![route(1, 1, 1)])).await;
    cache.ready(LIMIT).await.unwrap();
    let (second, _) = either(&mut replicas).await;
    assert_ne!(first, second);
    assert!(cache.age().is_some_and(|age| age >= Duration::from_secs(2)), "{:?}", cache.age());
}

/// Goal: nothing leads the cache back. Method: a replica that tells a lower epoch; the next stream is another one, from
/// the beginning.
#[tokio::test]
async fn a_lower_epoch_is_refused_and_the_cache_begins_anew_elsewhere() {
    let mut replicas = [Replica::start().await, Replica::start().await];
    let cache = client([replicas[0].fake.addr.as_str(), &replicas[1].fake.addr]).route_cache(0);
    let (first, watched) = either(&mut replicas).await;
    watched.tell(snapshot(5, vec![route(1, 1, 3)])).await;
    watched.tell(changes(6, vec![route(1, 2, 2)])).await;
    let (second, watched) = either(&mut replicas).await;
    assert_eq!((first != second, watched.request.after_revision), (true, 0));
    assert_eq!((node(&cache, 1), cache.revision(), cache.counts().refused), (Some((1, 3)), 5, 1));
    // It lags behind: what it has is no news, and it was not asked to prove anything.
    watched.tell(snapshot(4, vec![route(1, 1, 2)])).await;
    let (_, watched) = either(&mut replicas).await;
    assert_eq!(watched.request.after_revision, 5, "now it is");
    assert_eq!(node(&cache, 1), Some((1, 3)));
    watched.tell(snapshot(4, vec![route(1, 1, 2)])).await;
    eventually("the store was set back", || cache.counts().set_backs == 1).await;
    assert_eq!((node(&cache, 1), cache.revision()), (Some((1, 2)), 4));
}

#[tokio::test]
async fn another_installation_is_not_listened_to() {
    let mut replica = Replica::start().await;
    let other = client_with([replica.fake.addr.as_str()], Role::Datanode, |config| config.installation = 5);
    let cache = other.route_cache(0);
    let watched = replica.watched().await;
    watched.tell(snapshot(5, vec![route(1, 1, 1)])).await;
    replica.watched().await;
    assert_eq!((cache.revision(), cache.len(), cache.age()), (0, 0, None));
}

#[tokio::test]
async fn dead_and_full_replicas_are_passed_over() {
    let (mut replica, full) = (Replica::start().await, Replica::start().await);
    full.full.store(true, Ordering::SeqCst);
    let dead = nobody();
    let cache = client([dead.as_str(), full.fake.addr.as_str(), &replica.fake.addr]).route_cache(0);
    let watched = replica.watched().await;
    watched.tell(snapshot(5, vec![route(1, 1, 1)])).await;
    cache.ready(LIMIT).await.unwrap();
    assert_eq!(cache.all().len(), 1);
}

#[tokio::test]
async fn waiting_ends_at_its_limit_and_says_what_is_known() {
    let mut replica = Replica::start().await;
    let cache = client([replica.fake.addr.as_str()]).route_cache(0);
    let watched = replica.watched().await;
    watched.tell(snapshot(5, vec![])).await;
    cache.ready(LIMIT).await.unwrap();
    let error = cache.wait_for(1, Duration::from_millis(50), |route| route.is_some()).await.unwrap_err();
    assert!(error.to_string().contains("revision 5") && error.is_retryable(), "{error}");
}

/// Goal: the stream ends with the last handle of the cache.
#[tokio::test]
async fn a_cache_that_is_dropped_ends_its_stream() {
    let mut replica = Replica::start().await;
    let cache = client([replica.fake.addr.as_str()]).route_cache(0);
    let watched = replica.watched().await;
    watched.tell(snapshot(5, vec![])).await;
    let clone = cache.clone();
    cache.ready(LIMIT).await.unwrap();
    drop(cache);
    clone.ready(LIMIT).await.unwrap();
    assert!(!watched.updates.is_closed());
    drop(clone);
    within("the stream ends", watched.updates.closed()).await;
}
