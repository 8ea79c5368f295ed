//! compose.yaml without an engine: docker-compose reads it, and it fits the programs that it starts. `make test-compose` runs
//! it.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use metasrv_tests::manifests::services::findings;
use metasrv_tests::manifests::tools::{output, parse, tool, top};
use serde_json::{Value, json};

fn read(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn file() -> Value {
    parse(&read("deploy/compose/compose.yaml")).unwrap().remove(0)
}

/// The variables of `.env`.
fn variables() -> BTreeSet<String> {
    let text = read("deploy/compose/.env");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect()
}

/// Goal: what starts fits together. Method: every service's line, variables, files, health check and names against the
/// binaries and the other services.
#[test]
fn services_fit_the_programs_and_one_another() {
    let found = findings(&file(), &variables());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Goal: the check above finds what it is there for. Method: one mistake at a time in a file that is right.
#[test]
fn a_mistake_in_the_file_is_found() {
    let mistakes = [
        ("/services/metasrv-1/command/0", json!("server"), "server"),
        ("/services/metasrv-1/healthcheck/test/2", json!("helth"), "helth"),
        ("/services/metasrv-1/environment/METASRV_CONFIG", json!("/etc/metasrv.toml"), "/etc/metasrv.toml"),
        ("/services/metasrv-1/stop_grace_period", json!("9s"), "may need 10 s"),
        ("/services/metasrv-2/ports/0", json!("3002:3002"), "open to everybody"),
        ("/services/metasrv-2/ports/1", json!("127.0.0.1:3013:3013"), "port 3013: it listens at"),
        ("/services/metasrv-3/image", json!("${METASRV_IMAGES}"), "METASRV_IMAGES is not in .env"),
        (
            "/services/datanode-1/environment/DATANODE_METASRV",
            json!("metasrv-1:3003,metasrv-9:3002"),
            "metasrv-9",
        ),
        ("/services/datanode-2/command/1", json!("--supervise"), "--supervise"),
        (
            "/services/datanode-3/environment/DATANODE_GRPC_ADDR",
            json!("127.0.0.1:4001"),
            "nobody else reaches",
        ),
        ("/services/etcd-1/environment/ETCD_PRE_VOTE", json!("perhaps"), "perhaps"),
        ("/services/etcd-2/read_only", json!(false), "can be written to"),
    ];
    for (pointer, mistake, said) in mistakes {
        let mut wrong = file();
        *wrong.pointer_mut(pointer).unwrap_or_else(|| panic!("there is no {pointer}")) = mistake;
        let found = findings(&wrong, &variables()).join("\n");
        assert!(found.contains(said), "{pointer}: {said:?} is not among\n{found}");
    }
}

/// Goal: versions and ports come from `.env`, and the environment overrides them; Compose v2 and later read the file, with
/// the profile `observe` and without. Method: `config` of that tool, where there is a build of it.
#[test]
fn the_file_is_read_by_compose() {
    let compose = tool("docker-compose");
    if !compose.exists() {
        eprintln!(
            "note: there is no build of Compose for this machine on PyPI: compose.yaml is not read by it"
        );
        return;
    }
    let services = |profile: &[&str]| -> BTreeMap<String, Value> {
        let mut command = Command::new(&compose);
        command.arg("--file").arg(top().join("deploy/compose/compose.yaml")).args(profile);
        command.args(["config", "--format", "json"]).env("METASRV_PORT_1", "14002");
        let config: Value = serde_json::from_str(&output(&mut command, "").unwrap()).unwrap();
        assert_eq!(config["name"], "metasrv");
        config["services"].as_object().unwrap().clone().into_iter().collect()
    };
    let usual = services(&[]);
    assert_eq!(usual.len(), 9, "{:?}", usual.keys());
    assert_eq!(usual["metasrv-1"]["ports"][0]["published"], "14002");
    assert_eq!(usual["metasrv-2"]["ports"][0]["published"], "3012");
    let observed = services(&["--profile", "observe"]);
    assert!(observed.contains_key("prometheus") && observed.contains_key("grafana"), "{:?}", observed.keys());
}
