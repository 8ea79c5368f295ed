//! What keeps a route cache current: one stream to one replica, and the next one wherever it ends.
//!
//! | the stream | what the cache does |
//! | --- | --- |
//! | ends, or cannot be opened | the next replica, at once; when all have failed in a row, after a pause |
//! | says nothing for three seconds | the next replica: a sign of life comes every second |
//! | is of another installation | the next replica: it is not listened to |
//! | goes back to a lower revision or a lower epoch | the next replica, from the beginning |
//! | begins with a snapshot of a lower revision | the next replica, which is told what is known, and has to prove that the store was set back |
//!
//! A cache that heard nothing for thirty seconds begins anew as well: in that time the store may have been set back to a
//! backup, and have come to the same revisions by other changes.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use metasrv_proto::admin::routes_client::RoutesClient;
use metasrv_proto::admin::{WatchRoutesRequest, WatchRoutesResponse};
use rand::seq::SliceRandom as _;
use tokio::time::Instant;
use tonic::Streaming;
use tracing::{debug, warn};

use crate::channels::Lent;
use crate::client::MetaClient;
use crate::error::ClientError;
use crate::route_table::Refusal;
use crate::routes::{Known, Shared};

/// A replica that says nothing for so long is left. It says something every second.
const SILENCE: Duration = Duration::from_secs(3);

/// Whoever heard nothing for so long does not resume.
const RESUMABLE: Duration = Duration::from_secs(30);

/// A stream that lasted so long is no failure, however it ended.
const LASTING: Duration = Duration::from_secs(1);

/// Whether the next stream goes on from what is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum GoingOn {
    Always,
    IfFresh,
    Never,
}

/// What keeps a cache current.
pub(crate) struct Follower {
    client: MetaClient,
    cluster_id: u64,
    shared: Arc<Shared>,
}

impl Follower {
    /// Nothing is opened before it runs.
    pub(crate) fn new(client: MetaClient, cluster_id: u64, shared: Arc<Shared>) -> Follower {
        Follower { client, cluster_id, shared }
    }

    pub(crate) async fn run(self) {
        let mut waits = self.client.config().back_off.start();
        let mut round = Vec::new();
        let mut going_on = GoingOn::IfFresh;
        loop {
            if round.is_empty() {
                round = self.client.peers().to_vec();
                round.shuffle(&mut rand::rng());
            }
            let Some(peer) = round.pop() else { return };
            let began = Instant::now();
            let end = self.listen(&peer, going_on).await;
            self.update(|known| {
                known.replica = None;
                known.last_end = end.to_string();
            });
            going_on = match end {
                End::Failed(_) => GoingOn::IfFresh,
                End::Refused(Refusal::LowerSnapshot { .. }) => GoingOn::Always,
                End::Refused(_) => GoingOn::Never,
            };
            debug!(peer, %end, "a stream of routes ended; asking another replica");
            if began.elapsed() >= LASTING {
                waits.reset();
                // Any of the others may be asked next, and this one last.
                round = self.client.peers().iter().filter(|other| **other != peer).cloned().collect();
                round.shuffle(&mut rand::rng());
                round.insert(0, peer);
            } else if round.is_empty() {
                waits.wait().await;
            }
        }
    }

    /// Listens to a replica until that is of no use any more.
    async fn listen(&self, peer: &str, going_on: GoingOn) -> End {
        let lent = match self.client.channels().get(peer) {
            Ok(lent) => lent,
            Err(error) => return End::Failed(error),
        };
        let end = self.listen_on(peer, &lent, going_on).await;
        if let End::Failed(ClientError::Transport { .. } | ClientError::TimedOut { .. }) = &end {
            self.client.channels().forget(&lent);
        }
        end
    }

    async fn listen_on(&self, peer: &str, lent: &Lent, going_on: GoingOn) -> End {
        let after_revision = self.begin(going_on);
        let request = WatchRoutesRequest {
            cluster_id: self.cluster_id,
            after_revision,
            installation: self.client.installation(),
        };
        let mut stub = RoutesClient::new(lent.channel.clone())
            .max_decoding_message_size(self.client.config().max_message_bytes);
        let limit = self.client.config().timeouts.handshake;
        let mut stream = match tokio::time::timeout(limit, stub.watch(request)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return End::Failed(ClientError::transport(peer, &status)),
            Err(_) => return End::silent(limit),
        };
        let mut first = true;
        loop {
            let message = match next(peer, &mut stream).await {
                Ok(message) => message,
                Err(error) => return End::Failed(error),
            };
            if let Err(error) = self.client.judge_installation(peer, message.installation) {
                return End::Failed(error);
            }
            if std::mem::take(&mut first) {
                self.update(|known| {
                    known.streams = known.streams.saturating_add(1);
                    known.replica = Some(peer.to_owned());
                });
            }
            if let Err(refusal) = self.take(message) {
                warn!(peer, %refusal, "a message of routes was refused");
                return End::Refused(refusal);
            }
        }
    }

    /// Begins a stream; returns the revision to go on from.
    fn begin(&self, going_on: GoingOn) -> u64 {
        let mut after = 0;
        self.update(|known| {
            let goes_on = match going_on {
                GoingOn::Always => true,
                GoingOn::IfFresh => known.current_at.is_some_and(|at| at.elapsed() < RESUMABLE),
                GoingOn::Never => false,
            };
            if goes_on {
                after = known.table.revision();
            }
            known.table.begin(after);
        });
        after
    }

    fn take(&self, message: WatchRoutesResponse) -> Result<(), Refusal> {
        let complete = message.complete;
        let mut taken = Ok(());
        self.update(|known| match known.table.take(message) {
            Ok(changes) => {
                for change in changes {
                    // Nobody may be watching.
                    let _ = self.shared.changes.send(change);
                }
                if complete {
                    known.current_at = Some(Instant::now());
                }
            }
            Err(refusal) => {
                known.refused = known.refused.saturating_add(1);
                taken = Err(refusal);
            }
        });
        taken
    }

    fn update(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.shared.known.write().unwrap_or_else(PoisonError::into_inner));
        self.shared.moved.send_replace(());
    }
}

async fn next(
    peer: &str,
    stream: &mut Streaming<WatchRoutesResponse>,
) -> Result<WatchRoutesResponse, ClientError> {
    match tokio::time::timeout(SILENCE, stream.message()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(ClientError::Ended { addr: peer.to_owned() }),
        Ok(Err(status)) => Err(ClientError::transport(peer, &status)),
        Err(_) => Err(silence(SILENCE)),
    }
}

fn silence(limit: Duration) -> ClientError {
    let why = "it says nothing".to_owned();
    ClientError::TimedOut { what: "watch routes", after: limit, why }
}

/// Why a stream is left.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Failed(ClientError),
    #[error("{0}")]
    Refused(Refusal),
}

impl End {
    fn silent(limit: Duration) -> End {
        End::Failed(silence(limit))
    }
}
