//! Puts together what is known of each process: by its parent, and by the leader.

use super::child::{Change, Child, Kind, State};
use super::cluster::Cluster;
use super::control::{Listed, Listing};
use super::screen::Row;
use super::watch::Observation;

/// The processes for the screen.
pub fn rows(cluster: &Cluster, seen: &Observation) -> Vec<Row> {
    let mut rows = Vec::with_capacity(cluster.children.len());
    rows.extend(cluster.of(Kind::Etcd).map(|child| row(child, String::new(), None)));
    for (index, child) in cluster.of(Kind::Metasrv).enumerate() {
        let role = match seen.replicas.get(index).and_then(Option::as_ref) {
            Some(replica) if replica.role == "leader" => format!("leader (term {})", replica.term),
            Some(replica) => replica.role.clone(),
            None => String::new(),
        };
        rows.push(row(child, role, None));
    }
    let nodes = seen.present_nodes().unwrap_or_default();
    for (id, child) in (1..).zip(cluster.of(Kind::Datanode)) {
        rows.push(match nodes.iter().find(|node| node.id == id) {
            Some(node) => {
                let role = if node.connected { "connected" } else { "not connected" };
                row(child, role.to_owned(), Some((node.writable, node.regions)))
            }
            None => row(child, String::new(), None),
        });
    }
    rows
}

fn row(child: &Child, role: String, regions: Option<(u64, u64)>) -> Row {
    // What a replica said before its end is no news; what the leader says of a datanode is.
    let role = if child.kind == Kind::Metasrv && !child.is_alive() { String::new() } else { role };
    Row {
        name: child.name.clone(),
        what: child.kind.name(),
        state: child.state().clone(),
        role,
        regions,
        addr: if *child.state() == State::Waiting { String::new() } else { child.addr() },
    }
}

/// The processes for a second terminal.
pub fn listing(cluster: &Cluster, seen: &Observation) -> Listing {
    let listed = |child: &Child| Listed {
        name: child.name.clone(),
        what: child.kind.name().to_owned(),
        pid: child.pid(),
        state: child.state().name().to_owned(),
        grpc: child.addr(),
        http: child.http_port.map(|port| format!("127.0.0.1:{port}")),
        log: child.recipe.log.clone(),
    };
    Listing {
        pid: std::process::id(),
        metasrv: cluster.metasrv_addrs(),
        leader: seen.leader.as_ref().map(|leader| leader.name.clone()),
        processes: cluster.children.iter().map(listed).collect(),
    }
}

/// What became of a process that nobody here did anything to.
pub fn tell(name: &str, change: &Change) -> String {
    match change {
        Change::Paused => format!("{name} was paused by somebody else"),
        Change::Resumed => format!("{name} goes on"),
        Change::Ended { how, last_line } if last_line.is_empty() => {
            format!("{name} {how} and had logged nothing")
        }
        Change::Ended { how, last_line } => format!("{name} {how}; its last words: {last_line}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::cluster::Size;
    use super::super::programs::Programs;
    use super::super::watch::{LeaderSeen, NodeSeen, ReplicaSeen};
    use super::*;

    #[test]
    fn each_process_is_shown_with_what_its_parent_and_the_leader_know() {
        let programs = Programs { metasrv: "/m".into(), datanode: "/d".into(), etcd: Some("/e".into()) };
        let size = Size { replicas: 2, datanodes: 2 };
        let cluster = Cluster::plan(&programs, size, Path::new("/data")).unwrap();
        let seen = Observation {
            replicas: vec![None, Some(ReplicaSeen { role: "leader".to_owned(), term: 3 })],
            leader: Some(LeaderSeen { name: "m2".to_owned(), term: 3, ..LeaderSeen::default() }),
            nodes: vec![NodeSeen { id: 2, connected: false, regions: 4, writable: 1 }],
            nodes_term: 3,
            ..Observation::default()
        };
        let rows = rows(&cluster, &seen);
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["e1", "m1", "m2", "d1", "d2"]);
        assert_eq!(rows[2].role, "", "it does not run, whatever it said before");
        assert_eq!((rows[4].role.as_str(), rows[4].regions), ("not connected", Some((1, 4))));
        assert_eq!(rows[3].regions, None);
        let listing = listing(&cluster, &seen);
        assert_eq!(listing.leader.as_deref(), Some("m2"));
        assert_eq!(listing.processes.len(), 5);
        assert_eq!(listing.processes[1].state, "waiting");
    }

    #[test]
    fn an_end_is_told_with_the_last_words() {
        let ended = |last_line: &str| Change::Ended {
            how: "ended by itself with exit code 1".to_owned(),
            last_line: last_line.to_owned(),
        };
        assert_eq!(
            tell("d2", &ended("error: no disk")),
            "d2 ended by itself with exit code 1; its last words: error: no disk"
        );
        assert_eq!(tell("d2", &ended("")), "d2 ended by itself with exit code 1 and had logged nothing");
    }
}
