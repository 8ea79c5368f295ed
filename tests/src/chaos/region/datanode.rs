//! A datanode as a process in a network namespace of its own, with or without a supervisor.

use std::path::{Path, PathBuf};

use crate::binaries::binary;
use crate::place::Place;
use crate::ports::free_port;
use crate::process::Process;

/// Its port and its data stay the same when it is started again.
pub struct Datanode {
    /// Its id.
    pub id: u64,
    /// Where it runs.
    pub place: Place,
    port: u16,
    arguments: Vec<String>,
    intervals: PathBuf,
    supervised: bool,
    process: Option<Process>,
}

impl Datanode {
    /// A datanode at this place that is not started yet; its own files are in `directory`, the regions in `shared`.
    pub fn new(
        id: u64,
        place: Place,
        supervised: bool,
        metasrv: &[String],
        directory: &Path,
        shared: &Path,
    ) -> Datanode {
        let port = free_port();
        let intervals = directory.join(format!("datanode-{id}.intervals"));
        let data = directory.join(format!("datanode-{id}.data"));
        let mut arguments: Vec<String> = [
            ("--node-id", id.to_string()),
            ("--metasrv", metasrv.join(",")),
            ("--grpc-addr", format!("{}:{port}", place.host)),
            ("--host", format!("host-{id}")),
            ("--data", data.display().to_string()),
            ("--shared", shared.display().to_string()),
            ("--write-intervals", intervals.display().to_string()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        if supervised {
            arguments.push("--supervised".to_owned());
        }
        Datanode { id, place, port, arguments, intervals, supervised, process: None }
    }

    /// Its gRPC address.
    pub fn addr(&self) -> String {
        format!("{}:{}", self.place.host, self.port)
    }

    /// Where it notes what it wrote.
    pub fn intervals(&self) -> &Path {
        &self.intervals
    }

    /// Whether it was started and not killed since.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// Starts its process, again or for the first time.
    pub fn start(&mut self, directory: &Path) {
        let name = format!("datanode-{}", self.id);
        let namespace = self.place.namespace.as_deref();
        let arguments = std::iter::once("run".to_owned()).chain(self.arguments.iter().cloned());
        self.process = Some(Process::start_in(namespace, &name, &binary("datanode"), arguments, directory));
    }

    /// Kills it as a power failure would, its supervisor included.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Kills the worker, and leaves its supervisor.
    ///
    /// # Errors
    /// There is no worker now.
    pub fn kill_worker(&self) -> Result<(), String> {
        let process = self.process.as_ref().filter(|_| self.supervised);
        process.ok_or_else(|| format!("datanode {} has no supervisor now", self.id))?.kill_child()
    }
}
