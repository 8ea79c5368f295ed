//! What an operator looks at, and what calls one: rules, dashboard and runbook are true of the binaries.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use metasrv::metrics::FAMILIES;
use metasrv_tests::binaries::binary;
use metasrv_tests::cluster::Cluster;
use metasrv_tests::manifests::object::{list, of_kind, text};
use metasrv_tests::manifests::tools::{overlay, parse, top};
use metasrv_tests::observe::dashboard::{self, Seen, dashboard, resolved};
use metasrv_tests::observe::panels::ROWS;
use metasrv_tests::observe::prometheus::{Prometheus, promtool};
use metasrv_tests::observe::{queries, runbook};
use metasrv_tests::wait::eventually;
use serde_json::Value;

const RULES: &str = "deploy/prometheus/metasrv.rules.yaml";
const RULE_TESTS: &str = "deploy/prometheus/metasrv.test.yaml";
const OPERATORS_RULES: &str = "deploy/kubernetes/overlays/observe/prometheusrule.yaml";
const DASHBOARD: &str = "deploy/grafana/metasrv.json";

fn read(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A file that is made of something else: compared, or written anew with `UPDATE_GOLDEN=1`.
fn made(path: &str, expected: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(top().join(path), expected).unwrap();
    }
    assert!(read(path) == expected, "{path} is not what it is made of; UPDATE_GOLDEN=1 writes it anew");
}

fn alerts() -> Vec<Value> {
    let file = parse(&read(RULES)).unwrap().remove(0);
    list(&file, "/groups").iter().flat_map(|group| list(group, "/rules")).cloned().collect()
}

fn shipped_dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap()
}

/// The labels of each metric, by the list that the binary is built with.
fn labels() -> BTreeMap<String, BTreeSet<String>> {
    let of = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
    FAMILIES.iter().map(|family| (family.name.to_owned(), of(family.labels))).collect()
}

/// Goal: rules that fire when they should, and only then. Method: `promtool test rules`; every alert is expected by some test,
/// alone among all, and by none where all is well.
#[test]
fn every_alert_fires_in_a_test_and_is_silent_in_a_healthy_cluster() {
    promtool(&["check", "rules", top().join(RULES).to_str().unwrap()], "").unwrap();
    promtool(&["test", "rules", top().join(RULE_TESTS).to_str().unwrap()], "").unwrap();
    let tests = parse(&read(RULE_TESTS)).unwrap().remove(0);
    let mut fired = BTreeSet::new();
    for test in list(&tests, "/tests") {
        for sample in list(test, "/promql_expr_test").iter().flat_map(|check| list(check, "/exp_samples")) {
            fired.insert(text(sample, "/labels").split('"').nth(1).unwrap().to_owned());
        }
    }
    let names: BTreeSet<String> = alerts().iter().map(|alert| text(alert, "/alert").to_owned()).collect();
    assert_eq!(names, fired, "an alert that no test fires, or a test of none");
    let healthy =
        list(&tests, "/tests").iter().find(|test| text(test, "/name").starts_with("a healthy cluster"));
    let checks = list(healthy.unwrap(), "/promql_expr_test");
    assert!(checks.len() >= 3 && checks.iter().all(|check| list(check, "/exp_samples").is_empty()));
}

/// Goal: the operator's own Prometheus and that of compose call for the same. Method: one file made of the other.
#[test]
fn kubernetes_has_the_same_rules_as_compose() {
    let rules = read(RULES);
    let groups = &rules[rules.find("groups:").unwrap()..];
    let mut expected = "# The groups of deploy/prometheus/metasrv.rules.yaml, for the Prometheus operator: made of them by tests/tests/observe.rs.\n\
        apiVersion: monitoring.coreos.com/v1\n\
        kind: PrometheusRule\n\
        metadata:\n  name: metasrv\n  labels:\n    app.kubernetes.io/name: metasrv\n\
        spec:\n"
        .to_owned();
    groups.lines().for_each(|line| expected.push_str(&format!("  {line}\n")));
    made(OPERATORS_RULES, &expected);
    let objects = overlay("observe");
    let rule = of_kind(&objects, "PrometheusRule").next().unwrap();
    assert_eq!(rule["spec"]["groups"], parse(&rules).unwrap()[0]["groups"]);
}

/// Goal: one dashboard for compose and Kubernetes, which is what the code says. Method: the file against the code, and the
/// ConfigMap against the file.
#[test]
fn the_dashboard_is_what_its_code_says_wherever_it_is_used() {
    let expected = format!("{}\n", serde_json::to_string_pretty(&dashboard()).unwrap());
    made(DASHBOARD, &expected);
    let objects = overlay("observe");
    let map = of_kind(&objects, "ConfigMap")
        .find(|map| text(map, "/metadata/name") == "metasrv-dashboard")
        .unwrap();
    assert_eq!(text(map, "/metadata/labels/grafana_dashboard"), "1");
    assert_eq!(map["data"]["metasrv.json"], Value::from(expected));
    let compose = parse(&read("deploy/compose/compose.yaml")).unwrap().remove(0);
    let provider = parse(&read("deploy/compose/grafana/dashboards/metasrv.yaml")).unwrap().remove(0);
    let mount = format!("../grafana:{}:ro", text(&provider, "/providers/0/options/path"));
    assert!(list(&compose, "/services/grafana/volumes").contains(&Value::from(mount)));
}

