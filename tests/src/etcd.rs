//! A real etcd of one or three members, on free ports, in a directory that goes away with the test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::place::Place;
use crate::ports::free_port;
use crate::process::Process;
use crate::replica::http_exchange;
use crate::wait::eventually;

/// An election among members takes up to three seconds; a loaded machine takes longer to start them.
const READY: Duration = Duration::from_secs(30);

struct Member {
    name: String,
    place: Place,
    client_port: u16,
    peer_port: u16,
    process: Option<Process>,
}

impl Member {
    fn client_addr(&self) -> String {
        format!("{}:{}", self.place.host, self.client_port)
    }

    fn peer_addr(&self) -> String {
        format!("{}:{}", self.place.host, self.peer_port)
    }
}

/// A cluster of etcd members.
pub struct Etcd {
    members: Vec<Member>,
    directory: PathBuf,
    arguments: Vec<String>,
}

impl Etcd {
    /// Starts so many members and waits until they serve.
    pub async fn start(members: usize, directory: &Path) -> Etcd {
        Etcd::start_at(vec![Place::here(); members], Vec::new(), directory).await
    }

    /// Starts a member at each of these places, with further arguments, and waits until they serve.
    pub async fn start_at(places: Vec<Place>, arguments: Vec<String>, directory: &Path) -> Etcd {
        let members = places
            .into_iter()
            .enumerate()
            .map(|(index, place)| Member {
                name: format!("etcd-{index}"),
                place,
                client_port: free_port(),
                peer_port: free_port(),
                process: None,
            })
            .collect();
        let mut etcd = Etcd { members, directory: directory.to_owned(), arguments };
        for index in 0..etcd.members.len() {
            etcd.start_member(index);
        }
        etcd.ready().await;
        etcd
    }

    /// Waits until every running member serves linearizable reads.
    pub async fn ready(&self) {
        for member in self.members.iter().filter(|member| member.process.is_some()) {
            let what = format!("{} is healthy", member.name);
            eventually(READY, &what, async || {
                let answer = http_exchange(&member.client_addr(), "GET", "/health", "").await?;
                if answer.contains("\"health\":\"true\"") { Ok(()) } else { Err(answer) }
            })
            .await;
        }
    }

    /// The addresses that clients use, as `metasrv serve --etcd-endpoints` takes them.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("http://{}", member.client_addr())).collect()
    }

    /// The address, `host:port`, at which a member serves clients.
    pub fn addr(&self, index: usize) -> String {
        self.members[index].client_addr()
    }

    /// How many members there are, running or not.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Starts a member, again or for the first time; its data is what it was.
    pub fn start_member(&mut self, index: usize) {
        let cluster: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{}=http://{}", member.name, member.peer_addr()))
            .collect();
        let member = &self.members[index];
        let client = format!("http://{}", member.client_addr());
        let peer = format!("http://{}", member.peer_addr());
        let arguments = [
            format!("--name={}", member.name),
            format!("--data-dir={}", self.directory.join(format!("{}.data", member.name)).display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", cluster.join(",")),
            "--initial-cluster-state=new".to_owned(),
            "--logger=zap".to_owned(),
            // The default from 3.5 on. Without it a member that was cut off comes back with a higher raft term and costs etcd
            // its leader, for three seconds and more.
            "--pre-vote=true".to_owned(),
        ];
        let arguments = arguments.iter().chain(&self.arguments);
        let namespace = member.place.namespace.as_deref();
        let process =
            Process::start_in(namespace, &member.name, Path::new("etcd"), arguments, &self.directory);
        self.members[index].process = Some(process);
    }

    /// Kills a member; its data stays.
    pub fn kill_member(&mut self, index: usize) {
        if let Some(process) = self.members[index].process.take() {
            process.kill();
        }
    }

    /// Stops a member in its tracks: its connections stay open and nobody answers.
    pub fn pause_member(&self, index: usize) {
        self.signal(index, Signal::STOP);
    }

    /// Lets a paused member go on.
    pub fn resume_member(&self, index: usize) {
        self.signal(index, Signal::CONT);
    }

    fn signal(&self, index: usize, signal: Signal) {
        let member = &self.members[index];
        member.process.as_ref().unwrap_or_else(|| panic!("{} does not run", member.name)).signal(signal);
    }
}
