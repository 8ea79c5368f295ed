//! A document, and what can be read off it.

use serde_json::Value;

/// What is missing reads as this.
const NOTHING: &Value = &Value::Null;

/// What stands there; null where nothing does.
pub fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(NOTHING)
}

/// The text that stands there; empty where there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).as_str().unwrap_or_default()
}

/// The list that stands there; empty where there is none.
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    at(value, pointer).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Its name.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// Its kind and name.
pub fn title(object: &Value) -> String {
    format!("{} {}", text(object, "/kind"), name(object))
}

/// The objects of this kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| text(object, "/kind") == kind)
}

/// The object of this kind and name.
pub fn named<'a>(objects: &'a [Value], kind: &'a str, wanted: &str) -> Option<&'a Value> {
    of_kind(objects, kind).find(|object| name(object) == wanted)
}

/// The containers of a StatefulSet.
pub fn containers(workload: &Value) -> &[Value] {
    list(workload, "/spec/template/spec/containers")
}

/// The numbers of a StatefulSet's pods.
pub fn ordinals(workload: &Value) -> std::ops::Range<u64> {
    let start = at(workload, "/spec/ordinals/start").as_u64().unwrap_or(0);
    start..start + at(workload, "/spec/replicas").as_u64().unwrap_or(1)
}

/// Whether these labels are among those. Nothing selects nothing: an empty selector is a mistake here.
pub fn selects(labels: &Value, of: &Value) -> bool {
    labels.as_object().is_some_and(|labels| {
        !labels.is_empty() && labels.iter().all(|(name, value)| of.get(name) == Some(value))
    })
}

/// The StatefulSets whose pods have these labels.
pub fn selected<'a>(objects: &'a [Value], labels: &'a Value) -> Vec<&'a Value> {
    let workloads = of_kind(objects, "StatefulSet");
    workloads.filter(|it| selects(labels, at(it, "/spec/template/metadata/labels"))).collect()
}

/// The number of a container's port, by its name or number.
pub fn container_port(container: &Value, port: &Value) -> Option<u64> {
    let fits = |one: &&Value| match port {
        Value::String(name) => text(one, "/name") == name,
        number => at(one, "/containerPort") == number,
    };
    at(list(container, "/ports").iter().find(fits)?, "/containerPort").as_u64()
}

/// The number of a pod's port, by its name or number.
pub fn pod_port(workload: &Value, port: &Value) -> Option<u64> {
    containers(workload).iter().find_map(|container| container_port(container, port))
}

/// The probes of a container that it has, by their names.
pub fn probes(container: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    PROBES.into_iter().filter_map(|probe| Some((probe, container.get(probe)?)))
}

/// The probes that every container has to have.
pub const PROBES: [&str; 3] = ["startupProbe", "livenessProbe", "readinessProbe"];
