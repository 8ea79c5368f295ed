//! Operations: which calls are sent again when their answer is lost, which never, and which need no leader.

use std::time::Duration;

use metasrv_proto::admin::{
    AnnounceRestartRequest, CancelProcedureRequest, CordonNodeRequest, DecommissionNodeRequest,
    DrainNodeRequest, DropRegionRequest, Event, ListEventsRequest, ListEventsResponse, MigrateRegionRequest,
    MigrateRegionResponse, RebalanceRequest, SetFailoverRequest, SetMaintenanceRequest,
};
use metasrv_proto::meta::Role;
use tonic::Code;

use super::client_with;
use crate::fake::{FakeMetasrv, Silent, nobody, within};
use crate::fake_operations::{Does, FakeOperations};
use crate::{ClientError, OperationsClient};

const LONG: Duration = Duration::from_secs(15);

async fn replica(plan: impl FnMut() -> Does + Send + 'static) -> (FakeMetasrv, FakeOperations) {
    let mut plan = plan;
    let operations = FakeOperations::new(move |_| plan());
    let service = operations.service();
    let fake = FakeMetasrv::start_with(|routes| {
        routes.add_service(service);
    })
    .await;
    (fake, operations)
}

fn client<'a>(peers: impl IntoIterator<Item = &'a str>) -> OperationsClient {
    client_with(peers, Role::Frontend, |_| {}).operations().with_deadline(LONG)
}

/// Every call by its name.
async fn call(client: &OperationsClient, name: &str) -> Result<(), ClientError> {
    match name {
        "migrate_region" => client.migrate_region(MigrateRegionRequest::default()).await.map(drop),
        "drop_region" => client.drop_region(DropRegionRequest::default()).await.map(drop),
        "explain_region" => client.explain_region(7).await.map(drop),
        "cordon_node" => client.cordon_node(CordonNodeRequest::default()).await,
        "drain_node" => client.drain_node(DrainNodeRequest::default()).await.map(drop),
        "decommission_node" => client.decommission_node(DecommissionNodeRequest::default()).await,
        "announce_restart" => client.announce_restart(AnnounceRestartRequest::default()).await.map(drop),
        "get_failover" => client.failover(0).await.map(drop),
        "set_failover" => client.set_failover(SetFailoverRequest::default()).await.map(drop),
        "set_maintenance" => client.set_maintenance(SetMaintenanceRequest::default()).await.map(drop),
        "rebalance" => client.rebalance(RebalanceRequest::default()).await.map(drop),
        "list_procedures" => client.procedures().await.map(drop),
        "cancel_procedure" => client.cancel_procedure(CancelProcedureRequest::default()).await,
        "list_events" => client.events(ListEventsRequest::default()).await.map(drop),
        "check_store" => client.check_store().await.map(drop),
        other => panic!("{other} is no call"),
    }
}

const TWICE_IS_ONCE: [&str; 7] = [
    "explain_region",
    "cordon_node",
    "announce_restart",
    "get_failover",
    "set_failover",
    "set_maintenance",
    "list_procedures",
];
const NEVER_TWICE: [&str; 6] =
    ["migrate_region", "drop_region", "drain_node", "decommission_node", "rebalance", "cancel_procedure"];
const ANY_REPLICA: [&str; 2] = ["list_events", "check_store"];

/// Goal: each call reaches the call of its name. Method: a replica that answers everything.
#[tokio::test]
async fn every_call_reaches_its_namesake() {
    let (fake, operations) = replica(|| Does::Nothing).await;
    let client = client([fake.addr.as_str()]);
    let names = || TWICE_IS_ONCE.into_iter().chain(NEVER_TWICE).chain(ANY_REPLICA);
    for name in names() {
        call(&client, name).await.expect(name);
    }
    let asked: Vec<_> = operations.asked().into_iter().map(|asked| asked.call).collect();
    assert_eq!(asked, names().collect::<Vec<_>>());
}

/// Goal: whether a lost answer is asked for again depends on what a second time would do.
/// Method: the leader says of its first answer that it is not sure, and answers the second.
#[tokio::test]
async fn a_lost_answer_is_asked_for_again_only_where_twice_is_once() {
    let mut first = true;
    let (fake, operations) = replica(move || {
        first = !first;
        if first { Does::Nothing } else { Does::Says(Code::Aborted, "leadership ended".to_owned()) }
    })
    .await;
    let client = client([fake.addr.as_str()]);
    for name in TWICE_IS_ONCE {
        call(&client, name).await.expect(name);
    }
    assert_eq!(operations.asked().len(), 2 * TWICE_IS_ONCE.len());
    operations.plan(|_| Does::Says(Code::Aborted, "leadership ended".to_owned()));
    for name in NEVER_TWICE {
        let error = call(&client, name).await.expect_err(name);
        assert!(matches!(error, ClientError::Unknown { .. }), "{name}: {error}");
    }
    assert_eq!(operations.asked().len(), 2 * TWICE_IS_ONCE.len() + NEVER_TWICE.len());
}

