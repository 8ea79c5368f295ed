//! The `Routes` service: whoever watches has a task, a place on the board, and one message under way.
//!
//! Nothing piles up for a reader that does not read: it loses its stream, and resumes. A sign of life every second tells
//! it that the board is kept current; a board that is not sends it away.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use metasrv_core::id::ClusterId;
use metasrv_proto::admin::routes_server::Routes;
use metasrv_proto::admin::{WatchRoutesRequest, WatchRoutesResponse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::routes::RouteBoard;
use crate::routes::cursor::{Beginning, Cursor, Next};

/// Watchers of one replica. With one message of 60 KB under way for each, and as much in its connection, 120 MB where
/// nobody reads.
const WATCHERS: usize = 1_024;

/// A reader that does not read for so long loses its stream.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two signs of life. A client gives a replica up that is silent for three of them.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// The service.
pub struct RoutesService {
    board: RouteBoard,
    places: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

type Updates = mpsc::Sender<Result<WatchRoutesResponse, Status>>;

impl RoutesService {
    /// Over the board of this replica; its streams end when `closing` turns true.
    pub fn new(board: RouteBoard, closing: watch::Receiver<bool>) -> RoutesService {
        RoutesService { board, places: Arc::new(Semaphore::new(WATCHERS)), closing }
    }
}

fn count(board: &RouteBoard, began: &str) {
    board.metrics().route_watches.with_label_values(&[began]).inc();
}

#[tonic::async_trait]
impl Routes for RoutesService {
    type WatchStream = Pin<Box<dyn futures_util::Stream<Item = Result<WatchRoutesResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<WatchRoutesRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            count(&self.board, "refused");
            return Err(Status::resource_exhausted(format!(
                "{WATCHERS} watchers are here already; ask another replica"
            )));
        };
        let (updates, receiver) = mpsc::channel(1);
        let watcher = Watcher { board: self.board.clone(), updates, closing: self.closing.clone() };
        // It ends with its reader, or with the replica; tonic drops the receiver when the reader is gone.
        tokio::spawn(watcher.run(request.into_inner(), place));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// One stream.
struct Watcher {
    board: RouteBoard,
    updates: Updates,
    closing: watch::Receiver<bool>,
}

impl Watcher {
    async fn run(self, request: WatchRoutesRequest, _place: OwnedSemaphorePermit) {
        let watchers = &self.board.metrics().route_watchers;
        watchers.inc();
        let mut closing = self.closing.clone();
        let end = tokio::select! {
            biased;
            // The sender is gone only when the replica is.
            _ = closing.wait_for(|closing| *closing) => Some(Status::unavailable("this replica ends")),
            () = self.updates.closed() => None,
            end = self.serve(request) => end,
        };
        if let Some(status) = end {
            // Nobody is left to be told where this fails.
            let _ = tokio::time::timeout(WRITE_TIMEOUT, self.updates.send(Err(status))).await;
        }
        watchers.dec();
    }

    /// Tells what there is to tell; says why that ends, where the reader can be told.
    async fn serve(&self, request: WatchRoutesRequest) -> Option<Status> {
        let WatchRoutesRequest { cluster_id, after_revision, installation } = request;
        // Before the first look, so that nothing falls between.
        let mut changed = self.board.subscribe();
        let begun = self.board.begin(ClusterId(cluster_id), after_revision, installation).await;
        let mut cursor = match begun {
            Ok((cursor, beginning)) => {
                let began = match beginning {
                    Beginning::Resumed => "resumed",
                    Beginning::Snapshot => "snapshot",
                };
                count(&self.board, began);
                cursor
            }
            Err(unready) => {
                count(&self.board, "refused");
                return Some(Status::unavailable(unready.to_string()));
            }
        };
        let mut signs = interval(SIGN_OF_LIFE);
        signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        signs.reset();
        loop {
            changed.borrow_and_update();
            if let Err(end) = self.tell_all(&mut cursor).await {
                return end;
            }
            tokio::select! {
                biased;
                _ = signs.tick() => {
                    if self.board.is_forsaken() {
                        return Some(Status::unavailable(crate::routes::Unready::Forsaken.to_string()));
                    }
                    if let Err(end) = self.tell(&mut cursor, RouteBoard::advance_or_sign).await {
                        return end;
                    }
                }
                _ = changed.changed() => {}
            }
        }
    }

    async fn tell_all(&self, cursor: &mut Cursor) -> Result<(), Option<Status>> {
        while self.tell(cursor, RouteBoard::advance).await? {}
        Ok(())
    }

    /// Tells one message; says whether there was one. An error ends the stream.
    async fn tell(
        &self,
        cursor: &mut Cursor,
        next: impl Fn(&RouteBoard, &mut Cursor) -> Next,
    ) -> Result<bool, Option<Status>> {
        let snapshots = cursor.again();
        let message = match next(&self.board, cursor) {
            Next::Message(message) => message,
            Next::Nothing => return Ok(false),
            Next::FellBehind => {
                return Err(Some(Status::aborted(
                    "more has changed than is kept for a snapshot; begin again",
                )));
            }
        };
        if cursor.again() > snapshots {
            count(&self.board, "again");
        }
        match tokio::time::timeout(WRITE_TIMEOUT, self.updates.send(Ok(message))).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(_)) => Err(None),
            Err(_) => {
                tracing::debug!("a watcher of routes does not read; its stream ends");
                Err(None)
            }
        }
    }
}
