//! Whether the programs take what a container starts them with, and listen where its ports are.
//!
//! The binaries are asked: a line with `--help` at its end is refused for a flag that is not there, and `metasrv config
//! show` refuses every setting, variable and value that a replica would refuse. Nothing is started.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::container::Container;
use super::object::{containers, of_kind, probes, text};
use super::tools::output;
use crate::binaries::binary;

/// What is wrong with what this container starts.
pub fn findings(container: &Container) -> Vec<String> {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let placed = placed(container, directory.path());
    let mut found = Vec::new();
    if let Err(why) = takes(&placed) {
        found.push(why);
    }
    match listens(&placed) {
        Err(why) => found.push(why),
        Ok(addrs) => {
            let unreachable = addrs.iter().filter(|addr| addr.ip().is_loopback());
            found.extend(unreachable.map(|addr| format!("nobody else reaches {addr}")));
            let listens: BTreeSet<u64> = addrs.iter().map(|addr| u64::from(addr.port())).collect();
            let strange = container.ports.iter().filter(|port| !listens.contains(port));
            found.extend(strange.map(|port| format!("port {port}: it listens at {listens:?}")));
        }
    }
    found.into_iter().map(|why| format!("{}: {why}", container.title)).collect()
}

/// The same with its files in a directory of ours, and with its paths leading there.
fn placed(container: &Container, directory: &Path) -> Container {
    let mut placed = container.clone();
    for (index, (path, content)) in container.files.iter().enumerate() {
        let ours = directory.join(index.to_string());
        std::fs::write(&ours, content).expect("the temporary directory is writable");
        let ours = ours.to_string_lossy();
        placed.words.iter_mut().for_each(|word| *word = word.replace(path, &ours));
        placed.environment.values_mut().for_each(|value| *value = value.replace(path, &ours));
    }
    placed
}

/// A program of ours, or etcd, in exactly this environment.
fn program(container: &Container) -> Result<Command, String> {
    let name = container.program();
    let mut command = match name.as_str() {
        "metasrv" | "metactl" | "datanode" => Command::new(binary(&name)),
        "etcd" => Command::new("etcd"),
        _ => return Err(format!("the program {name:?} is not known here")),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).envs(&container.environment);
    Ok(command)
}

/// Whether its program takes its line, and knows its variables.
///
/// # Errors
/// What the program says.
pub fn takes(container: &Container) -> Result<(), String> {
    let arguments = container.words.get(1..).unwrap_or_default();
    let mut command = program(container)?;
    let etcd = container.program() == "etcd";
    if etcd {
        // etcd warns of a variable that it does not know, and goes on; each has a flag.
        command = Command::new("etcd");
        for (name, value) in container.environment.iter().filter(|(name, _)| name.starts_with("ETCD_")) {
            let flag = name.trim_start_matches("ETCD_").to_lowercase().replace('_', "-");
            command.arg(format!("--{flag}={value}"));
        }
    }
    let help = output(command.args(arguments).arg("--help"), "")?;
    let unknown = container
        .environment
        .keys()
        .find(|name| name.starts_with("DATANODE_") && !help.contains(&format!("[env: {name}=")));
    match unknown {
        // Other commands than `run` take some of them, and leave the others alone.
        Some(name) if arguments.first().is_some_and(|word| word == "run") => {
            Err(format!("no variable {name}"))
        }
        _ => Ok(()),
    }
}

/// The ports at which its program would listen; none where that cannot be known.
pub fn listening(container: &Container) -> Vec<u16> {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let addrs = listens(&placed(container, directory.path())).unwrap_or_default();
    addrs.iter().map(SocketAddr::port).collect()
}

/// The addresses at which its program would listen.
///
/// # Errors
/// Its configuration is refused, or it is no server that is known here.
pub fn listens(container: &Container) -> Result<Vec<SocketAddr>, String> {
    let said = |name: &str| container.environment.get(name).cloned();
    let addrs: Vec<String> = match container.program().as_str() {
        "metasrv" => {
            let settings = effective(container)?;
            ["grpc-addr", "http-addr"].map(|name| settings.get(name).cloned().unwrap_or_default()).into()
        }
        "datanode" => vec![said("DATANODE_GRPC_ADDR").unwrap_or("127.0.0.1:4001".to_owned())],
        "etcd" => {
            let flag = |name: &str| {
                let variable = format!("ETCD_{}", name.to_uppercase().replace('-', "_"));
                let flag = format!("--{name}=");
                let word = container.words.iter().find_map(|word| word.strip_prefix(&flag));
                let url = word.map(str::to_owned).or_else(|| said(&variable)).unwrap_or_default();
                url.trim_start_matches("http://").to_owned()
            };
            vec![flag("listen-client-urls"), flag("listen-peer-urls")]
        }
        other => return Err(format!("where {other:?} listens is not known")),
    };
    addrs.iter().map(|addr| addr.parse().map_err(|error| format!("{addr:?}: {error}"))).collect()
}

/// The settings that a replica would run with.
///
/// # Errors
/// It would not run.
pub fn effective(container: &Container) -> Result<BTreeMap<String, String>, String> {
    let mut command = program(container)?;
    // What follows `serve` can be said to `config show`.
    let flags = container.words.get(2..).unwrap_or_default();
    let shown = output(command.args(["config", "show", "-o", "json"]).args(flags), "")?;
    let rows: Vec<Value> = serde_json::from_str(&shown).map_err(|error| error.to_string())?;
    let pair = |row: &Value| Some((text(row, "/name").to_owned(), row["value"].as_str()?.to_owned()));
    Ok(rows.iter().filter_map(pair).collect())
}

/// Every path that is asked for by HTTP, with the program that has to answer it and who asks.
pub fn asked_paths(objects: &[Value]) -> Vec<(String, String, String)> {
    let mut asked = Vec::new();
    for workload in of_kind(objects, "StatefulSet") {
        for container in containers(workload) {
            let program = Container::of_pod(objects, workload, container).program();
            for (probe, what) in probes(container) {
                if let Some(path) = what.pointer("/httpGet/path").and_then(Value::as_str) {
                    asked.push((program.clone(), path.to_owned(), probe.to_owned()));
                }
            }
        }
    }
    for monitor in of_kind(objects, "ServiceMonitor") {
        for endpoint in super::object::list(monitor, "/spec/endpoints") {
            asked.push((
                "metasrv".to_owned(),
                text(endpoint, "/path").to_owned(),
                "ServiceMonitor".to_owned(),
            ));
        }
    }
    asked
}
