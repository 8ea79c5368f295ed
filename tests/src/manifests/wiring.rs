//! Kubernetes: whether selectors select, ports lead somewhere, and what is referred to is there.

use serde_json::Value;

use super::object::{
    at, container_port, containers, list, name, named, of_kind, ordinals, pod_port, probes, selected,
    selects, text, title,
};

/// What is wrong with the wiring of these objects.
pub fn findings(objects: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    for workload in of_kind(objects, "StatefulSet") {
        identity(objects, workload, &mut found);
        own_selectors(workload, &mut found);
        references(objects, workload, &mut found);
        for container in containers(workload) {
            probe_ports(workload, container, &mut found);
            addresses(objects, workload, container, &mut found);
        }
    }
    for service in of_kind(objects, "Service") {
        let pods = selected(objects, at(service, "/spec/selector"));
        if pods.is_empty() {
            found.push(format!("{}: its selector selects no pod", title(service)));
        }
        for port in list(service, "/spec/ports") {
            let target = port.get("targetPort").unwrap_or(at(port, "/port"));
            for pod in pods.iter().filter(|pod| pod_port(pod, target).is_none()) {
                found.push(format!("{}: {} has no port {target}", title(service), title(pod)));
            }
        }
    }
    for budget in of_kind(objects, "PodDisruptionBudget") {
        if selected(objects, at(budget, "/spec/selector/matchLabels")).is_empty() {
            found.push(format!("{}: its selector selects no pod", title(budget)));
        }
    }
    for policy in of_kind(objects, "NetworkPolicy") {
        network_policy(objects, policy, &mut found);
    }
    for monitor in of_kind(objects, "ServiceMonitor") {
        service_monitor(objects, monitor, &mut found);
    }
    found
}

/// Stable names: a headless Service that knows pods before they are ready.
fn identity(objects: &[Value], workload: &Value, found: &mut Vec<String>) {
    let mut wrong = |why: String| found.push(format!("{}: {why}", title(workload)));
    let service = text(workload, "/spec/serviceName");
    let Some(headless) = named(objects, "Service", service) else {
        return wrong(format!("there is no Service {service:?} (serviceName)"));
    };
    if text(headless, "/spec/clusterIP") != "None" {
        wrong(format!("the Service {service} is not headless"));
    }
    if at(headless, "/spec/publishNotReadyAddresses") != &Value::Bool(true) {
        wrong(format!("the Service {service} does not publish pods that are not ready"));
    }
    let labels = at(workload, "/spec/template/metadata/labels");
    if !selects(at(headless, "/spec/selector"), labels) {
        wrong(format!("the Service {service} does not select its pods"));
    }
}

/// What a StatefulSet says of its own pods has to be about its own pods.
fn own_selectors(workload: &Value, found: &mut Vec<String>) {
    let labels = at(workload, "/spec/template/metadata/labels");
    let own = [("selector", at(workload, "/spec/selector/matchLabels"))];
    let of = |what: &'static str, pointer: &str| {
        let terms = list(workload, pointer).iter();
        terms.map(move |term| (what, at(term, "/labelSelector/matchLabels"))).collect::<Vec<_>>()
    };
    let spread = of("topologySpreadConstraints", "/spec/template/spec/topologySpreadConstraints");
    let together = of(
        "podAffinity",
        "/spec/template/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution",
    );
    for (what, selector) in own.into_iter().chain(spread).chain(together) {
        if !selects(selector, labels) {
            found.push(format!("{}: its {what} does not select its own pods", title(workload)));
        }
    }
}

fn references(objects: &[Value], workload: &Value, found: &mut Vec<String>) {
    let mut missing = |kind: &str, wanted: &str| {
        if named(objects, kind, wanted).is_none() {
            found.push(format!("{}: there is no {kind} {wanted:?}", title(workload)));
        }
    };
    missing("ServiceAccount", text(workload, "/spec/template/spec/serviceAccountName"));
    let mut volumes: Vec<&str> = Vec::new();
    for volume in list(workload, "/spec/template/spec/volumes") {
        volumes.push(text(volume, "/name"));
        if volume.get("configMap").is_some() {
            missing("ConfigMap", text(volume, "/configMap/name"));
        }
        if volume.get("persistentVolumeClaim").is_some() {
            missing("PersistentVolumeClaim", text(volume, "/persistentVolumeClaim/claimName"));
        }
    }
    volumes.extend(list(workload, "/spec/volumeClaimTemplates").iter().map(name));
    for container in containers(workload) {
        for variable in list(container, "/env") {
            let Some(reference) = variable.pointer("/valueFrom/configMapKeyRef") else { continue };
            let (map, key) = (text(reference, "/name"), text(reference, "/key"));
            match named(objects, "ConfigMap", map) {
                Some(map) if map["data"].get(key).is_some() => {}
                _ => found.push(format!("{}: there is no {key:?} in a ConfigMap {map:?}", title(workload))),
            }
        }
        for mount in list(container, "/volumeMounts") {
            let volume = text(mount, "/name");
            if !volumes.contains(&volume) {
                found.push(format!("{}: there is no volume {volume:?}", title(workload)));
            }
        }
    }
}

