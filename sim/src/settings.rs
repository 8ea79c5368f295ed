//! What a seed draws before anything begins: how large the cluster is, how long its leases are, how its clocks run.

use std::time::Duration;

use metasrv_core::timing::Timing;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use crate::net::Weather;
use crate::plant::Plant;

/// A TTL in seconds, L and the heartbeat interval in milliseconds: long and short ones, and each longer than the other.
const TIMINGS: [(u64, u64, u64); 6] = [
    (5, 5_000, 1_000),
    (5, 5_000, 500),
    (3, 3_000, 500),
    (2, 2_000, 250),
    (5, 2_500, 500),
    (3, 6_000, 1_000),
];

/// Clocks run wrong by up to so much, in parts per million: ρ.
const DRIFT_PPM: u64 = 10_000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many replicas.
    pub replicas: usize,
    /// How many datanodes.
    pub nodes: u64,
    /// How many regions there are at first.
    pub regions: u32,
    /// What every replica is configured with.
    pub timing: Timing,
    /// What links do.
    pub weather: Weather,
    /// For how long faults happen.
    pub faults: Duration,
    /// For how long everything is left alone afterwards, at most.
    pub calm: Duration,
    /// The longest pause between two faults, in milliseconds.
    pub pause_ms: u64,
    /// The longest pause between two operations, in milliseconds.
    pub idle_ms: u64,
    /// A mistake that has to be found.
    pub plant: Option<Plant>,
}

impl Settings {
    /// As this seed draws them.
    pub fn draw(random: &mut StdRng, plant: Option<Plant>) -> Settings {
        let (ttl, lease, interval) = *TIMINGS.choose(random).unwrap_or(&TIMINGS[0]);
        let timing = Timing {
            election_ttl: Duration::from_secs(ttl),
            region_lease: Duration::from_millis(lease),
            heartbeat_interval: Duration::from_millis(interval),
            ..Timing::default()
        };
        let slow = random.random_bool(0.2);
        let weather = Weather {
            least_us: 1_000,
            most_us: if slow { 40_000 } else { 3_000 },
            lost_per_mille: if random.random_bool(0.2) { 5 } else { 0 },
        };
        Settings {
            replicas: if random.random_bool(0.15) { 2 } else { 3 },
            nodes: random.random_range(3..=5),
            regions: random.random_range(3..=10),
            timing,
            weather,
            faults: Duration::from_secs(random.random_range(40..=80)),
            calm: Duration::from_secs(60),
            pause_ms: *[1_000, 4_000, 10_000].choose(random).unwrap_or(&4_000),
            plant,
            idle_ms: *[300, 1_500, 5_000].choose(random).unwrap_or(&1_500),
        }
    }
}

/// The rate of a machine's clock, in parts per million: as wrong as it may be, or anything between.
pub fn draw_rate(random: &mut StdRng) -> u64 {
    match random.random_range(0..4) {
        0 => 1_000_000 - DRIFT_PPM,
        1 => 1_000_000 + DRIFT_PPM,
        _ => random.random_range(1_000_000 - DRIFT_PPM..=1_000_000 + DRIFT_PPM),
    }
}
