//! The Kubernetes manifests of deploy/: they build, are what Kubernetes' schemas say, and fit the programs that they start.
//! And: the mistakes that these tests are there for are found.

#![allow(clippy::unwrap_used, clippy::panic)]

use metasrv_tests::cluster::Cluster;
use metasrv_tests::manifests::container::Container;
use metasrv_tests::manifests::object::{containers, name, of_kind, text};
use metasrv_tests::manifests::tools::{overlay, top, validate};
use metasrv_tests::manifests::{pods, programs, wiring};
use metasrv_tests::replica::http_exchange;
use serde_json::{Value, json};

const OVERLAYS: [&str; 3] = ["dev", "production", "observe"];

/// The oldest version that has all that we use (ordinals that begin at 1), and the newest with a published schema.
const VERSIONS: [&str; 2] = ["1.31", "1.37"];

/// Kinds of the Prometheus operator, which have no schema among those of Kubernetes.
const SOMEBODY_ELSES: [&str; 2] = ["ServiceMonitor", "PrometheusRule"];

/// What is applied together: `observe` refers to what the others bring.
fn applied() -> Vec<(&'static str, Vec<Value>)> {
    let observed = [overlay("dev"), overlay("observe")].concat();
    vec![("dev and observe", observed), ("production", overlay("production"))]
}

