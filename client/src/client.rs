//! What all clones of a client share: the replicas, the leader as far as it is known, the highest term, the installation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metasrv_proto::{PROTOCOL_VERSION, meta};
use tracing::{debug, info, warn};

use crate::admin::AdminClient;
use crate::channels::Channels;
use crate::config::{ConfigError, MetaClientConfig};
use crate::error::ClientError;
use crate::operations::OperationsClient;

/// Who leads, and since which term.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leader {
    /// `host:port` of its gRPC service.
    pub addr: String,
    /// Its term. 0 from servers that do not know of terms.
    pub term: u64,
}

/// Finds metasrv's leader, follows it, and speaks to it. Clones are cheap and share what is known.
#[derive(Clone)]
pub struct MetaClient {
    inner: Arc<Inner>,
}

struct Inner {
    config: MetaClientConfig,
    peers: Vec<String>,
    channels: Channels,
    known: Mutex<Known>,
    member_id: AtomicU64,
    lower_terms: AtomicU64,
    suspicions: AtomicU64,
}

/// What was learned from answers.
#[derive(Default)]
struct Known {
    leader: Option<Leader>,
    /// The leader that failed last. Followers go on naming it until another one is elected.
    failed: Option<Leader>,
    highest_term: u64,
    installation: u64,
    /// The replica that is next to lead, as the leader says.
    standby: Option<String>,
}

impl MetaClient {
    /// Checks the configuration. Nothing is connected before the first call.
    pub fn try_new(config: MetaClientConfig) -> Result<MetaClient, ConfigError> {
        let peers = config.validate()?;
        let channels =
            Channels::new(config.timeouts, config.keep_alive, config.dialer.secured(config.tls.clone()));
        let known = Known { installation: config.installation, ..Known::default() };
        let member_id = AtomicU64::new(config.member_id);
        let inner = Inner {
            config,
            peers,
            channels,
            known: Mutex::new(known),
            member_id,
            lower_terms: AtomicU64::new(0),
            suspicions: AtomicU64::new(0),
        };
        Ok(MetaClient { inner: Arc::new(inner) })
    }

    /// The configuration it was made of.
    pub fn config(&self) -> &MetaClientConfig {
        &self.inner.config
    }

    /// The replicas that are asked, each as `host:port`.
    pub fn peers(&self) -> &[String] {
        &self.inner.peers
    }

    /// The leader, as far as it is known without asking.
    pub fn leader(&self) -> Option<Leader> {
        self.known(|known| known.leader.clone())
    }

    /// The highest term seen in any answer. 0: none yet.
    pub fn highest_term(&self) -> u64 {
        self.known(|known| known.highest_term)
    }

    /// The installation this node belongs to. 0: not known yet.
    pub fn installation(&self) -> u64 {
        self.known(|known| known.installation)
    }

    /// This node's id: as configured, or as metasrv chose it for a frontend. 0: not chosen yet.
    pub fn member_id(&self) -> u64 {
        self.inner.member_id.load(Ordering::Acquire)
    }

    /// How many answers were refused because their term was lower than one seen before.
    pub fn lower_terms_refused(&self) -> u64 {
        self.inner.lower_terms.load(Ordering::Relaxed)
    }

    /// How often a leader let a response deadline pass, on any stream.
    pub fn suspicions(&self) -> u64 {
        self.inner.suspicions.load(Ordering::Relaxed)
    }

    /// The calls of operators and tools.
    pub fn admin(&self) -> AdminClient {
        AdminClient::new(self.clone())
    }

    /// What operators decide about nodes, regions and failovers.
    pub fn operations(&self) -> OperationsClient {
        OperationsClient::new(self.clone())
    }

    /// Takes a hint from a replica that does not lead. Refused if its term is lower than one seen before. If nobody
    /// answers at that address, the next failure leads to asking everybody again.
    pub fn hint(&self, addr: &str, term: u64) -> bool {
        let Ok(addr) = crate::config::parse_address(addr) else {
            warn!(hint = addr, "a replica names a leader whose address does not parse");
            return false;
        };
        self.known(|known| {
            let believable = term >= known.highest_term;
            if believable {
                known.remember(Leader { addr, term });
            }
            believable
        })
    }

