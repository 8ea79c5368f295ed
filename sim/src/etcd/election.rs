//! The Election service: a key per candidate under the election's name, and the oldest one leads.

use tonic::{Request, Response, Status};

use super::kv::asker;
use super::pb::v3electionpb::election_server::Election;
use super::pb::v3electionpb::{CampaignRequest, CampaignResponse, LeaderKey};
use super::state::{no_lease, no_space};
use super::txn::header;
use super::{Member, ModelEtcd};

#[tonic::async_trait]
impl Election for Member {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let by = asker(&request);
        let CampaignRequest { name, lease, value } = request.into_inner();
        let key = [name.as_slice(), b"/", format!("{lease:x}").as_bytes()].concat();
        let create_revision = self
            .write(|state| {
                if !state.has_lease(lease) {
                    // As etcd 3.4 has it: the text tells, and the code does not.
                    return Err(Status::unknown(no_lease().message()));
                }
                if state.is_full() {
                    return Err(no_space());
                }
                let standing = state.get(&key).map(|kv| (kv.create_revision, kv.value == value));
                if let Some((create_revision, true)) = standing {
                    return Ok(create_revision);
                }
                let mut write = state.begin(Vec::new(), by.clone());
                write.put(&key, value.clone(), lease);
                let revision = write.end();
                Ok(standing.map_or(revision, |(create_revision, _)| create_revision))
            })
            .await?;
        let standing =
            Standing { etcd: self.etcd.clone(), key: key.clone(), create_revision, by, won: false };
        standing.first(self, &name).await?;
        let revision = self.etcd.state().revision();
        let leader = Some(LeaderKey { name, key, rev: create_revision, lease });
        Ok(Response::new(CampaignResponse { header: Some(header(revision)), leader }))
    }
}

/// A place in the queue. A campaign that is cancelled before it is won gives it up.
struct Standing {
    etcd: ModelEtcd,
    key: Vec<u8>,
    create_revision: i64,
    by: Option<String>,
    won: bool,
}

impl Standing {
    /// Comes back when no older key is left; whether the own one is, is another question.
    async fn first(mut self, member: &Member, name: &[u8]) -> Result<(), Status> {
        let mut changes = self.etcd.shared.changed.subscribe();
        let (from, end) = ([name, b"/"].concat(), [name, b"0"].concat());
        loop {
            let older = {
                let state = self.etcd.state();
                state.range(&from, &end, 0).iter().any(|kv| kv.create_revision < self.create_revision)
            };
            // A member that is cut off from the others does not learn of it.
            if !older && member.serves() {
                self.won = true;
                return Ok(());
            }
            if changes.changed().await.is_err() {
                return Err(Status::unavailable("etcdserver: server stopped"));
            }
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if self.won {
            return;
        }
        let mut state = self.etcd.state();
        let ours = state.get(&self.key).is_some_and(|kv| kv.create_revision == self.create_revision);
        if ours {
            let mut write = state.begin(Vec::new(), self.by.clone());
            write.delete(&self.key);
            write.end();
            drop(state);
            self.etcd.changed();
        }
    }
}
