//! Goal: a process that waits for its predecessor's end is told to open nothing: it would claim an epoch at the storage that it
//! cannot be granted. Found by the simulation: a twin of a node claimed a new region, and the node could not open it any more.
//! Method: the recorded process is connected, then a newer one; what is pushed.

use super::*;
use crate::mailbox::HeartbeatMailbox;
use crate::pusher::Pushers;
use metasrv_proto::meta::mailbox_message::Payload;
use tokio::sync::mpsc;

#[tokio::test(start_paused = true)]
async fn only_the_recorded_process_is_told_to_open_regions() {
    let store = Arc::new(MemoryStore::default());
    routes(&store, 1, 1..2).await;
    let (leader, _tasks) = lead(&store).await;
    let pushers = Arc::new(Pushers::default());
    let mailbox = HeartbeatMailbox::new(Arc::clone(&pushers));
    for (epoch, standing) in [(7, Identity::Current), (8, Identity::Waiting)] {
        assert_eq!(identify(&leader, 1, epoch).await, standing);
        // What is granted has to be over before the next one is recorded.
        leader.grant(&node(1), process(epoch), reported(1..2, 3));
        let (sender, mut pushed) = mpsc::channel(4);
        let _registered = pushers.register(node(1), process(epoch), sender);
        mailbox.open_regions(&leader, &node(1), &reported(1..2, 3));
        let payload = pushed.try_recv().ok().and_then(|pushed| pushed.ok()?.mailbox_message?.payload);
        let told = matches!(payload, Some(Payload::Instruction(_)));
        assert_eq!(told, standing == Identity::Current, "process {epoch}");
    }
}
