//! A small `Operations` service for tests: what each call answers, the test says; which calls came, it remembers.
//!
//! The tests of `metactl` use the same file.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use metasrv_proto::admin::operations_server::{Operations, OperationsServer};
use metasrv_proto::admin::*;
use tonic::{Code, Request, Response, Status};

/// What the fake does with a call.
pub enum Does {
    /// Answers with this message, which has the type of the call's answer.
    Answers(Box<dyn Any + Send>),
    /// Answers with an empty message.
    Nothing,
    /// Fails.
    Says(Code, String),
    /// Says that another replica leads.
    NamesLeader(String),
    /// Never answers.
    Hangs,
}

impl Does {
    /// Answers with this message.
    pub fn answer<M: Send + 'static>(message: M) -> Does {
        Does::Answers(Box::new(message))
    }
}

/// A call that came: its name as in the protocol's service, and its request as text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    pub call: &'static str,
    pub request: String,
}

type Plan = Box<dyn FnMut(&Asked) -> Does + Send>;

/// The service, and what the test sees of it. Clones share it.
#[derive(Clone)]
pub struct FakeOperations(Arc<Mutex<State>>);

struct State {
    plan: Plan,
    asked: Vec<Asked>,
}

impl FakeOperations {
    /// Does with each call what the plan says.
    pub fn new(plan: impl FnMut(&Asked) -> Does + Send + 'static) -> FakeOperations {
        FakeOperations(Arc::new(Mutex::new(State { plan: Box::new(plan), asked: Vec::new() })))
    }

    /// As a service of a replica.
    pub fn service(&self) -> OperationsServer<FakeOperations> {
        OperationsServer::new(self.clone())
    }

    /// Follows this plan from now on.
    pub fn plan(&self, plan: impl FnMut(&Asked) -> Does + Send + 'static) {
        self.state(|state| state.plan = Box::new(plan));
    }

    /// The calls that came so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state(|state| state.asked.clone())
    }

    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn play<Q: std::fmt::Debug, A: Default + 'static>(
        &self,
        call: &'static str,
        request: Request<Q>,
    ) -> Result<Response<A>, Status> {
        let asked = Asked { call, request: format!("{:?}", request.into_inner()) };
        let does = self.state(|state| {
            state.asked.push(asked.clone());
            (state.plan)(&asked)
        });
        match does {
            Does::Answers(answer) => match answer.downcast::<A>() {
                Ok(answer) => Ok(Response::new(*answer)),
                Err(_) => Err(Status::internal(format!("the test has another answer than {call} has"))),
            },
            Does::Nothing => Ok(Response::new(A::default())),
            Does::Says(code, message) => Err(Status::new(code, message)),
            Does::NamesLeader(addr) => {
                let mut status = Status::failed_precondition("this replica does not lead");
                status.metadata_mut().insert("metasrv-leader", addr.parse().expect("printable"));
                Err(status)
            }
            Does::Hangs => std::future::pending().await,
        }
    }
}

macro_rules! plays {
    ($($call:ident($request:ident) -> $answer:ident,)*) => {
        #[tonic::async_trait]
        impl Operations for FakeOperations {
            $(async fn $call(&self, request: Request<$request>) -> Result<Response<$answer>, Status> {
                self.play(stringify!($call), request).await
            })*
        }
    };
}

plays! {
    migrate_region(MigrateRegionRequest) -> MigrateRegionResponse,
    drop_region(DropRegionRequest) -> DropRegionResponse,
    explain_region(ExplainRegionRequest) -> ExplainRegionResponse,
    cordon_node(CordonNodeRequest) -> CordonNodeResponse,
    drain_node(DrainNodeRequest) -> DrainNodeResponse,
    decommission_node(DecommissionNodeRequest) -> DecommissionNodeResponse,
    announce_restart(AnnounceRestartRequest) -> AnnounceRestartResponse,
    get_failover(GetFailoverRequest) -> GetFailoverResponse,
    set_failover(SetFailoverRequest) -> GetFailoverResponse,
    set_maintenance(SetMaintenanceRequest) -> GetFailoverResponse,
    rebalance(RebalanceRequest) -> RebalanceResponse,
    list_procedures(ListProceduresRequest) -> ListProceduresResponse,
    cancel_procedure(CancelProcedureRequest) -> CancelProcedureResponse,
    list_events(ListEventsRequest) -> ListEventsResponse,
    check_store(CheckStoreRequest) -> CheckStoreResponse,
}
