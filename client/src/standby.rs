//! A connection to the replica that leads next, kept while it does not lead yet.
//!
//! When a leader dies, all of its nodes come to its successor within a heartbeat interval, and what takes the time of
//! the machines on both sides then is to make connections: more than all that the heartbeats themselves cost. So the leader
//! says who is next (`HeartbeatConfig.standby`), and each node makes that connection before it is needed, at a moment of its
//! own. A node has two connections then, one of them quiet. Where it could not be made, or the leader said the wrong name,
//! the node finds the next leader as it always does (`ask.rs`).

use std::ops::Range;
use std::time::Duration;

use metasrv_proto::meta::HeartbeatResponse;

use crate::client::MetaClient;
use crate::config::parse_address;

/// The connection is made at a random moment of this time after the leader named the replica: after a change of leaders a
/// thousand nodes hear of another one within a second, and the new leader has enough to do with them.
const MOMENTS: Range<f64> = 1.0..4.0;

impl MetaClient {
    /// Sees to a connection to the replica that a response names as the next to lead, if it names another one than before.
    pub(crate) fn keep_standby_near(&self, response: &HeartbeatResponse) {
        let named = response.heartbeat_config.as_ref().and_then(|config| config.standby.as_ref());
        let Some(Ok(addr)) = named.map(|peer| parse_address(&peer.addr)) else { return };
        if self.note_standby(&addr) {
            // Ends by itself within seconds; one for each change of the replicas' order.
            tokio::spawn(self.clone().connect_standby(addr));
        }
    }

    async fn connect_standby(self, addr: String) {
        tokio::time::sleep(Duration::from_secs_f64(rand::random_range(MOMENTS))).await;
        if self.standby().as_ref() != Some(&addr) {
            return;
        }
        // The question makes the connection; it stays, with or without an answer.
        self.ask_quietly(&addr).await;
        let leader = self.leader().map(|leader| leader.addr);
        let kept: Vec<String> = leader.into_iter().chain([addr]).collect();
        self.channels().keep_only(&kept);
    }
}
