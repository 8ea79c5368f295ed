//! Admin calls: what is tried again, and what is not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metasrv_proto::admin::admin_server::{Admin, AdminServer};
use metasrv_proto::admin::{
    CreateRegionsRequest, CreateRegionsResponse, GetStatusRequest, GetStatusResponse, ListMembersRequest,
    ListMembersResponse, ListNodesRequest, ListNodesResponse, ListRegionsRequest, ListRegionsResponse,
    Member, Region, TransferLeadershipRequest, TransferLeadershipResponse,
};
use metasrv_proto::meta::Role;
use tokio_stream::Iter;
use tonic::{Code, Request, Response, Status};

use super::client_with;
use crate::fake::{FakeMetasrv, Silent, nobody, within};
use crate::{AdminClient, ClientError};

/// What the fake does with a call that only the leader answers.
#[derive(Clone)]
enum Does {
    Answers,
    Says(Code),
    NamesLeader(String),
    Hangs,
}

struct Script {
    does: Mutex<Does>,
    calls: AtomicUsize,
}

impl Script {
    async fn play(&self) -> Result<(), Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let does = self.does.lock().expect("no panic").clone();
        match does {
            Does::Answers => Ok(()),
            Does::Says(code) => Err(Status::new(code, "said by the fake")),
            Does::NamesLeader(addr) => {
                let mut status = Status::failed_precondition("this replica does not lead");
                status.metadata_mut().insert("metasrv-leader", addr.parse().expect("printable"));
                Err(status)
            }
            Does::Hangs => std::future::pending().await,
        }
    }

    fn does(&self, does: Does) {
        *self.does.lock().expect("no panic") = does;
    }
}

struct Service(Arc<Script>);

type Parts<T> = Iter<std::vec::IntoIter<Result<T, Status>>>;

#[tonic::async_trait]
impl Admin for Service {
    type ListRegionsStream = Parts<ListRegionsResponse>;
    type ListNodesStream = Parts<ListNodesResponse>;

    async fn create_regions(
        &self,
        request: Request<CreateRegionsRequest>,
    ) -> Result<Response<CreateRegionsResponse>, Status> {
        self.0.play().await?;
        let regions = (1..=u64::from(request.into_inner().count))
            .map(|id| Region { region_id: id, ..Default::default() });
        Ok(Response::new(CreateRegionsResponse { regions: regions.collect() }))
    }

    async fn list_regions(
        &self,
        _: Request<ListRegionsRequest>,
    ) -> Result<Response<Self::ListRegionsStream>, Status> {
        self.0.play().await?;
        let part = |id| {
            let regions = vec![Region { region_id: id, ..Default::default() }];
            Ok(ListRegionsResponse { regions, term: 3, follower: None })
        };
        Ok(Response::new(tokio_stream::iter(vec![part(1), part(2)])))
    }

    async fn list_nodes(
        &self,
        _: Request<ListNodesRequest>,
    ) -> Result<Response<Self::ListNodesStream>, Status> {
        self.0.play().await?;
        let part = ListNodesResponse { term: 3, ..ListNodesResponse::default() };
        Ok(Response::new(tokio_stream::iter(vec![Ok(part)])))
    }

    async fn list_members(
        &self,
        _: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        Ok(Response::new(ListMembersResponse { members: vec![Member::default()] }))
    }

    async fn transfer_leadership(
        &self,
        _: Request<TransferLeadershipRequest>,
    ) -> Result<Response<TransferLeadershipResponse>, Status> {
        self.0.play().await?;
        Ok(Response::new(TransferLeadershipResponse { term: 3 }))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(GetStatusResponse { role: "leader".to_owned(), ..Default::default() }))
    }
}

async fn replica(does: Does) -> (FakeMetasrv, Arc<Script>) {
    let script = Arc::new(Script { does: Mutex::new(does), calls: AtomicUsize::new(0) });
    let service = AdminServer::new(Service(Arc::clone(&script)));
    let fake = FakeMetasrv::start_with(|routes| {
        routes.add_service(service);
    })
    .await;
    (fake, script)
}

fn admin<'a>(peers: impl IntoIterator<Item = &'a str>, deadline: Duration) -> AdminClient {
    client_with(peers, Role::Frontend, |_| {}).admin().with_deadline(deadline)
}

const LONG: Duration = Duration::from_secs(15);
const SHORT: Duration = Duration::from_millis(300);

fn three() -> CreateRegionsRequest {
    CreateRegionsRequest { count: 3, ..Default::default() }
}

#[tokio::test]
async fn calls_reach_the_leader_and_lists_are_collected() {
    let (fake, _) = replica(Does::Answers).await;
    let admin = admin([nobody().as_str(), &fake.addr], LONG);
    assert_eq!(admin.create_regions(three()).await.expect("created").len(), 3);
    let list = admin.list_regions(None).await.expect("listed");
    assert_eq!((list.regions.len(), list.term), (2, 3));
    assert_eq!(admin.list_nodes().await.expect("listed").nodes, []);
    assert_eq!(admin.transfer_leadership("", "test").await.expect("transferred"), 3);
    assert_eq!(admin.list_members().await.expect("listed").len(), 1);
    let status = admin.status().await;
    assert!(status[0].1.is_err(), "nobody is there, and the others are shown all the same");
    assert_eq!(status[1].1.as_ref().expect("a status").role, "leader");
}

