//! What happens with a response: an ordered list of handlers, each of which may end the chain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metasrv_core::time::BootTime;
use metasrv_proto::meta::HeartbeatResponse;

/// One response on its way through the handlers.
pub struct ResponseContext<'a> {
    /// The response. Its term, its installation and its error were looked at before.
    pub response: &'a HeartbeatResponse,
    /// When the request that it answers was sent, by this node's clock. The keeper, the first handler, fills it in from
    /// the lease; `None` where there is none, as in what metasrv says of itself.
    pub sent_at: Option<BootTime>,
}

impl ResponseContext<'_> {
    /// The term of the leader that speaks. No response of a lower term than one seen before comes this far; how many
    /// were refused, [`MetaClient::lower_terms_refused`](metasrv_client::MetaClient::lower_terms_refused) says.
    pub fn term(&self) -> u64 {
        self.response.header.as_ref().map_or(0, |header| header.term)
    }
}

/// Whether the handlers after this one run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandleControl {
    /// They do.
    Continue,
    /// This response needs nothing more.
    Done,
}

/// A handler could not do its part. The response ends there; the stream goes on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{handler}: {why}")]
pub struct HandlerError {
    /// Name of the handler.
    pub handler: &'static str,
    /// What was wrong.
    pub why: String,
}

/// One step of what is done with a response. It does not wait: the next response, which may renew every lease of this
/// node, stands behind it.
pub trait HeartbeatResponseHandler: Send + Sync {
    /// Its name, for the log.
    fn name(&self) -> &'static str;

    /// Does its part.
    ///
    /// # Errors
    /// [`HandlerError`]: the rest of the chain is left out for this response.
    fn handle(&self, context: &mut ResponseContext<'_>) -> Result<HandleControl, HandlerError>;
}

/// The handlers in their order.
#[derive(Clone, Default)]
pub struct HandlerGroupExecutor {
    handlers: Vec<Arc<dyn HeartbeatResponseHandler>>,
    handled: Arc<AtomicU64>,
}

impl HandlerGroupExecutor {
    /// Runs these, in this order.
    pub fn new(handlers: Vec<Arc<dyn HeartbeatResponseHandler>>) -> HandlerGroupExecutor {
        HandlerGroupExecutor { handlers, handled: Arc::default() }
    }

    /// Takes one response through the chain.
    pub fn handle(&self, response: &HeartbeatResponse) {
        self.handled.fetch_add(1, Ordering::Relaxed);
        let mut context = ResponseContext { response, sent_at: None };
        for handler in &self.handlers {
            match handler.handle(&mut context) {
                Ok(HandleControl::Continue) => {}
                Ok(HandleControl::Done) => break,
                Err(error) => {
                    tracing::warn!(%error, sequence = response.sequence, "a response could not be used");
                    break;
                }
            }
        }
    }

    /// Responses taken so far.
    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct Step(&'static str, Result<HandleControl, ()>, Arc<Mutex<Vec<&'static str>>>);

    impl HeartbeatResponseHandler for Step {
        fn name(&self) -> &'static str {
            self.0
        }

        fn handle(&self, _: &mut ResponseContext<'_>) -> Result<HandleControl, HandlerError> {
            self.2.lock().unwrap().push(self.0);
            self.1.map_err(|()| HandlerError { handler: self.0, why: "no".to_owned() })
        }
    }

    fn ran(outcomes: [Result<HandleControl, ()>; 3]) -> Vec<&'static str> {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let names = ["first", "second", "third"];
        let step = |(name, outcome)| {
            Arc::new(Step(name, outcome, Arc::clone(&ran))) as Arc<dyn HeartbeatResponseHandler>
        };
        let group = HandlerGroupExecutor::new(names.into_iter().zip(outcomes).map(step).collect());
        group.handle(&HeartbeatResponse::default());
        assert_eq!(group.handled(), 1);
        let ran = ran.lock().unwrap();
        ran.clone()
    }

    #[test]
    fn handlers_run_in_order_until_one_ends_the_chain() {
        use HandleControl::{Continue, Done};
        assert_eq!(ran([Ok(Continue), Ok(Continue), Ok(Continue)]), ["first", "second", "third"]);
        assert_eq!(ran([Ok(Continue), Ok(Done), Ok(Continue)]), ["first", "second"]);
        assert_eq!(ran([Err(()), Ok(Continue), Ok(Continue)]), ["first"]);
    }
}
