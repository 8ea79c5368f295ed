//! What `make chaos FAULT=region-…` is made of: datanodes as processes, and what a fault costs a region's writer.
//!
//! | file | what |
//! | --- | --- |
//! | `fault.rs` | the faults by their names |
//! | `datanode.rs` | a datanode in a namespace of its own |
//! | `world.rs` | servers, datanodes, writers together |
//! | `book.rs` | where the writers believe that each region is |
//! | `writer.rs` | a writer for each region |
//! | `keys.rs` | what a writer put, and what must be found therefore |
//! | `track.rs` | when each put was acknowledged |
//! | `intervals.rs` | whether two ever wrote to a region at the same time |
//! | `storage.rs` | what the regions' own files say |
//! | `round.rs`, `planned.rs`, `unplanned.rs` | one fault, healed, and what it cost |
//! | `summary.rs` | rounds as figures and as rows, with their targets |
//! | `page.rs` | docs/fault-matrix-regions.md |
//! | `run.rs` | the command |

pub mod book;
pub mod datanode;
pub mod fault;
pub mod intervals;
pub mod keys;
pub mod page;
mod planned;
pub mod round;
pub mod run;
pub mod storage;
pub mod summary;
pub mod track;
mod unplanned;
pub mod world;
pub mod writer;
