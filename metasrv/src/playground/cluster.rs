//! What a playground consists of, in which order it starts, and in which order it ends.
//!
//! It starts from the bottom up, each part when the one below answers, and ends from the top down, so that each part
//! finds the one below still there for its farewell: datanodes leave, replicas hand over and drain, etcd goes last.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::child::{Change, Child, Kind, Recipe, State};
use super::ports::Ports;
use super::programs::Programs;

/// A datanode closes its regions and says goodbye.
const DATANODE_PATIENCE: Duration = Duration::from_secs(6);
/// A replica gives itself eight seconds.
const METASRV_PATIENCE: Duration = Duration::from_secs(10);
/// Without etcd there is nothing that a replica could hand over through.
const NO_FAREWELL: Duration = Duration::from_secs(1);
/// etcd closes its files.
const ETCD_PATIENCE: Duration = Duration::from_secs(5);
/// A killed process is cleared away by the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at processes that are ending.
const LOOK: Duration = Duration::from_millis(20);

/// How many of each.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Replicas of metasrv. One, on a store of its own, where there is no etcd.
    pub replicas: u16,
    /// Datanodes.
    pub datanodes: u16,
}

/// The processes of a playground.
pub struct Cluster {
    /// From the bottom up.
    pub children: Vec<Child>,
    metasrv: PathBuf,
    /// They stay taken as long as a child may be started again.
    _ports: Ports,
}

impl Cluster {
    /// Settles names, ports, directories and flags. Nothing is started.
    ///
    /// # Errors
    /// There are not enough free ports.
    pub fn plan(programs: &Programs, size: Size, data: &Path) -> Result<Cluster, String> {
        let mut ports = Ports::new();
        let mut children = Vec::new();
        let recipe = |name: &str, program: &Path, arguments: Vec<String>| Recipe {
            program: program.to_owned(),
            arguments,
            directory: data.to_owned(),
            log: data.join(format!("{name}.log")),
        };
        let directory = |name: &str| data.join(name).display().to_string();
        let mut store = vec!["--embedded".to_owned(), directory("m1")];
        if let Some(program) = &programs.etcd {
            let (client, peer) = (ports.take()?, ports.take()?);
            store = vec!["--etcd-endpoints".to_owned(), format!("http://127.0.0.1:{client}")];
            let recipe = recipe("e1", program, etcd_arguments(&directory("e1"), client, peer));
            children.push(Child::new("e1".to_owned(), Kind::Etcd, client, None, recipe));
        }
        let mut addrs = Vec::new();
        for index in 1..=size.replicas {
            let name = format!("m{index}");
            let (grpc, http) = (ports.take()?, ports.take()?);
            addrs.push(format!("127.0.0.1:{grpc}"));
            let mut arguments = flags(&[
                ("--name", name.clone()),
                ("--grpc-addr", format!("127.0.0.1:{grpc}")),
                ("--http-addr", format!("127.0.0.1:{http}")),
            ]);
            arguments.insert(0, "serve".to_owned());
            arguments.extend(store.iter().cloned());
            let recipe = recipe(&name, &programs.metasrv, arguments);
            children.push(Child::new(name, Kind::Metasrv, grpc, Some(http), recipe));
        }
        for id in 1..=size.datanodes {
            let name = format!("d{id}");
            let port = ports.take()?;
            let mut arguments = flags(&[
                ("--node-id", id.to_string()),
                ("--metasrv", addrs.join(",")),
                ("--grpc-addr", format!("127.0.0.1:{port}")),
                ("--data", directory(&name)),
                // A region that moves is read by its next node.
                ("--shared", directory("regions")),
            ]);
            arguments.insert(0, "run".to_owned());
            let recipe = recipe(&name, &programs.datanode, arguments);
            children.push(Child::new(name, Kind::Datanode, port, None, recipe));
        }
        Ok(Cluster { children, metasrv: programs.metasrv.clone(), _ports: ports })
    }

