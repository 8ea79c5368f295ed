//! One container, of a pod or of a service of compose.yaml: the line that its program is started with, its environment, and
//! the files that are mounted into it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::object::{at, list, name, named, ordinals, text, title};
use super::tools::top;

/// See the module.
#[derive(Clone, Debug)]
pub struct Container {
    /// Whose it is, for people.
    pub title: String,
    /// The program and its arguments.
    pub words: Vec<String>,
    /// What the manifest sets; nothing else is in it.
    pub environment: BTreeMap<String, String>,
    /// Contents of mounted files, by their paths in the container.
    pub files: BTreeMap<String, String>,
    /// The ports that it has by its manifest.
    pub ports: Vec<u64>,
}

impl Container {
    /// A container of the first pod of a StatefulSet.
    pub fn of_pod(objects: &[Value], workload: &Value, container: &Value) -> Container {
        let mut environment = BTreeMap::new();
        for variable in list(container, "/env") {
            let value = match variable.get("value").and_then(Value::as_str) {
                Some(value) => substituted(value, &environment),
                None => given(objects, workload, at(variable, "/valueFrom")),
            };
            environment.insert(text(variable, "/name").to_owned(), value);
        }
        let own = |pointer: &str| list(container, pointer).iter().filter_map(Value::as_str);
        let command = own("/command").chain(own("/args"));
        let mut words: Vec<String> = command.map(|word| substituted(word, &environment)).collect();
        if list(container, "/command").is_empty() {
            words.insert(0, entry_point());
        }
        let volumes = list(workload, "/spec/template/spec/volumes");
        let mut files = BTreeMap::new();
        for mount in list(container, "/volumeMounts") {
            let volume = volumes.iter().find(|volume| at(volume, "/name") == at(mount, "/name"));
            let map = volume.map_or("", |volume| text(volume, "/configMap/name"));
            let data = named(objects, "ConfigMap", map).and_then(|map| map["data"].as_object());
            for (file, content) in data.into_iter().flatten() {
                let path = format!("{}/{file}", text(mount, "/mountPath"));
                files.insert(path, content.as_str().unwrap_or_default().to_owned());
            }
        }
        let ports = list(container, "/ports").iter().filter_map(|port| at(port, "/containerPort").as_u64());
        Container { title: title(workload), words, environment, files, ports: ports.collect() }
    }

    /// The container of a service of compose.yaml.
    pub fn of_service(service: &str, what: &Value) -> Container {
        let words = |pointer: &str| list(what, pointer).iter().filter_map(Value::as_str).map(str::to_owned);
        let mut all: Vec<String> = words("/entrypoint").chain(words("/command")).collect();
        if list(what, "/entrypoint").is_empty() && text(what, "/image").contains("METASRV_IMAGE") {
            all.insert(0, entry_point());
        }
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let environment = at(what, "/environment").as_object().into_iter().flatten();
        let mut files = BTreeMap::new();
        for volume in words("/volumes") {
            let mut parts = volume.split(':');
            let (Some(from), Some(to)) = (parts.next(), parts.next()) else { continue };
            if let Ok(content) = std::fs::read_to_string(top().join("deploy/compose").join(from)) {
                files.insert(to.to_owned(), content);
            }
        }
        let ports = words("/ports").filter_map(|port| port.rsplit(':').next()?.parse().ok()).collect();
        Container {
            title: service.to_owned(),
            words: all,
            environment: environment.map(|(name, value)| (name.clone(), plain(value))).collect(),
            files,
            ports,
        }
    }

    /// The name of its program.
    pub fn program(&self) -> String {
        let first = self.words.first().map(String::as_str).unwrap_or_default();
        first.rsplit('/').next().unwrap_or_default().to_owned()
    }
}

/// `$(NAME)` by the variables before, as the kubelet does it.
fn substituted(text: &str, environment: &BTreeMap<String, String>) -> String {
    environment.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
}

/// What the first pod would find there.
fn given(objects: &[Value], workload: &Value, from: &Value) -> String {
    let first = ordinals(workload).start;
    match text(from, "/fieldRef/fieldPath") {
        "metadata.name" => format!("{}-{first}", name(workload)),
        "metadata.namespace" => text(workload, "/metadata/namespace").to_owned(),
        "metadata.labels['apps.kubernetes.io/pod-index']" => first.to_string(),
        "spec.nodeName" => "some-machine".to_owned(),
        _ => {
            let map = named(objects, "ConfigMap", text(from, "/configMapKeyRef/name"));
            let key = text(from, "/configMapKeyRef/key");
            map.and_then(|map| map["data"][key].as_str()).unwrap_or_default().to_owned()
        }
    }
}

/// What our image starts where nothing else is said.
fn entry_point() -> String {
    let file = std::fs::read_to_string(top().join("deploy/docker/Dockerfile")).expect("a Dockerfile");
    let line = file.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).expect("an ENTRYPOINT");
    let words: Vec<String> = serde_json::from_str(line).expect("an ENTRYPOINT in the exec form");
    words.into_iter().next().expect("a program")
}

/// How long a program takes to end at most, once it was told to. Of others nothing is known.
pub fn ending(program: &str) -> Duration {
    let seconds = |path: &str, name: &str| {
        let text = std::fs::read_to_string(top().join(path)).expect("a source file");
        let line = text.split(&format!("const {name}: Duration = Duration::from_secs(")).nth(1);
        let number = line.and_then(|rest| rest.split(')').next()?.parse().ok());
        Duration::from_secs(number.unwrap_or_else(|| panic!("{path} has no {name} in seconds any more")))
    };
    match program {
        "metasrv" => seconds("metasrv/src/server/mod.rs", "SHUTDOWN"),
        // A worker ends, and then its parent tells so.
        "datanode" => {
            seconds("datanode/src/reference/mod.rs", "SHUTDOWN")
                + seconds("datanode/src/reference/supervisor.rs", "FAREWELL")
        }
        _ => Duration::ZERO,
    }
}
