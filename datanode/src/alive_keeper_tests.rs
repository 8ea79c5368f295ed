//! Goal of these tests: grants and deadlines, one by one and by the ten thousand. The clock is tokio's paused one, so
//! that timers and deadlines move together and nothing is waited for.

use super::*;
use async_trait::async_trait;
use metasrv_proto::meta::{GrantedRegion, HeartbeatResponse, RegionLease};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::region_server::{RegionError, RegionEventSender, RegionStat, region_events};

/// Tokio's clock, which a test may pause.
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> BootTime {
        BootTime::from_millis(1_000_000) + self.0.elapsed()
    }
}

/// Keeps what it is told.
#[derive(Default)]
struct Told(Mutex<Vec<(u64, u64, RegionRole)>>);

#[async_trait]
impl RegionServer for Told {
    async fn open(&self, _: RegionId, _: OpenOptions) -> Result<(), RegionError> {
        Ok(())
    }

    async fn close(&self, _: RegionId) -> Result<(), RegionError> {
        Ok(())
    }

    async fn set_role(&self, region: RegionId, epoch: Epoch, role: RegionRole) {
        self.0.lock().unwrap().push((region.0, epoch.0, role));
    }

    async fn flush(&self, _: RegionId) -> Result<(), RegionError> {
        Ok(())
    }

    fn stats(&self) -> Vec<RegionStat> {
        let engine = "test".to_owned();
        vec![RegionStat { region: RegionId(2), rcus: 3, wcus: 4, approximate_bytes: 5, engine }]
    }
}

struct Bench {
    keeper: Arc<RegionAliveKeeper>,
    told: Arc<Told>,
    _events: RegionEventSender,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn bench(regions: impl IntoIterator<Item = (u64, u64)>) -> Bench {
    let told = Arc::new(Told::default());
    let clock = Arc::new(TokioClock(Instant::now()));
    let keeper = Arc::new(RegionAliveKeeper::new(told.clone(), clock, Duration::from_secs(600)));
    let (sender, events) = region_events();
    for (region, epoch) in regions {
        keeper.take(RegionServerEvent::Registered(RegionId(region), Epoch(epoch)));
    }
    let tasks =
        [tokio::spawn(Arc::clone(&keeper).run(events)), tokio::spawn(Arc::clone(&keeper).tell_roles())];
    Bench { keeper, told, _events: sender, tasks }
}

impl Bench {
    /// Takes an answer of one second's lease to a request of this moment.
    fn grant(&self, regions: impl IntoIterator<Item = (u64, u64)>) -> Result<HandleControl, HandlerError> {
        self.answer(self.keeper.duration_since_epoch_ms(), regions)
    }