fn probe_ports(workload: &Value, container: &Value, found: &mut Vec<String>) {
    for (probe, what) in probes(container) {
        let port = what.pointer("/httpGet/port").or(what.pointer("/grpc/port")).unwrap_or(&Value::Null);
        if container_port(container, port).is_none() {
            let title = title(workload);
            found.push(format!("{title}: {probe} asks at port {port}, which the container does not have"));
        }
    }
}

/// Names of pods in addresses, POD.SERVICE:PORT, wherever they stand in arguments and variables.
fn addresses(objects: &[Value], workload: &Value, container: &Value, found: &mut Vec<String>) {
    let values = list(container, "/env").iter().filter_map(|variable| {
        variable.get("value").and_then(Value::as_str).map(str::to_owned).or_else(|| {
            let reference = variable.pointer("/valueFrom/configMapKeyRef")?;
            let map = named(objects, "ConfigMap", text(reference, "/name"))?;
            Some(map["data"][text(reference, "/key")].as_str()?.to_owned())
        })
    });
    let arguments = list(container, "/args").iter().filter_map(Value::as_str).map(str::to_owned);
    for value in values.chain(arguments) {
        for word in value.split([',', '=', '/']) {
            let Some((host, port)) = word.rsplit_once(':') else { continue };
            let mut labels = host.split('.');
            let (Some(pod), Some(service)) = (labels.next(), labels.next()) else { continue };
            if let Err(why) = pod_address(objects, pod, service, port) {
                found.push(format!("{}: {word}: {why}", title(workload)));
            }
        }
    }
}

fn pod_address(objects: &[Value], pod: &str, service: &str, port: &str) -> Result<(), String> {
    // Somebody else's hosts, and addresses by number.
    if service == "example" || pod.parse::<u8>().is_ok() {
        return Ok(());
    }
    let object = named(objects, "Service", service).ok_or(format!("there is no Service {service:?}"))?;
    let ports = list(object, "/spec/ports");
    if !ports.iter().any(|one| at(one, "/port").as_u64() == port.parse().ok()) {
        return Err(format!("the Service {service} has no port {port}"));
    }
    if pod.starts_with("$(") {
        return Ok(());
    }
    let is_one_of = |workload: &Value| {
        let number = pod.strip_prefix(name(workload)).and_then(|rest| rest.strip_prefix('-'));
        let number = number.and_then(|text| text.parse().ok());
        text(workload, "/spec/serviceName") == service
            && number.is_some_and(|number| ordinals(workload).contains(&number))
    };
    match of_kind(objects, "StatefulSet").any(is_one_of) {
        true => Ok(()),
        false => Err(format!("no StatefulSet of the Service {service} has a pod {pod}")),
    }
}

fn network_policy(objects: &[Value], policy: &Value, found: &mut Vec<String>) {
    let own = selected(objects, at(policy, "/spec/podSelector/matchLabels"));
    let mut wrong = |why: String| found.push(format!("{}: {why}", title(policy)));
    if own.is_empty() {
        wrong("its podSelector selects no pod".to_owned());
    }
    for rule in list(policy, "/spec/ingress") {
        for port in list(rule, "/ports").iter().map(|port| at(port, "/port")) {
            for pod in own.iter().filter(|pod| pod_port(pod, port).is_none()) {
                wrong(format!("it lets in to port {port}, which {} does not have", title(pod)));
            }
        }
    }
    for rule in list(policy, "/spec/egress") {
        for peer in list(rule, "/to") {
            let pods = selected(objects, at(peer, "/podSelector/matchLabels"));
            if pods.is_empty() {
                wrong("it lets out to no pod that there is".to_owned());
            }
            for port in list(rule, "/ports").iter().map(|port| at(port, "/port")) {
                for pod in pods.iter().filter(|pod| pod_port(pod, port).is_none()) {
                    wrong(format!("it lets out to port {port}, which {} does not have", title(pod)));
                }
            }
        }
    }
}

/// Two Services for the same pods would count them twice.
fn service_monitor(objects: &[Value], monitor: &Value, found: &mut Vec<String>) {
    let labels = at(monitor, "/spec/selector/matchLabels");
    let services = of_kind(objects, "Service").filter(|it| selects(labels, at(it, "/metadata/labels")));
    let services: Vec<&Value> = services.collect();
    let mut wrong = |why: String| found.push(format!("{}: {why}", title(monitor)));
    let [service] = services.as_slice() else {
        return wrong(format!("its selector selects {} Services", services.len()));
    };
    let endpoints = list(monitor, "/spec/endpoints");
    if endpoints.is_empty() {
        wrong("it scrapes nothing".to_owned());
    }
    for endpoint in endpoints {
        let port = text(endpoint, "/port");
        if !list(service, "/spec/ports").iter().any(|one| text(one, "/name") == port) {
            wrong(format!("{} has no port named {port:?}", title(service)));
        }
    }
}