fn read(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every check but those of schemas and of paths.
fn findings(objects: &[Value]) -> Vec<String> {
    let mut found = [wiring::findings(objects), pods::findings(objects)].concat();
    for workload in of_kind(objects, "StatefulSet") {
        for container in containers(workload) {
            found.extend(programs::findings(&Container::of_pod(objects, workload, container)));
        }
    }
    found
}

/// The value at this place of an object; the place has to be there.
fn change(objects: &mut [Value], kind: &str, wanted: &str, pointer: &str, to: Value) {
    let object =
        objects.iter_mut().find(|object| text(object, "/kind") == kind && name(object).starts_with(wanted));
    let place = object.and_then(|object| object.pointer_mut(pointer));
    *place.unwrap_or_else(|| panic!("{kind} {wanted} has no {pointer}")) = to;
}

/// Goal: manifests that a cluster takes. Method: `kubectl kustomize`, then strict validation by the schemas that two
/// versions of Kubernetes published; and a field with a spelling mistake is refused.
#[test]
fn every_overlay_is_valid_in_two_versions_of_kubernetes() {
    for name in OVERLAYS {
        let objects = overlay(name);
        assert!(!objects.is_empty(), "{name} is empty");
        let ours = |object: &&Value| !SOMEBODY_ELSES.contains(&text(object, "/kind"));
        let ours: Vec<Value> = objects.iter().filter(ours).cloned().collect();
        for version in VERSIONS {
            validate(&ours, version).unwrap_or_else(|why| panic!("{name}, Kubernetes {version}: {why}"));
        }
    }
    let mut objects = overlay("production");
    let pod = "/spec/template/spec";
    change(&mut objects, "StatefulSet", "metasrv", &format!("{pod}/topologySpreadConstraints"), Value::Null);
    change(&mut objects, "StatefulSet", "metasrv", pod, json!({"containers": [], "hostNetwrk": true}));
    for version in VERSIONS {
        let why = validate(&objects, version).unwrap_err();
        assert!(why.contains("hostNetwrk"), "{version}: {why}");
    }
}

/// Goal: what no schema sees. Method: selectors, ports, references and names against one another; each container's line,
/// variables and mounted files against the binaries themselves.
#[test]
fn ports_selectors_flags_and_settings_fit_together() {
    for (name, objects) in applied() {
        let found = findings(&objects);
        assert!(found.is_empty(), "{name}:\n{}", found.join("\n"));
    }
}

/// Goal: probes and scrapes ask for what is there. Method: every path of every manifest is asked of a real replica, and of
/// a real etcd; and a path that nobody serves is noticed.
#[tokio::test]
async fn every_path_that_is_asked_for_is_answered() {
    let cluster = Cluster::builder().replicas(1).start().await;
    let mut asked: Vec<_> =
        applied().iter().flat_map(|(_, objects)| programs::asked_paths(objects)).collect();
    asked.sort();
    asked.dedup();
    for (program, least) in [("metasrv", 4), ("etcd", 3)] {
        let number = asked.iter().filter(|(of, ..)| of == program).count();
        assert!(number >= least, "{program} is asked for {number} paths only: {asked:?}");
    }
    let answer = async |program: &str, path: &str| {
        let addr = match program {
            "metasrv" => cluster.replicas[0].http_addr(),
            "etcd" => cluster.etcd.as_ref().expect("an etcd").addr(0),
            other => panic!("nobody is asked here who is called {other}"),
        };
        http_exchange(&addr, "GET", path, "").await.unwrap()
    };
    for (program, path, asker) in asked {
        let said = answer(&program, &path).await;
        assert!(said.starts_with("HTTP/1.1 200 "), "{asker} of {program} asks for {path}: {said}");
    }
    for program in ["metasrv", "etcd"] {
        let said = answer(program, "/healthz").await;
        assert!(!said.starts_with("HTTP/1.1 200 "), "{program} answers whatever it is asked: {said}");
    }
}

/// Goal: the checks above find what they are there for. Method: one mistake at a time in manifests that are right.
#[test]
fn a_mistake_in_a_manifest_is_found() {
    let container = "/spec/template/spec/containers/0";
    let place = |rest: &str| format!("{container}{rest}");
    let sets: [(&str, &str, String, Value, &str); 17] = [
        (
            "StatefulSet",
            "metasrv",
            place("/livenessProbe/httpGet/port"),
            json!("htpp"),
            "livenessProbe asks at port",
        ),
        ("StatefulSet", "metasrv", place("/ports/0/containerPort"), json!(3004), "port 3004: it listens at"),
        ("StatefulSet", "metasrv", place("/args/1"), json!("--confg"), "--confg"),
        ("StatefulSet", "metasrv", place("/env/0/name"), json!("METASRV_REGION_LEAS"), "METASRV_REGION_LEAS"),
        (
            "StatefulSet",
            "metasrv",
            place("/livenessProbe/httpGet/path"),
            json!("/readyz"),
            "for the same reason",
        ),
        (
            "StatefulSet",
            "metasrv",
            "/spec/template/spec/enableServiceLinks".into(),
            json!(true),
            "enableServiceLinks",
        ),
        (
            "StatefulSet",
            "metasrv",
            "/spec/template/spec/terminationGracePeriodSeconds".into(),
            json!(12),
            "may need 13 s",
        ),
        (
            "StatefulSet",
            "metasrv",
            place("/securityContext/readOnlyRootFilesystem"),
            json!(false),
            "readOnlyRootFilesystem",
        ),
        (
            "StatefulSet",
            "metasrv",
            place("/resources/limits"),
            json!({"cpu": 1, "memory": "1Gi"}),
            "limit of CPU",
        ),
        ("StatefulSet", "datanode", place("/args/1"), json!("--supervise"), "--supervise"),
        (
            "StatefulSet",
            "datanode",
            place("/startupProbe/grpc/port"),
            json!(4002),
            "startupProbe asks at port",
        ),
        ("StatefulSet", "datanode", "/spec/ordinals".into(), json!({"start": 0}), "node id 0"),
        ("StatefulSet", "etcd", place("/args/11"), json!("--quota-bytes=1"), "quota-bytes"),
        ("StatefulSet", "etcd", "/spec/replicas".into(), json!(2), "has a pod etcd-2"),
        (
            "Service",
            "metasrv-peers",
            "/spec/selector".into(),
            json!({"app": "metasrv"}),
            "its selector selects no pod",
        ),
        ("NetworkPolicy", "metasrv", "/spec/ingress/0/ports/0/port".into(), json!("rpc"), "lets in to port"),
        ("ServiceMonitor", "metasrv", "/spec/endpoints/0/port".into(), json!("metrics"), "no port named"),
    ];
    let right = [overlay("dev"), overlay("observe")].concat();
    for (kind, wanted, pointer, mistake, said) in sets {
        let mut objects = right.clone();
        change(&mut objects, kind, wanted, &pointer, mistake.clone());
        let found = findings(&objects).join("\n");
        assert!(
            found.contains(said),
            "{kind} {wanted} {pointer} = {mistake}: {said:?} is not among\n{found}"
        );
    }
    // A key that is in no list of settings, in the file that is mounted.
    let mut objects = right.clone();
    let file = read("deploy/metasrv.toml").replace("region-lease", "region-leese");
    change(&mut objects, "ConfigMap", "metasrv-config", "/data/metasrv.toml", json!(file));
    let found = findings(&objects).join("\n");
    assert!(found.contains("region-leese"), "{found}");
    // A wrong path is asked for, and `every_path_that_is_asked_for_is_answered` asks a replica for it.
    let mut objects = right;
    change(&mut objects, "StatefulSet", "metasrv", &place("/readinessProbe/httpGet/path"), json!("/ready"));
    assert!(
        programs::asked_paths(&objects)
            .iter()
            .any(|(program, path, _)| program == "metasrv" && path == "/ready")
    );
}

/// Goal: one file of settings to begin with, wherever it is used. Method: the ConfigMap against the file.
#[test]
fn replicas_get_the_sample_configuration() {
    let objects = overlay("production");
    let map = of_kind(&objects, "ConfigMap").find(|map| name(map).starts_with("metasrv-config"));
    assert_eq!(map.unwrap()["data"]["metasrv.toml"], json!(read("deploy/metasrv.toml")));
}
