//! What `make test-compose` is made of: the cluster of deploy/compose, run by a real Docker engine.
//!
//! The images are those of deploy/docker/offline.sh, the file is the one that users get, and what is asked comes from
//! outside, through the ports that are published on 127.0.0.1. Everything bears the name of one project, and only what
//! bears it is ended and removed.
//!
//! | file | what |
//! | --- | --- |
//! | `engine.rs` | docker's command line, with deadlines |
//! | `project.rs` | the project: up, containers by their services, down |
//! | `world.rs` | the cluster in it, as its ports answer |
//! | `run.rs` | what is done to it, and the figures |

pub mod engine;
pub mod project;
pub mod run;
pub mod world;
