//! Goal: what a steady heartbeat takes in the whole line of handlers does not grow with the regions of its node. Method: nodes of a
//! hundred and of a thousand regions; the size of the answers is compared, and a measurement, which has to be asked for, prints
//! the time that they take:
//! `cargo nextest run --release -p metasrv --run-ignored only --no-capture what_a_steady_heartbeat_costs`.

use metasrv_core::digest::Digest;
use metasrv_core::procedure::instruction::{Held, HeldAs};
use metasrv_proto::admin::RegionSet;
use metasrv_proto::meta::{HeartbeatRequest, HeartbeatResponse, Peer, RegionRole, RegionStat};
use prost::Message as _;

use super::*;
use crate::clock::SystemClock;
use crate::handler::{Context, HeartbeatHandlerGroup};

/// A leader, and a node of it that has said what it holds.
struct Bench {
    group: HeartbeatHandlerGroup,
    context: Context,
    listed: HeartbeatRequest,
    steady: HeartbeatRequest,
    _tasks: JoinSet<()>,
}

impl Bench {
    async fn new(regions: u64) -> Bench {
        let store = Arc::new(MemoryStore::default());
        routes(&store, 1, 1..regions + 1).await;
        let (leader, tasks) = lead(&store).await;
        assert_eq!(identify(&leader, 1, 7).await, Identity::Current);
        let context = Context {
            node: node(1),
            process: Some(process(7)),
            clock: Arc::clone(leader.clock()),
            now: leader.clock().now(),
            leader: Some(leader),
            known_leader: None,
            wall_ms: 0,
            metrics: Arc::new(Metrics::new()),
        };
        let stat = |region_id| RegionStat {
            region_id,
            epoch: 3,
            engine: "test".to_owned(),
            role: RegionRole::Leader.into(),
            ..RegionStat::default()
        };
        let held = Held { role: HeldAs::Leader, epoch: Epoch(3) };
        let digest = Digest::of((1..=regions).map(|region| (RegionId(region), held)));
        let set =
            RegionSet { digest: digest.sum, count: digest.count, complete: true, ..RegionSet::default() };
        let peer = Some(Peer { id: 1, addr: "127.0.0.1:4001".to_owned() });
        let bare =
            HeartbeatRequest { peer, node_epoch: 7, incarnation_nonce: 7, ..HeartbeatRequest::default() };
        let listed = HeartbeatRequest { region_stats: (1..=regions).map(stat).collect(), ..bare.clone() };
        let complete = HeartbeatRequest { region_set: Some(set.clone()), ..listed.clone() };
        let steady = HeartbeatRequest { region_set: Some(RegionSet { complete: false, ..set }), ..bare };
        let group = HeartbeatHandlerGroup::standard();
        let bench = Bench { group, context, listed, steady, _tasks: tasks };
        assert_eq!(renewed(&bench.answer(&complete)), Some(regions));
        bench
    }

    fn answer(&self, request: &HeartbeatRequest) -> HeartbeatResponse {
        self.group.handle(request, &self.context).unwrap()
    }

    /// Nanoseconds for each of so many.
    fn time(&self, request: &HeartbeatRequest, times: u32) -> u128 {
        let began = SystemClock.now();
        for _ in 0..times {
            std::hint::black_box(self.answer(std::hint::black_box(request)));
        }
        SystemClock.now().since(began).as_nanos() / u128::from(times)
    }
}

fn renewed(response: &HeartbeatResponse) -> Option<u64> {
    let lease = response.region_lease.as_ref()?;
    lease.renewed_set.as_ref().map(|renewed| renewed.count)
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_steady_heartbeat_does_not_grow_with_the_regions() {
    let mut sizes = Vec::new();
    for regions in [100, 10_000] {
        let bench = Bench::new(regions).await;
        for _ in 0..3 {
            let answer = bench.answer(&bench.steady);
            assert_eq!(renewed(&answer), Some(regions));
            assert!(answer.region_lease.iter().all(|lease| lease.regions.is_empty()));
            sizes.push(answer.encoded_len());
        }
        let leader = bench.context.leader.as_ref().unwrap();
        let entry = leader.nodes().get(&node(1)).unwrap();
        let now = leader.clock().now();
        assert!(entry.regions.keys().all(|region| leader.is_writable(&entry, *region, now)), "accounts");
    }
    let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
    assert!(most - least <= 2, "numbers of different lengths, and nothing else: {sizes:?}");
}

#[tokio::test(start_paused = true)]
#[ignore = "a measurement, to be asked for"]
#[allow(clippy::print_stdout)]
async fn what_a_steady_heartbeat_costs() {
    for regions in [100, 1_000, 10_000] {
        let bench = Bench::new(regions).await;
        bench.time(&bench.steady, 10_000);
        let steady = bench.time(&bench.steady, 200_000);
        let listed = bench.time(&bench.listed, 500);
        println!("{regions} regions: {steady} ns by digest, {listed} ns by list");
    }
}
