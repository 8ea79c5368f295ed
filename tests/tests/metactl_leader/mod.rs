//! A replica that leads and says what each test of `metactl` needs.

// Each of the tests that use this uses a part of it.
#![allow(dead_code)]

#[path = "../../../client/src/fake.rs"]
mod fake;
#[path = "../../../client/src/fake_operations.rs"]
mod fake_operations;

use std::path::Path;

use fake::FakeMetasrv;
use metasrv_proto::admin::Event;
use metasrv_tests::binaries::binary;
use metasrv_tests::metactl::{Run, bare};
use metasrv_tests::process::Process;

pub use fake_operations::{Asked, Does, FakeOperations};

/// A replica that leads.
pub struct Leader {
    pub fake: FakeMetasrv,
    pub operations: FakeOperations,
}

impl Leader {
    pub async fn start(plan: impl FnMut(&Asked) -> Does + Send + 'static) -> Leader {
        let operations = FakeOperations::new(plan);
        let service = operations.service();
        let fake = FakeMetasrv::start_with(|routes| {
            routes.add_service(service);
        })
        .await;
        Leader { fake, operations }
    }

    /// Runs `metactl` against it.
    pub async fn run(&self, line: &str) -> Run {
        bare(&format!("{line} --metasrv {}", self.fake.addr)).await
    }

    /// The same as a process of its own, which goes on meanwhile.
    pub fn begin(&self, words: &[&str], directory: &Path) -> Process {
        let arguments = words.iter().copied().chain(["--metasrv", &self.fake.addr]);
        Process::start("metactl", &binary("metactl"), arguments, directory)
    }

    pub fn last_asked(&self) -> Asked {
        self.operations.asked().pop().unwrap_or_else(|| panic!("nothing was asked"))
    }
}

/// An event at so many milliseconds after a certain second, about a procedure.
pub fn event(id: u64, kind: &str, procedure_id: u64) -> Event {
    Event { id, kind: kind.to_owned(), procedure_id, at_ms: 1_700_000_000_000 + id, ..Event::default() }
}
