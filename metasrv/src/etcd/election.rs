//! etcd's campaign and lease APIs, on connections of their own: nothing that the store does can hold a keep-alive up.

use std::time::Duration;

use etcd_client::{Error, GetOptions, SortOrder, SortTarget, WatchOptions};
use metasrv_core::id::Fence;
use tokio::sync::mpsc;

use super::connection::{CALL_TIMEOUT, EtcdConnection, classify, kv};
use super::store::to_record;
use crate::dial::Dialer;
use crate::store::{Page, Record, StoreError};

/// A campaign is ended by whoever waits for it; etcd's own answer to one that cannot be reached comes by the pings.
const CAMPAIGN: &str = "campaign";

/// What a keep-alive showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeptAlive {
    /// The lease lives for another TTL.
    Yes,
    /// It is gone.
    Gone,
}

/// What became of a revocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Revoked {
    /// The lease and its keys are gone now.
    Done,
    /// It was gone before.
    NotFound,
}

/// The election of one cluster's leader.
pub struct EtcdElection {
    /// Keep-alives and reads of our key: what leadership is proved by.
    leases: EtcdConnection,
    /// Reads of the queue, for those who watch.
    queue: EtcdConnection,
}

impl EtcdElection {
    /// On these endpoints; connects when it is used.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where an endpoint is no URL.
    pub fn new(endpoints: &[String]) -> Result<EtcdElection, StoreError> {
        EtcdElection::through(endpoints, &Dialer::default())
    }

    /// The same, reached by this dialer.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where an endpoint is no URL.
    pub fn through(endpoints: &[String], dialer: &Dialer) -> Result<EtcdElection, StoreError> {
        let (leases, queue) =
            (EtcdConnection::new(endpoints, dialer)?, EtcdConnection::new(endpoints, dialer)?);
        Ok(EtcdElection { leases, queue })
    }

    /// Asks for a lease; returns its id and the TTL that etcd chose.
    ///
    /// # Errors
    /// As the store has them. A lease of unknown outcome has no key and expires by itself.
    pub async fn grant(&self, ttl: Duration) -> Result<(i64, Duration), StoreError> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let granted = self
            .leases
            .once("grant a lease", CALL_TIMEOUT, |client| async move {
                client.lease_client().grant(seconds, None).await
            })
            .await?;
        Ok((granted.id(), Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or(0))))
    }

    /// Sends one keep-alive on a stream of its own and waits for its answer: an expired lease, or a slow member,
    /// holds up no other keep-alive.
    ///
    /// # Errors
    /// No answer is no success: also a stream that ends without one.
    pub async fn keep_alive_once(&self, lease: i64, timeout: Duration) -> Result<KeptAlive, StoreError> {
        let kept = self.leases.repeatable("keep a lease alive", timeout, |client| async move {
            match client.lease_client().keep_alive(lease).await {
                Ok(_) => Ok(KeptAlive::Yes),
                // The client's word for an answer with TTL 0.
                Err(Error::LeaseKeepAliveError(why)) if why.contains("not found") => Ok(KeptAlive::Gone),
                Err(error) => Err(error),
            }
        });
        kept.await
    }

    /// Stands in the queue until this lease's key is the oldest; returns the fence. May wait for ever: the caller ends
    /// it. A campaign that is cancelled, or whose connection breaks, makes etcd delete the lease's key, perhaps later:
    /// another attempt needs another lease.
    ///
    /// # Errors
    /// Any error leaves open whether it was won.
    pub async fn campaign(&self, name: &str, lease: i64, value: Vec<u8>) -> Result<Fence, StoreError> {
        let unknown = |why: String| StoreError::Unknown { operation: CAMPAIGN, why };
        let (endpoint, client) = self.leases.dedicated().await.map_err(|error| classify(CAMPAIGN, &error))?;
        let won = match client.election_client().campaign(name, value, lease).await {
            Ok(won) => won,
            Err(error) => {
                self.leases.rotate(endpoint);
                return Err(classify(CAMPAIGN, &error));
            }
        };
        let leader = won.leader().ok_or_else(|| unknown("the answer names no key".to_owned()))?;
        let key = leader.key_str().map_err(|error| unknown(error.to_string()))?.to_owned();
        Ok(Fence { key, create_revision: leader.rev() })
    }

    /// Reads one key, linearizable.
    ///
    /// # Errors
    /// As the store has them.
    pub async fn read_key(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let read = self.leases.repeatable("read the election key", CALL_TIMEOUT, |client| {
            let key = key.to_owned();
            async move { kv(&client).get(key, None).await }
        });
        read.await?.kvs().first().map(to_record).transpose()
    }

    /// Revokes a lease, and with it its key.
    ///
    /// # Errors
    /// As the store has them; may be repeated until it says [`Revoked::NotFound`].
    pub async fn revoke(&self, lease: i64) -> Result<Revoked, StoreError> {
        let revoked = self.leases.repeatable("revoke a lease", CALL_TIMEOUT, |client| async move {
            match client.lease_client().revoke(lease).await {
                Ok(_) => Ok(Revoked::Done),
                Err(Error::GRpcStatus(status)) if status.code() == tonic::Code::NotFound => {
                    Ok(Revoked::NotFound)
                }
                Err(error) => Err(error),
            }
        });
        revoked.await
    }

    /// The queue: every candidate's key, the oldest (which leads) first.
    ///
    /// # Errors
    /// As the store has them.
    pub async fn candidates(&self, name: &str) -> Result<Page, StoreError> {
        let read = self.queue.repeatable("read the queue", CALL_TIMEOUT, |client| {
            let prefix = format!("{name}/");
            let options = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend);
            async move { kv(&client).get(prefix, Some(options)).await }
        });
        let answer = read.await?;
        let records: Result<Vec<Record>, StoreError> = answer.kvs().iter().map(to_record).collect();
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        Ok(Page { records: records?, revision })
    }

    /// Says when the queue may have changed, until anything goes wrong. A watch may also fall silent: whoever relies on
    /// it reads the queue now and then all the same.
    ///
    /// # Errors
    /// As the store has them.
    pub async fn watch_candidates(&self, name: &str) -> Result<mpsc::Receiver<()>, StoreError> {
        let mut watch = self
            .queue
            .repeatable("watch the queue", CALL_TIMEOUT, |client| {
                let prefix = format!("{name}/");
                let options = WatchOptions::new().with_prefix();
                async move { client.watch_client().watch(prefix, Some(options)).await }
            })
            .await?;
        // One note is as good as many: the reader reads the whole queue.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    () = sender.closed() => return,
                    message = watch.message() => match message {
                        Ok(Some(change)) if !change.canceled() => {
                            // Full means that a note is already waiting.
                            let _ = sender.try_send(());
                        }
                        Ok(_) | Err(_) => return,
                    },
                }
            }
        });
        Ok(receiver)
    }
}
