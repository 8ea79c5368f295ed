//! Certificates: told to the leader until it has taken them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metasrv_proto::admin::certify_end_request::How;
use metasrv_proto::admin::supervisor_server::{Supervisor, SupervisorServer};
use metasrv_proto::admin::{CertifyEndRequest, CertifyEndResponse};
use tonic::{Code, Request, Response, Status};

use super::client;
use crate::ClientError;
use crate::fake::{FakeMetasrv, within};

const LONG: Duration = Duration::from_secs(20);

/// Refuses so often with this code, then takes what it is told.
struct Clerk {
    refusals: usize,
    code: Code,
    leader: Option<String>,
    term: u64,
    calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Supervisor for Clerk {
    async fn certify_end(
        &self,
        request: Request<CertifyEndRequest>,
    ) -> Result<Response<CertifyEndResponse>, Status> {
        assert_eq!(request.into_inner(), certificate());
        if self.calls.fetch_add(1, Ordering::SeqCst) < self.refusals {
            let mut status = Status::new(self.code, "said by the fake");
            if let Some(leader) = &self.leader {
                status.metadata_mut().insert("metasrv-leader", leader.parse().expect("printable"));
            }
            return Err(status);
        }
        Ok(Response::new(CertifyEndResponse { term: self.term, newer_is_known: false }))
    }
}

fn certificate() -> CertifyEndRequest {
    CertifyEndRequest {
        node_id: 7,
        incarnation_nonce: 42,
        how: Some(How::Signal(9)),
        ..CertifyEndRequest::default()
    }
}

async fn replica(
    refusals: usize,
    code: Code,
    leader: Option<String>,
    term: u64,
) -> (FakeMetasrv, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let clerk = Clerk { refusals, code, leader, term, calls: Arc::clone(&calls) };
    let fake = FakeMetasrv::start_with(|routes| {
        routes.add_service(SupervisorServer::new(clerk));
    })
    .await;
    (fake, calls)
}

/// Goal: a certificate is told until it is taken, whatever goes wrong in between. Method: a replica that fails twice.
#[tokio::test]
async fn a_certificate_is_told_until_it_is_taken() {
    for code in [Code::Unavailable, Code::Internal, Code::DeadlineExceeded, Code::FailedPrecondition] {
        let (fake, calls) = replica(2, code, None, 1).await;
        let taken = within("it is taken", client([&fake.addr[..]]).certify_end(&certificate(), LONG)).await;
        assert_eq!(taken.expect("in the end").term, 1);
        assert_eq!(calls.load(Ordering::SeqCst), 3, "{code:?}");
    }
}

/// Goal: a replica that does not lead sends it on to the leader. Method: two replicas, both of which are named once.
#[tokio::test]
async fn a_certificate_goes_to_the_leader_that_is_named() {
    let (leader, taken) = replica(0, Code::Ok, None, 2).await;
    let (follower, refused) =
        replica(usize::MAX, Code::FailedPrecondition, Some(leader.addr.clone()), 0).await;
    follower.names(Some((&follower.addr, 1)));
    let client = client([&follower.addr[..]]);
    let response = within("it is taken", client.certify_end(&certificate(), LONG)).await;
    assert_eq!(response.expect("by the leader").term, 2);
    assert_eq!((refused.load(Ordering::SeqCst), taken.load(Ordering::SeqCst)), (1, 1));
}

/// Goal: a refusal that every attempt would meet is final, a leader of the past is not believed, and there is a deadline.
/// Method: each of them.
#[tokio::test]
async fn what_no_attempt_would_change_is_not_repeated() {
    for code in [Code::InvalidArgument, Code::PermissionDenied, Code::Unimplemented] {
        let (fake, calls) = replica(usize::MAX, code, None, 1).await;
        let refused =
            within("it is refused", client([&fake.addr[..]]).certify_end(&certificate(), LONG)).await;
        assert!(
            matches!(refused, Err(ClientError::InvalidArgument(_) | ClientError::Refused(_))),
            "{refused:?}"
        );
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{code:?}");
    }
    let (past, calls) = replica(0, Code::Ok, None, 0).await;
    let limit = Duration::from_millis(300);
    let late = within("it gives up", client([&past.addr[..]]).certify_end(&certificate(), limit)).await;
    assert!(matches!(late, Err(ClientError::TimedOut { .. })), "{late:?}");
    assert!(calls.load(Ordering::SeqCst) > 1);
}
