//! The pure core of metasrv: what can be decided without I/O is decided here.
//!
//! Nothing in this crate reads a clock, draws a random number, logs, or waits. `now` is always an argument,
//! randomness is a number that is handed in, iteration is ordered. The shells (`metasrv`, `datanode`) execute
//! what is decided here, and the same functions run in simulation and in the model checker.
//!
//! One file, one domain word:
//!
//! | file | what it decides |
//! | --- | --- |
//! | [`time`] | what an instant is, and the [`time::Clock`] that hands it in |
//! | [`id`] | the identities: nodes, incarnations, regions, terms, epochs, fences |
//! | [`timing`] | every duration, derived from a few inputs |
//! | [`lease`] | until when a leader leads and a datanode may write |
//! | [`election`] | one candidate's way to leadership and out of it |
//! | [`suspicion`] | when a silent leader is to be deposed |
//! | [`handover`] | whose term a leader begins when it resigns, and what that one makes of it |
//! | [`spare`] | which terms are reserved ahead, and which of them may still be led |
//! | [`settlement`] | how long a new term waits for what its predecessors may have granted |
//! | [`incarnation`] | which process of a node may be granted leases |
//! | [`guard`] | the rules by name, so that the proof can remove one |
//! | [`grant`] | which of the reported regions a heartbeat renews, opens, or closes |
//! | [`digest`] | a number for a set of regions, by which two sides compare what they have |
//! | [`holdings`] | what a node's routes are beside what it holds: which heartbeats renew all at once, and what is accounted for |
//! | [`opening`] | what a node is told to open, and when again |
//! | [`detector`] | which nodes are alive, suspect or lost, by their heartbeats |
//! | [`pacing`] | how often the nodes of a fleet heartbeat |
//! | [`brake`] | when automatic failovers stop, and why |
//! | [`placement`] | which node a region goes to and why to no other, and which moves even loads out |
//! | [`failover`] | when a region may be taken from a node, and which go where now |
//! | [`procedure`] | what takes several steps over several nodes: [`procedure::migrate`], [`procedure::drain`] |
//! | [`stats`] | the epoch cache in front of the persisted stats |
//! | [`backlog`] | what waits to be written behind, coalesced and cut into batches |
//! | [`region_map`] | a map from region ids that takes little more than its entries |

pub mod backlog;
pub mod brake;
pub mod detector;
pub mod digest;
pub mod election;
pub mod failover;
pub mod grant;
pub mod guard;
pub mod handover;
pub mod holdings;
pub mod id;
pub mod incarnation;
pub mod lease;
pub mod opening;
pub mod pacing;
pub mod placement;
pub mod procedure;
pub mod region_map;
pub mod settlement;
pub mod spare;
pub mod stats;
pub mod suspicion;
pub mod time;
pub mod timing;