    fn answer(
        &self,
        duration_since_epoch: u64,
        regions: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<HandleControl, HandlerError> {
        let regions = regions.into_iter().map(|(region_id, epoch)| GrantedRegion {
            region_id,
            epoch,
            ..GrantedRegion::default()
        });
        let lease = RegionLease {
            regions: regions.collect(),
            duration_since_epoch,
            lease_ms: 1_000,
            ..RegionLease::default()
        };
        let response = HeartbeatResponse { region_lease: Some(lease), ..HeartbeatResponse::default() };
        self.keeper.handle(&mut ResponseContext { response: &response, sent_at: None })
    }

    fn writable(&self, region: u64) -> bool {
        self.keeper.write_guard(RegionId(region)).is_ok()
    }

    /// Lets so much time pass, and everything happen that is due.
    async fn pass(&self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    fn told(&self) -> Vec<(u64, u64, RegionRole)> {
        std::mem::take(&mut *self.told.0.lock().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_counts_from_the_time_that_the_request_carried() {
    let bench = bench([(1, 1)]);
    bench.pass(500).await;
    let sent = bench.keeper.duration_since_epoch_ms();
    assert_eq!(sent, 500);
    bench.pass(600).await;
    bench.answer(sent, [(1, 1)]).unwrap();
    let until = bench.keeper.region(RegionId(1)).unwrap().until();
    assert_eq!(
        until,
        bench.keeper.epoch + Duration::from_millis(500 + 990),
        "L·(1−ρ) from the sending, not the arrival"
    );
    assert!(bench.writable(1));
    bench.pass(391).await;
    assert!(!bench.writable(1));
}

#[tokio::test(start_paused = true)]
async fn an_expired_region_is_read_only_and_writable_again_by_a_grant_alone() {
    let bench = bench([(1, 3)]);
    bench.grant([(1, 3)]).unwrap();
    bench.pass(1).await;
    assert_eq!(bench.told(), [(1, 3, RegionRole::Leader)]);
    for _ in 0..5 {
        bench.pass(500).await;
        bench.grant([(1, 3)]).unwrap();
    }
    assert_eq!(bench.told(), [], "a renewal in time is no change of role");
    bench.pass(2_000).await;
    assert_eq!(bench.told(), [(1, 3, RegionRole::Follower)]);
    bench.grant([(1, 3)]).unwrap();
    assert!(bench.writable(1));
    bench.pass(1).await;
    assert_eq!(bench.told(), [(1, 3, RegionRole::Leader)]);
}

#[tokio::test(start_paused = true)]
async fn grants_for_others_change_nothing() {
    let bench = bench([(1, 3)]);
    bench.grant([(1, 2), (1, 4), (2, 3)]).unwrap();
    assert!(!bench.writable(1) && !bench.writable(2));
    let refused = bench.answer(99_999, [(1, 3)]).unwrap_err();
    assert!(refused.why.contains("99999"), "a time that no request carried yet: {refused}");
    assert!(!bench.writable(1));
    let lease = RegionLease {
        regions: vec![GrantedRegion {
            region_id: 1,
            epoch: 3,
            role: meta::RegionRole::Follower.into(),
            ..GrantedRegion::default()
        }],
        lease_ms: 1_000,
        ..RegionLease::default()
    };
    let response = HeartbeatResponse { region_lease: Some(lease), ..HeartbeatResponse::default() };
    bench.keeper.handle(&mut ResponseContext { response: &response, sent_at: None }).unwrap();
    assert!(!bench.writable(1), "a follower does not write");
}

#[tokio::test(start_paused = true)]
async fn a_region_that_was_closed_and_opened_again_needs_a_new_answer() {
    let bench = bench([(1, 1)]);
    bench.pass(100).await;
    let sent = bench.keeper.duration_since_epoch_ms();
    bench.pass(100).await;
    bench.keeper.take(RegionServerEvent::Deregistered(RegionId(1)));
    assert_eq!(bench.keeper.write_guard(RegionId(1)).unwrap_err(), NotWritable::NotOpen(RegionId(1)));
    bench.keeper.take(RegionServerEvent::Registered(RegionId(1), Epoch(1)));
    bench.answer(sent, [(1, 1)]).unwrap();
    assert!(!bench.writable(1));
    bench.grant([(1, 1)]).unwrap();
    assert!(bench.writable(1));
}

#[tokio::test(start_paused = true)]
async fn reports_join_what_the_keeper_and_the_embedder_know() {
    let bench = bench([(2, 7), (1, 1)]);
    bench.grant([(2, 7)]).unwrap();
    let (_, (report, _)) = bench.keeper.report(true, true);
    let seen: Vec<_> = report
        .iter()
        .map(|stat| (stat.region_id, stat.epoch, stat.role(), stat.rcus, stat.engine.as_str()))
        .collect();
    assert_eq!(
        seen,
        [(1, 1, meta::RegionRole::Follower, 0, ""), (2, 7, meta::RegionRole::Leader, 3, "test")],
        "a region the embedder says nothing of is reported all the same: it is open"
    );
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_regions_need_one_task_and_one_timer() {
    const MANY: u64 = 10_000;
    let bench = bench((1..=MANY).map(|region| (region, 1)));
    let handles = tokio::runtime::Handle::current();
    let before = handles.metrics().num_alive_tasks();
    for _ in 0..3 {
        bench.grant((1..=MANY).map(|region| (region, 1))).unwrap();
        bench.pass(500).await;
    }
    assert_eq!(handles.metrics().num_alive_tasks(), before);
    assert_eq!(bench.told().len(), 10_000, "each became writable once");
    // Half of them are renewed once more.
    bench.grant((1..=MANY / 2).map(|region| (region, 1))).unwrap();
    bench.pass(600).await;
    let told = bench.told();
    assert_eq!(told.len(), 5_000);
    assert!(told.iter().all(|(region, _, role)| *region > MANY / 2 && *role == RegionRole::Follower));
    bench.pass(1_000).await;
    assert_eq!(bench.told().len(), 5_000);
}

/// Goal: a node whose stream ends knows whether somebody waits for it. Method: a region through all that a migration does with it,
/// beside one that is led all the time.
#[tokio::test(start_paused = true)]
async fn a_node_is_awaited_while_one_of_its_regions_has_no_writer_or_is_about_to_move() {
    let bench = bench([]);
    let keeper = &bench.keeper;
    assert!(!keeper.is_awaited(), "it has nothing");
    keeper.take(RegionServerEvent::Registered(RegionId(1), Epoch(1)));
    assert!(keeper.is_awaited(), "it was told to lead, and has no lease");
    bench.grant([(1, 1)]).unwrap();
    assert!(!keeper.is_awaited());
    keeper.take(RegionServerEvent::RegisteredCandidate(RegionId(2), Epoch(7)));
    assert!(keeper.is_awaited(), "it is a candidate");
    keeper.take(RegionServerEvent::Registered(RegionId(2), Epoch(8)));
    assert!(keeper.is_awaited());
    bench.grant([(1, 1), (2, 8)]).unwrap();
    assert!(!keeper.is_awaited());
    keeper.stop(RegionId(2), Epoch(8));
    assert!(keeper.is_awaited(), "another node waits for what it wrote last");
    keeper.take(RegionServerEvent::Deregistered(RegionId(2)));
    assert!(!keeper.is_awaited());
}
