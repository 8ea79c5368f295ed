//! Keeps a frontend registered: a heartbeat at the interval on a stream to the leader, and another stream whenever that
//! one ends, for whatever reason.

use std::time::Duration;

use metasrv_proto::meta::{HeartbeatRequest, NodeInfo, Peer, Role};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use crate::client::MetaClient;
use crate::config::{ConfigError, Violation, parse_address};
use crate::error::ClientError;
use crate::heartbeat::{HeartbeatSender, HeartbeatStream, wall_clock_ms};
use crate::pace::{Rhythm, dictated_interval};

/// What a frontend says of itself.
#[derive(Clone, Debug)]
pub struct FrontendOptions {
    /// `host:port` of its own service.
    pub addr: String,
    /// Time between two heartbeats, until metasrv dictates another one.
    pub interval: Duration,
    /// Version and host, for people.
    pub info: NodeInfo,
}

/// A frontend that stays registered until it is stopped or dropped.
pub struct FrontendTask {
    registered: watch::Receiver<Option<u64>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl FrontendTask {
    /// Starts. The client's role has to be [`Role::Frontend`].
    pub fn start(client: MetaClient, options: FrontendOptions) -> Result<FrontendTask, ConfigError> {
        let mut violations = Vec::new();
        if client.config().role != Role::Frontend {
            violations.push(Violation {
                field: "role",
                rule: "the client of a frontend has the role FRONTEND".to_owned(),
            });
        }
        if let Err(why) = parse_address(&options.addr) {
            violations.push(Violation { field: "addr", rule: format!("{:?} {why}", options.addr) });
        }
        if options.interval.is_zero() {
            violations.push(Violation { field: "interval", rule: "must be more than zero".to_owned() });
        }
        if !violations.is_empty() {
            return Err(ConfigError { violations });
        }
        let (registered_sender, registered) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let own = Frontend {
            client,
            options,
            node_epoch: wall_clock_ms(),
            nonce: rand::random::<u64>().max(1),
            registered: registered_sender,
        };
        let task = tokio::spawn(own.run(stopped));
        Ok(FrontendTask { registered, stop, task })
    }

    /// The id that metasrv gave it, once it is registered; `None` while it has no stream.
    pub fn member_id(&self) -> Option<u64> {
        *self.registered.borrow()
    }

    /// Waits until it is registered and returns its id. `None` if it was stopped.
    pub async fn registered(&self) -> Option<u64> {
        let mut registered = self.registered.clone();
        let seen = registered.wait_for(Option::is_some).await.ok()?;
        *seen
    }

    /// Ends the stream and the task.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        if (&mut self.task).await.is_err() {
            warn!("the frontend's heartbeat task did not end by itself");
        }
    }
}

impl Drop for FrontendTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the task owns.
struct Frontend {
    client: MetaClient,
    options: FrontendOptions,
    node_epoch: u64,
    nonce: u64,
    registered: watch::Sender<Option<u64>>,
}

impl Frontend {
    async fn run(self, mut stopped: watch::Receiver<bool>) {
        let stop = async move {
            // An error means that the handle is gone, which ends the task as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            biased;
            () = stop => {}
            () = self.keep_registered() => {}
        }
        self.registered.send_replace(None);
    }

    async fn keep_registered(&self) {
        let mut waits = self.client.config().back_off.start();
        let created = tokio::time::Instant::now();
        let mut rhythm = Rhythm::new(self.options.interval);
        let mut hinted = false;
        // A stream that is left for a leader of a higher term stays open until that one has accepted another.
        let mut left = None;
        loop {
            let opened = self.client.heartbeat(self.request(&created)).await;
            let error = match opened {
                Ok((sender, stream)) => {
                    waits.reset();
                    drop(left.take());
                    let (error, sender, stream) = self.session(sender, stream, &created, &mut rhythm).await;
                    if matches!(error, ClientError::LeaderChanged { .. }) {
                        left = Some((sender, stream));
                        continue;
                    }
                    let wait = rhythm.reconnect_after(stream.suspicion().accepted());
                    drop((sender, stream));
                    self.registered.send_replace(None);
                    debug!(%error, ?wait, "frontend's stream ended; opening another one");
                    tokio::time::sleep(wait).await;
                    continue;
                }
                Err(error) => error,
            };
            self.registered.send_replace(None);
            debug!(%error, "no stream for the frontend; attempts go on");
            // A hint is followed at once, but not one that follows another: two replicas may name each other.
            hinted = error.names_leader() && !hinted;
            if !hinted {
                waits.wait().await;
            }
        }
    }

    /// Heartbeats at the interval until the stream is of no use any more; says why, and gives it back.
    async fn session(
        &self,
        mut sender: HeartbeatSender,
        mut stream: HeartbeatStream,
        created: &tokio::time::Instant,
        rhythm: &mut Rhythm,
    ) -> (ClientError, HeartbeatSender, HeartbeatStream) {
        let suspicion = stream.suspicion();
        let mut leave = std::pin::pin!(suspicion.confirmed(rhythm.interval()));
        // The handshake was a heartbeat.
        rhythm.beat();
        let error = loop {
            let response = tokio::select! {
                biased;
                response = stream.next() => response,
                error = &mut leave => break error,
                () = rhythm.due() => {
                    rhythm.beat();
                    match sender.send(self.request(created)).await {
                        Ok(_) => continue,
                        Err(error) => break error,
                    }
                }
            };
            let response = match response {
                Ok(response) => response,
                Err(error) => break error,
            };
            self.welcome(stream.leader().term);
            match dictated_interval(&response) {
                Ok(Some(dictated)) if dictated != rhythm.interval() => {
                    rhythm.change(dictated);
                    leave.set(suspicion.confirmed(dictated));
                }
                Ok(_) => {}
                Err(error) => warn!(%error, "the interval stays as it is"),
            }
        };
        (error, sender, stream)
    }

    fn welcome(&self, term: u64) {
        let id = self.client.member_id();
        self.registered.send_if_modified(|registered| {
            let changed = *registered != Some(id);
            if changed {
                info!(member_id = id, term, "frontend registered");
                *registered = Some(id);
            }
            changed
        });
    }

    fn request(&self, created: &tokio::time::Instant) -> HeartbeatRequest {
        HeartbeatRequest {
            peer: Some(Peer { id: self.client.member_id(), addr: self.options.addr.clone() }),
            duration_since_epoch: u64::try_from(created.elapsed().as_millis()).unwrap_or(u64::MAX),
            node_epoch: self.node_epoch,
            incarnation_nonce: self.nonce,
            info: Some(self.options.info.clone()),
            ..Default::default()
        }
    }
}