/// Goal: a replica that does not lead sends us on, and nothing is done twice.
#[tokio::test]
async fn the_named_leader_is_followed() {
    let (leader, on_leader) = replica(Does::Answers).await;
    let (follower, on_follower) = replica(Does::NamesLeader(leader.addr.clone())).await;
    let admin = admin([follower.addr.as_str()], LONG);
    admin.create_regions(three()).await.expect("created");
    let calls = |script: &Script| script.calls.load(Ordering::SeqCst);
    assert_eq!((calls(&on_follower), calls(&on_leader)), (1, 1));
    admin.list_nodes().await.expect("listed");
    assert_eq!((calls(&on_follower), calls(&on_leader)), (1, 2), "the leader is remembered");
}

/// Goal: a change whose answer was lost is reported as unknown and not repeated, whether the answer never comes, the
/// connection breaks, or the leader is not sure itself.
#[tokio::test]
async fn a_change_of_unknown_outcome_is_not_repeated() {
    let (fake, script) = replica(Does::Hangs).await;
    let error = admin([fake.addr.as_str()], SHORT).create_regions(three()).await.expect_err("no answer");
    assert!(matches!(error, ClientError::Unknown { what: "create regions", .. }), "{error}");
    script.does(Does::Says(Code::Aborted));
    let error = admin([fake.addr.as_str()], LONG).transfer_leadership("", "").await.expect_err("not sure");
    assert!(matches!(error, ClientError::Unknown { .. }), "{error}");
    assert_eq!(script.calls.load(Ordering::SeqCst), 2);
    script.does(Does::Hangs);
    let admin = admin([fake.addr.as_str()], LONG);
    let dies = async {
        crate::fake::eventually("the call is there", || script.calls.load(Ordering::SeqCst) == 3).await;
        fake.kill();
    };
    let (error, ()) = within("it is seen", async { tokio::join!(admin.create_regions(three()), dies) }).await;
    assert!(matches!(error, Err(ClientError::Unknown { .. })), "{error:?}");
}

/// Goal: a read is repeated, and ends by its deadline.
#[tokio::test]
async fn a_read_is_repeated_until_the_deadline() {
    let (fake, script) = replica(Does::Says(Code::Unavailable)).await;
    let error = admin([fake.addr.as_str()], SHORT).list_nodes().await.expect_err("never");
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
    assert!(script.calls.load(Ordering::SeqCst) > 1);
    let admin = admin([fake.addr.as_str()], LONG);
    let heals = async {
        let before = script.calls.load(Ordering::SeqCst);
        crate::fake::eventually("asked again", || script.calls.load(Ordering::SeqCst) > before).await;
        script.does(Does::Answers);
    };
    let (listed, ()) = tokio::join!(admin.list_nodes(), heals);
    listed.expect("listed in the end");
}

#[tokio::test]
async fn refusals_are_typed_and_final() {
    let (fake, script) = replica(Does::Answers).await;
    let admin = admin([fake.addr.as_str()], LONG);
    let said = async |code| {
        script.does(Does::Says(code));
        admin.create_regions(three()).await.expect_err("refused")
    };
    assert!(matches!(said(Code::NotFound).await, ClientError::NotFound(_)));
    assert!(matches!(said(Code::InvalidArgument).await, ClientError::InvalidArgument(_)));
    assert!(matches!(said(Code::ResourceExhausted).await, ClientError::Refused(_)));
    assert!(matches!(said(Code::Unimplemented).await, ClientError::Refused(_)));
    assert!(matches!(said(Code::Unavailable).await, ClientError::Failed(_)));
    let refused = said(Code::FailedPrecondition).await;
    assert!(
        matches!(refused, ClientError::Refused(_)),
        "everybody names the one that refused as leader: {refused}"
    );
    assert_eq!(script.calls.load(Ordering::SeqCst), 6, "none was repeated");
}

#[tokio::test]
async fn without_a_leader_or_anybody_the_error_says_so() {
    let (fake, _) = replica(Does::Answers).await;
    fake.names(None);
    let error = admin([fake.addr.as_str()], SHORT).list_nodes().await.expect_err("no leader");
    assert!(matches!(error, ClientError::NoLeader { .. }), "{error}");
    let silent = Silent::start();
    let error = admin([nobody().as_str(), &silent.addr], SHORT).list_nodes().await.expect_err("nobody");
    assert!(matches!(error, ClientError::NobodyReachable { .. }), "{error}");
    let error = admin([nobody().as_str()], SHORT).list_members().await.expect_err("nobody");
    assert!(matches!(error, ClientError::NobodyReachable { .. }), "{error}");
}