    /// Forgets the leader, if it is still this one: it failed, or does not lead any more.
    pub fn forget_leader(&self, failed: &Leader) {
        self.known(|known| {
            if known.leader.as_ref() == Some(failed) {
                debug!(leader = failed.addr, term = failed.term, "leader forgotten");
                known.leader = None;
            }
            known.failed = Some(failed.clone());
        });
    }

    /// The replica that is next to lead, as the leader said.
    pub fn standby(&self) -> Option<String> {
        self.known(|known| known.standby.clone())
    }

    /// Takes note of who is next to lead; says whether that is news.
    pub(crate) fn note_standby(&self, addr: &str) -> bool {
        self.known(|known| {
            let news = known.standby.as_deref() != Some(addr);
            if news {
                known.standby = Some(addr.to_owned());
            }
            news
        })
    }

    pub(crate) fn count_suspicion(&self) {
        self.inner.suspicions.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn channels(&self) -> &Channels {
        &self.inner.channels
    }

    pub(crate) fn failed_leader(&self) -> Option<Leader> {
        self.known(|known| known.failed.clone())
    }

    pub(crate) fn remember(&self, leader: Leader) {
        self.known(|known| known.remember(leader));
    }

    /// What every request begins with.
    pub(crate) fn request_header(&self) -> meta::RequestHeader {
        let (term, installation) = self.known(|known| (known.highest_term, known.installation));
        meta::RequestHeader {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: self.inner.config.cluster_id,
            member_id: self.member_id(),
            role: self.inner.config.role as i32,
            term,
            installation,
            ..Default::default()
        }
    }

    /// Judges the header of an answer from `addr`: another installation and lower terms are refused, an error becomes
    /// a typed one, and what is new is remembered.
    pub(crate) fn judge(&self, addr: &str, header: Option<&meta::ResponseHeader>) -> Result<(), ClientError> {
        let unset = meta::ResponseHeader::default();
        let header = header.unwrap_or(&unset);
        self.judge_installation(addr, header.installation)?;
        if let Some(error) = header.error.as_ref().filter(|error| error.code != 0) {
            return Err(self.typed(addr, header, error));
        }
        let highest = self.known(|known| {
            let before = known.highest_term;
            known.highest_term = before.max(header.term);
            before
        });
        if header.term < highest {
            self.inner.lower_terms.fetch_add(1, Ordering::Relaxed);
            warn!(peer = addr, term = header.term, highest, "answer of a lower term refused");
            return Err(ClientError::LowerTerm { addr: addr.to_owned(), term: header.term, highest });
        }
        if self.inner.config.role == meta::Role::Frontend && header.member_id != 0 {
            self.inner.member_id.store(header.member_id, Ordering::Release);
        }
        Ok(())
    }

    pub(crate) fn judge_installation(&self, addr: &str, theirs: u64) -> Result<(), ClientError> {
        let ours = self.known(|known| {
            if known.installation == 0 {
                known.installation = theirs;
            }
            known.installation
        });
        if theirs == 0 || theirs == ours {
            return Ok(());
        }
        Err(ClientError::OtherInstallation { addr: addr.to_owned(), ours, theirs })
    }

    fn typed(&self, addr: &str, header: &meta::ResponseHeader, error: &meta::Error) -> ClientError {
        use metasrv_proto::code;
        let addr = addr.to_owned();
        let message = error.err_msg.clone();
        match error.code {
            code::NOT_LEADER => ClientError::NotLeader {
                addr,
                leader: header
                    .leader
                    .as_ref()
                    .map(|leader| leader.addr.clone())
                    .filter(|leader| !leader.is_empty()),
                term: header.term,
            },
            code::STALE_INCARNATION => {
                ClientError::StaleIncarnation { known: error.known_node_epoch, message }
            }
            code::SUPERSEDED => ClientError::Superseded { message },
            code::OTHER_INSTALLATION => ClientError::OtherInstallation {
                addr,
                ours: self.installation(),
                theirs: header.installation,
            },
            other => ClientError::Transport { addr, why: format!("error {other}: {message}") },
        }
    }

    fn known<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.inner.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known {
    fn remember(&mut self, leader: Leader) {
        self.highest_term = self.highest_term.max(leader.term);
        if self.leader.as_ref() != Some(&leader) {
            info!(leader = leader.addr, term = leader.term, "following leader");
            self.leader = Some(leader);
        }
    }
}