/// Goal: an alert at night leads to a page that helps. Method: each alert's `runbook_url` against the headings of the page,
/// each section against its form, every `metactl` line of the page against the program.
#[test]
fn every_alert_has_its_section_in_the_runbook() {
    let page = read(runbook::PAGE);
    let sections = runbook::sections(&page);
    let mut wrong = Vec::new();
    let alerts = alerts();
    for alert in &alerts {
        let (name, url) = (text(alert, "/alert"), text(alert, "/annotations/runbook_url"));
        let expected = format!("{}#{}", runbook::PAGE, name.to_lowercase());
        if url != expected || !sections.contains_key(name) {
            wrong.push(format!("{name}: {url:?} leads nowhere"));
        }
        if !["critical", "warning"].contains(&text(alert, "/labels/severity")) {
            wrong.push(format!("{name}: how bad is it?"));
        }
    }
    for (title, section) in &sections {
        wrong.extend(runbook::findings(title, section));
        if !alerts.iter().any(|alert| text(alert, "/alert") == *title) {
            wrong.push(format!("{title}: there is no such alert"));
        }
    }
    let mut typed = 0;
    for line in runbook::commands(&page) {
        let words = runbook::words(line);
        let words: Vec<&str> = words.iter().map(|word| word.trim_matches('"')).collect();
        let ["metactl", arguments @ ..] = &words[..] else { continue };
        typed += 1;
        // A text in quotes is several words here; what stands before `--help` has to parse.
        let arguments: Vec<&str> = arguments.iter().copied().take_while(|word| *word != "--reason").collect();
        let output = Command::new(binary("metactl")).args(&arguments).arg("--help").output().unwrap();
        if !output.status.success() {
            wrong.push(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
    }
    assert!(typed >= alerts.len(), "{typed} lines of metactl");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Goal: every query asks for what there is, and a cluster that is used has an answer to it. Method: names against what a
/// running replica announces, and labels against the list of metrics; then a real Prometheus that scrapes the cluster is asked
/// each query of the dashboard, and has to give a series; and what replicas expose is what `promtool check metrics` wants.
#[tokio::test]
async fn every_query_names_metrics_that_exist_and_every_panel_has_an_answer() {
    let cluster = Cluster::builder().replicas(3).datanodes(2).start().await;
    cluster.connected(&[1, 2]).await;
    cluster.create_regions(6, None).await;
    cluster.all_writable(6, Duration::from_secs(30)).await;
    let page = cluster.replicas[0].http("/metrics").await.unwrap();
    let (_, exposition) = page.split_once("\r\n\r\n").unwrap();
    promtool(&["check", "metrics"], exposition).unwrap();

    let announced = queries::announced(exposition);
    assert_eq!(announced.keys().cloned().collect::<BTreeSet<_>>(), labels().into_keys().collect());
    let shipped = dashboard::expressions(&shipped_dashboard());
    let rules = alerts().into_iter().map(|alert| text(&alert, "/expr").to_owned());
    let asked: Vec<String> = shipped.iter().map(|(_, query)| query.clone()).chain(rules).collect();
    assert!(asked.len() > 60, "{} queries", asked.len());
    let wrong: Vec<String> =
        asked.iter().flat_map(|query| queries::findings(query, &announced, &labels())).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let targets: Vec<String> = cluster.replicas.iter().map(|replica| replica.http_addr()).collect();
    let prometheus = Prometheus::start(&targets, cluster.directory());
    let rare: BTreeSet<&str> = ROWS
        .iter()
        .flat_map(|row| row.panels)
        .filter(|panel| panel.seen == Seen::Rarely)
        .map(|panel| panel.title)
        .collect();
    for (panel, query) in
        shipped.iter().filter(|(panel, _)| !rare.contains(panel.as_str()) && panel != "New terms")
    {
        // A rate needs two scrapes, and what happened between them.
        let query = resolved(query, "metasrv", "10s");
        let what = format!("{panel}: {query} has an answer");
        eventually(Duration::from_secs(60), &what, async || {
            cluster.replicas[0].status().await.map_err(|status| status.to_string())?;
            let series = prometheus.query(&query).await?;
            if series.is_empty() { Err("no series".to_owned()) } else { Ok(()) }
        })
        .await;
    }
    // Those of the rare ones, and the rules, are at least understood.
    for query in &asked {
        prometheus.query(&resolved(query, "metasrv", "10s")).await.unwrap();
    }
    let firing = prometheus.query("ALERTS{alertstate=\"firing\"}").await.unwrap();
    assert!(firing.is_empty(), "{firing:?} alerts fire in a healthy cluster");
}
