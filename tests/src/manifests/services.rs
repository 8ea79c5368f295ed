//! The services of compose.yaml: what has to be true of them, and neither docker-compose 1.29 nor Compose v2 says.

use std::collections::BTreeSet;

use serde_json::Value;

use super::container::{Container, ending};
use super::object::{at, list, text};
use super::programs::{self, takes};

/// The profile of what is not ours.
const OBSERVE: &str = "observe";

/// What is wrong with this file, whose variables are to stand in `.env` with these names.
pub fn findings(file: &Value, variables: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let services = at(file, "/services").as_object().cloned().unwrap_or_default();
    for (name, service) in &services {
        let mut wrong = |why: String| found.push(format!("{name}: {why}"));
        for text in texts(service) {
            let used = text.split("${").skip(1).filter_map(|rest| rest.split(['}', ':']).next());
            used.filter(|used| !variables.contains(*used))
                .for_each(|used| wrong(format!("{used} is not in .env")));
        }
        if text(service, "/restart") != "unless-stopped" {
            wrong("restart: it stays down".to_owned());
        }
        for port in list(service, "/ports").iter().filter_map(Value::as_str) {
            if !port.starts_with("127.0.0.1:") {
                wrong(format!("port {port} is open to everybody"));
            }
        }
        for volume in list(service, "/volumes").iter().filter_map(Value::as_str) {
            let source = volume.split(':').next().unwrap_or_default();
            if !source.starts_with('.') && at(file, "/volumes").get(source).is_none() {
                wrong(format!("there is no volume {source:?}"));
            }
        }
        for needed in at(service, "/depends_on").as_object().into_iter().flatten() {
            let other = services.get(needed.0).unwrap_or(&Value::Null);
            if text(needed.1, "/condition") != "service_healthy" || other.get("healthcheck").is_none() {
                wrong(format!("it does not wait until {} is healthy", needed.0));
            }
        }
        if list(service, "/profiles").contains(&Value::from(OBSERVE)) {
            continue;
        }
        restricted(service, &mut wrong);
        let container = Container::of_service(name, service);
        health(&container, service, &mut wrong);
        stopped(&container, service, &mut wrong);
        names(&container, &services, &mut wrong);
        if container.program() == "etcd" && service.get("depends_on").is_some() {
            wrong("members of etcd that wait for others never start".to_owned());
        }
        found.extend(programs::findings(&container));
    }
    found
}

fn restricted(service: &Value, wrong: &mut impl FnMut(String)) {
    if at(service, "/read_only") != &Value::Bool(true) {
        wrong("its root file system can be written to".to_owned());
    }
    if list(service, "/cap_drop") != [Value::from("ALL")] {
        wrong("it keeps capabilities".to_owned());
    }
    if !list(service, "/security_opt").contains(&Value::from("no-new-privileges:true")) {
        wrong("it may get privileges".to_owned());
    }
}

/// The image has no shell: the check is a program, and its flags exist.
fn health(container: &Container, service: &Value, wrong: &mut impl FnMut(String)) {
    let test = list(service, "/healthcheck/test").iter().filter_map(Value::as_str);
    let mut words = test.map(str::to_owned);
    if words.next().as_deref() != Some("CMD") {
        return wrong("its health check needs a shell".to_owned());
    }
    let check = Container { words: words.collect(), ..container.clone() };
    // etcdctl is part of the image of etcd, and not of this machine.
    if check.program() == "etcdctl" {
        return;
    }
    if let Err(why) = takes(&check) {
        wrong(format!("its health check: {why}"));
    }
}

fn stopped(container: &Container, service: &Value, wrong: &mut impl FnMut(String)) {
    let given = text(service, "/stop_grace_period").trim_end_matches('s').parse().unwrap_or(0);
    let (program, needed) = (container.program(), ending(&container.program()).as_secs());
    if given < needed {
        wrong(format!("stop_grace_period: {given} s, and {program} may need {needed} s"));
    }
}

/// Addresses NAME:PORT, wherever they stand in variables: services, and ports at which they listen.
fn names(container: &Container, services: &serde_json::Map<String, Value>, wrong: &mut impl FnMut(String)) {
    for (variable, value) in &container.environment {
        for word in value.split([',', '=', '/']) {
            let Some((host, port)) = word.rsplit_once(':') else { continue };
            let Ok(port) = port.parse::<u16>() else { continue };
            if !host.starts_with(|first: char| first.is_ascii_alphabetic()) || host.contains(':') {
                continue;
            }
            let Some(other) = services.get(host) else {
                wrong(format!("{variable}: there is no service {host:?}"));
                continue;
            };
            let listens = programs::listening(&Container::of_service(host, other));
            if !listens.contains(&port) {
                wrong(format!("{variable}: {host} does not listen at {port}"));
            }
        }
    }
}

/// Every text below a value.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(all) => all.iter().flat_map(texts).collect(),
        Value::Object(all) => all.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}
