//! Kubernetes: whether pods are as restricted as they can be, are stopped in time, and are asked the right questions.

use serde_json::Value;

use super::container::{Container, ending};
use super::object::{at, containers, list, of_kind, ordinals, probes, text, title};

/// What is wrong with these pods.
pub fn findings(objects: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    for kind in ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"] {
        let rights = of_kind(objects, kind);
        found.extend(rights.map(|object| format!("{}: nobody here needs rights", title(object))));
    }
    for workload in of_kind(objects, "StatefulSet") {
        let mut wrong = |why: &str| found.push(format!("{}: {why}", title(workload)));
        let yes = Value::Bool(true);
        let no = Value::Bool(false);
        let pod = at(workload, "/spec/template/spec");
        if at(pod, "/enableServiceLinks") != &no {
            wrong("enableServiceLinks: Services become variables METASRV_…, which a replica refuses");
        }
        if at(pod, "/automountServiceAccountToken") != &no {
            wrong("automountServiceAccountToken: no pod needs a token");
        }
        if at(pod, "/securityContext/runAsNonRoot") != &yes {
            wrong("runAsNonRoot");
        }
        if text(pod, "/securityContext/seccompProfile/type") != "RuntimeDefault" {
            wrong("seccompProfile");
        }
        if text(workload, "/spec/podManagementPolicy") != "Parallel" {
            wrong("podManagementPolicy: they wait for one another");
        }
        for container in containers(workload) {
            let security = at(container, "/securityContext");
            if at(security, "/allowPrivilegeEscalation") != &no {
                wrong("allowPrivilegeEscalation");
            }
            if at(security, "/readOnlyRootFilesystem") != &yes {
                wrong("readOnlyRootFilesystem");
            }
            if list(security, "/capabilities/drop") != [Value::from("ALL")] {
                wrong("capabilities: all are to be dropped");
            }
            if container.pointer("/resources/limits/cpu").is_some() {
                wrong("a limit of CPU: a throttled leader renews nothing");
            }
            if container.pointer("/resources/requests/memory").is_none()
                || container.pointer("/resources/limits/memory").is_none()
            {
                wrong("resources: memory is neither asked for nor limited");
            }
            if !text(container, "/image").rsplit('/').next().unwrap_or_default().contains(':') {
                wrong("its image has no tag");
            }
            questions(container, &mut wrong);
        }
        grace(objects, workload, &mut wrong);
        node_id(workload, &mut wrong);
    }
    found
}

/// An outage of etcd makes a replica unready, and must not restart it.
fn questions(container: &Value, wrong: &mut impl FnMut(&str)) {
    let asked: Vec<(&str, &Value)> = probes(container).collect();
    if asked.len() < super::object::PROBES.len() {
        wrong("it has not all three probes");
    }
    let path = |wanted: &str| {
        let probe = asked.iter().find(|(probe, _)| *probe == wanted)?;
        probe.1.pointer("/httpGet/path")?.as_str()
    };
    if let Some(ready) = path("readinessProbe")
        && (path("livenessProbe") == Some(ready) || path("startupProbe") == Some(ready))
    {
        wrong("it is restarted for the same reason for which it is not ready");
    }
}

/// Whoever ends needs its time, after what preStop takes.
fn grace(objects: &[Value], workload: &Value, wrong: &mut impl FnMut(&str)) {
    let given = at(workload, "/spec/template/spec/terminationGracePeriodSeconds").as_u64().unwrap_or(30);
    for container in containers(workload) {
        let before = at(container, "/lifecycle/preStop/sleep/seconds").as_u64().unwrap_or(0);
        let program = Container::of_pod(objects, workload, container).program();
        let needed = before + ending(&program).as_secs();
        if given < needed {
            wrong(&format!("terminationGracePeriodSeconds: {given} s, and {program} may need {needed} s"));
        }
    }
}

/// The node id is the ordinal, and 0 is no id.
fn node_id(workload: &Value, wrong: &mut impl FnMut(&str)) {
    const INDEX: &str = "metadata.labels['apps.kubernetes.io/pod-index']";
    for container in containers(workload) {
        let Some(id) = list(container, "/env").iter().find(|it| text(it, "/name") == "DATANODE_NODE_ID")
        else {
            continue;
        };
        if text(id, "/valueFrom/fieldRef/fieldPath") != INDEX {
            wrong("DATANODE_NODE_ID is not the pod's ordinal");
        }
        if ordinals(workload).start == 0 {
            wrong("ordinals.start: its first pod would have the node id 0");
        }
    }
}