    /// The children of this kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Child> {
        self.children.iter().filter(move |child| child.kind == kind)
    }

    /// Where the replicas speak gRPC, in the order of their names.
    pub fn metasrv_addrs(&self) -> Vec<String> {
        self.of(Kind::Metasrv).map(Child::addr).collect()
    }

    /// Starts every child of this kind that was not started before. Must be called on the main thread.
    ///
    /// # Errors
    /// One of them cannot be started.
    pub fn start(&mut self, kind: Kind) -> Result<(), String> {
        let new = |child: &&mut Child| child.kind == kind && *child.state() == State::Waiting;
        for child in self.children.iter_mut().filter(new) {
            child.start(&self.metasrv)?;
        }
        Ok(())
    }

    /// Starts one child again. Must be called on the main thread.
    ///
    /// # Errors
    /// It runs, or cannot be started.
    pub fn start_one(&mut self, name: &str) -> Result<(), String> {
        let at = self.position(name)?;
        self.children[at].start(&self.metasrv)
    }

    /// The child of this name.
    ///
    /// # Errors
    /// There is none; the names that there are.
    pub fn child(&mut self, name: &str) -> Result<&mut Child, String> {
        let at = self.position(name)?;
        Ok(&mut self.children[at])
    }

    fn position(&self, name: &str) -> Result<usize, String> {
        self.children.iter().position(|child| child.name == name).ok_or_else(|| {
            let names: Vec<_> = self.children.iter().map(|child| child.name.as_str()).collect();
            format!("there is no {name} here; there are {}", names.join(", "))
        })
    }

    /// Looks at all children and says what changed, by name.
    pub fn look(&mut self) -> Vec<(String, Change)> {
        self.children.iter_mut().filter_map(|child| Some((child.name.clone(), child.look()?))).collect()
    }

    /// Ends all in good order. Returns the names of those that had to be killed because they did not end in time.
    pub async fn end(&mut self) -> Vec<String> {
        // A paused process hears nothing, and keeps those waiting that say goodbye to it.
        self.children.iter().for_each(Child::unpause);
        let mut killed = self.end_kind(Kind::Datanode, DATANODE_PATIENCE).await;
        let farewell = self.of(Kind::Etcd).all(Child::is_alive);
        let patience = if farewell { METASRV_PATIENCE } else { NO_FAREWELL };
        killed.extend(self.end_kind(Kind::Metasrv, patience).await);
        killed.extend(self.end_kind(Kind::Etcd, ETCD_PATIENCE).await);
        killed
    }

    async fn end_kind(&mut self, kind: Kind, patience: Duration) -> Vec<String> {
        self.of(kind).for_each(Child::ask_to_end);
        if tokio::time::timeout(patience, self.gone(Some(kind))).await.is_ok() {
            return Vec::new();
        }
        let late: Vec<_> =
            self.of(kind).filter(|child| child.is_alive()).map(|child| child.name.clone()).collect();
        self.of(kind).for_each(Child::kill_now);
        // The kernel keeps a process that is stuck in it; there is nothing more to be done.
        let _ = tokio::time::timeout(KILL_PATIENCE, self.gone(Some(kind))).await;
        late
    }

    /// Kills all at once.
    pub async fn kill(&mut self) {
        self.children.iter().for_each(Child::kill_now);
        // As above.
        let _ = tokio::time::timeout(KILL_PATIENCE, self.gone(None)).await;
    }

    /// Resolves when all children, or all of this kind, are gone.
    async fn gone(&mut self, kind: Option<Kind>) {
        loop {
            self.look();
            let alive = |child: &Child| child.is_alive() && kind.is_none_or(|kind| child.kind == kind);
            if !self.children.iter().any(alive) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many children of this kind run and are not paused, and how many there are.
    pub fn up(&self, kind: Kind) -> (usize, usize) {
        let up = self.of(kind).filter(|child| *child.state() == State::Up).count();
        (up, self.of(kind).count())
    }
}

fn flags(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]).collect()
}

fn etcd_arguments(directory: &str, client: u16, peer: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    vec![
        "--name=e1".to_owned(),
        format!("--data-dir={directory}"),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=e1={peer}"),
        "--initial-cluster-state=new".to_owned(),
        "--logger=zap".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(etcd: Option<PathBuf>, replicas: u16) -> Cluster {
        let programs = Programs { metasrv: "/bin/metasrv".into(), datanode: "/bin/datanode".into(), etcd };
        Cluster::plan(&programs, Size { replicas, datanodes: 2 }, Path::new("/data")).unwrap()
    }

    fn names(cluster: &Cluster) -> Vec<&str> {
        cluster.children.iter().map(|child| child.name.as_str()).collect()
    }

    #[test]
    fn with_etcd_every_replica_uses_it_and_every_datanode_knows_all_replicas() {
        let cluster = planned(Some("/bin/etcd".into()), 3);
        assert_eq!(names(&cluster), ["e1", "m1", "m2", "m3", "d1", "d2"]);
        let etcd = format!("http://{}", cluster.children[0].addr());
        let m3 = cluster.children[3].recipe.arguments.join(" ");
        assert!(m3.starts_with("serve --name m3 --grpc-addr 127.0.0.1:"), "{m3}");
        assert!(m3.ends_with(&format!("--etcd-endpoints {etcd}")), "{m3}");
        let d2 = cluster.children[5].recipe.arguments.join(" ");
        let addrs = cluster.metasrv_addrs().join(",");
        assert!(d2.starts_with(&format!("run --node-id 2 --metasrv {addrs} --grpc-addr ")), "{d2}");
        assert!(d2.ends_with("--data /data/d2 --shared /data/regions"), "{d2}");
    }

    #[test]
    fn without_etcd_the_replica_keeps_its_own_store() {
        let cluster = planned(None, 1);
        assert_eq!(names(&cluster), ["m1", "d1", "d2"]);
        assert!(cluster.children[0].recipe.arguments.join(" ").ends_with("--embedded /data/m1"));
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let mut cluster = planned(None, 1);
        assert_eq!(cluster.child("m9").err().unwrap(), "there is no m9 here; there are m1, d1, d2");
        assert!(cluster.start_one("e1").is_err());
    }
}