/// Goal: a dry run changes nothing, so its lost answer is asked for again.
#[tokio::test]
async fn a_dry_run_is_a_read() {
    let mut first = true;
    let (fake, operations) = replica(move || {
        first = !first;
        if first { Does::Nothing } else { Does::Says(Code::Aborted, "leadership ended".to_owned()) }
    })
    .await;
    let client = client([fake.addr.as_str()]);
    client.drain_node(DrainNodeRequest { dry_run: true, ..Default::default() }).await.expect("planned");
    client.rebalance(RebalanceRequest { dry_run: true, ..Default::default() }).await.expect("planned");
    assert_eq!(operations.asked().len(), 4);
}

#[tokio::test]
async fn the_leader_is_found_and_its_refusal_is_final() {
    let (leader, on_leader) =
        replica(|| Does::answer(MigrateRegionResponse { procedure_id: 9, from_node: 1, to_node: 2 })).await;
    let addr = leader.addr.clone();
    let (follower, on_follower) = replica(move || Does::NamesLeader(addr.clone())).await;
    let client = client([follower.addr.as_str()]);
    let begun = client.migrate_region(MigrateRegionRequest::default()).await.expect("begun");
    assert_eq!(begun.procedure_id, 9);
    assert_eq!((on_follower.asked().len(), on_leader.asked().len()), (1, 1));
    follower.names(Some((&leader.addr, 1)));
    for (code, message) in [
        (Code::FailedPrecondition, "node 2 is cordoned"),
        (Code::NotFound, "no region 7"),
        (Code::InvalidArgument, "reason: too long"),
    ] {
        on_leader.plan(move |_| Does::Says(code, message.to_owned()));
        let error = client.migrate_region(MigrateRegionRequest::default()).await.expect_err("refused");
        assert_eq!(error.to_string(), message);
        let typed = match code {
            Code::NotFound => matches!(error, ClientError::NotFound(_)),
            Code::InvalidArgument => matches!(error, ClientError::InvalidArgument(_)),
            _ => matches!(error, ClientError::Refused(_)),
        };
        assert!(typed, "{code:?}: {error:?}");
    }
    assert_eq!(on_leader.asked().len(), 4, "none was repeated");
}

/// Goal: what any replica answers needs no leader, and a replica that is silent, gone or cannot answer costs little.
/// Method: nobody leads; three peers that are no use stand before the one that answers.
#[tokio::test]
async fn events_come_from_whichever_replica_answers() {
    let (cannot, _) = replica(|| Does::Says(Code::Unavailable, "etcd does not answer".to_owned())).await;
    let event = Event { id: 5, ..Default::default() };
    let (fake, operations) =
        replica(move || Does::answer(ListEventsResponse { events: vec![event.clone()] })).await;
    for replica in [&cannot, &fake] {
        replica.names(None);
    }
    let (silent, gone) = (Silent::start(), nobody());
    let all = client([silent.addr.as_str(), gone.as_str(), &cannot.addr, &fake.addr]);
    let events = within("the last one answers", all.events(ListEventsRequest::default())).await;
    assert_eq!(events.expect("listed").len(), 1);
    assert_eq!(operations.asked().len(), 1);

    let error = client([gone.as_str(), &cannot.addr]).events(ListEventsRequest::default()).await;
    match error {
        Err(ClientError::Failed(why)) => assert!(why.contains("etcd does not answer"), "{why}"),
        other => panic!("who answers and cannot is the reason: {other:?}"),
    }
    let error = client([gone.as_str()]).check_store().await.expect_err("nobody");
    assert!(matches!(error, ClientError::NobodyReachable { .. }), "{error}");
    operations.plan(|_| Does::Says(Code::InvalidArgument, "limit: at most 10000".to_owned()));
    let error = client([fake.addr.as_str()]).events(ListEventsRequest::default()).await.expect_err("refused");
    assert!(matches!(error, ClientError::InvalidArgument(_)), "{error}");
}
