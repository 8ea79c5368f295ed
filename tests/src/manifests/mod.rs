//! What has to be true of deploy/, and no schema sees: that ports, paths, names, flags and settings fit together.
//!
//! Every check takes documents and returns what is wrong with them, a sentence each, so that tests can show that a mistake
//! is found. Programs are not described here a second time: the binaries are asked whether they take a line.
//!
//! | file | what |
//! | --- | --- |
//! | `tools.rs` | kubectl, the published schemas, YAML as JSON |
//! | `object.rs` | a document, and what can be read off it |
//! | `wiring.rs` | Kubernetes: selectors, ports, references, names in addresses |
//! | `pods.rs` | Kubernetes: restricted, stopped in time, probed for the right thing |
//! | `container.rs` | one container: its program's line, environment and files |
//! | `programs.rs` | whether the programs take all that, and listen where the ports are |
//! | `services.rs` | the services of compose.yaml |

pub mod container;
pub mod object;
pub mod pods;
pub mod programs;
pub mod services;
pub mod tools;
pub mod wiring;
