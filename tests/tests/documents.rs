//! The documentation says what is. What can be compared with the code is compared here.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use metasrv::config::setting::SETTINGS;
use metasrv::keys::Keys;
use metasrv_core::id::{ClusterId, NodeId, NodeKey, RegionId, Term};
use metasrv_core::procedure::ProcedureId;
use metasrv_tests::binaries::binary;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file with this ending below these folders.
fn files(folders: &[&str], ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending: Vec<PathBuf> = folders.iter().map(|folder| top().join(folder)).collect();
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    found
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Goal: docs/behaviours.md and docs/etcd.md name tests that exist, and each row names at least one. Method: every name in
/// their last columns is a test function of that file.
#[test]
fn every_behaviour_has_a_test_that_exists() {
    let page = [read("docs/behaviours.md"), read("docs/etcd.md")].concat();
    let mut rows = 0;
    let mut wrong = Vec::new();
    for row in page.lines().filter(|line| line.starts_with('|') && !line.starts_with("| ---")) {
        let Some(tests) = row.trim_end_matches('|').rsplit('|').next() else { continue };
        if tests.trim() == "test" {
            continue;
        }
        rows += 1;
        let names: Vec<_> = quoted(tests).collect();
        if names.is_empty() {
            wrong.push(format!("no test: {row}"));
        }
        for name in names {
            let Some((file, function)) = name.split_once("::") else {
                wrong.push(format!("{name} is not FILE::FUNCTION"));
                continue;
            };
            let text = std::fs::read_to_string(top().join(file)).unwrap_or_default();
            let is_test = text.split("fn ").any(|rest| rest.starts_with(&format!("{function}(")));
            if !is_test
                || !(text.contains("#[test]") || text.contains("tokio::test") || text.contains("proptest!"))
            {
                wrong.push(format!("{name} does not exist"));
            }
        }
    }
    assert!(rows >= 25, "the tables of the design have more than {rows} rows");
    assert!(wrong.is_empty(), "docs/behaviours.md and docs/etcd.md:\n{}", wrong.join("\n"));
}

/// Goal: every setting stands in the book, with its default. Method: the list of settings against the table.
#[test]
fn every_setting_is_documented_with_its_default() {
    let page = read("docs/configuration.md");
    for setting in SETTINGS {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", setting.name)));
        let row = row.unwrap_or_else(|| panic!("docs/configuration.md has no row for {}", setting.name));
        if let Some(default) = setting.default {
            assert!(
                row.contains(&format!("`{default}`")),
                "{}: the default {default} is not in: {row}",
                setting.name
            );
        }
    }
}

/// Goal: every key that is written stands in the book. Method: each maker of keys against the table's first column.
#[test]
fn every_key_is_documented() {
    let page = read("docs/keys.md");
    let rows: BTreeSet<String> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| quoted(line).next())
        .map(str::to_owned)
        .collect();
    let keys = Keys::new("");
    let node = NodeKey::datanode(ClusterId(0), NodeId(0));
    let made = [
        keys.installation(),
        format!("{}/LEASE", keys.election()),
        keys.embedded_fence(),
        keys.term_current(),
        keys.term_record(Term(0)),
        keys.term_spare(Term(0)),
        keys.node(&node),
        keys.lease(&node),
        keys.stats(&node),
        keys.region(RegionId(0)),
        keys.region_sequence(),
        keys.node_order(&node),
        keys.failover_order(),
        keys.procedure(ProcedureId(0)),
        keys.timeline_entry(0),
    ];
    let zero = format!("{:020}", 0);
    let shape = |key: &str| -> Vec<String> {
        let parts = key.trim_start_matches("/v1/").split('/');
        parts
            .map(|part| if part == zero || part == "datanode" { "*".to_owned() } else { part.to_owned() })
            .collect()
    };
    let documented: BTreeSet<Vec<String>> = rows
        .iter()
        .map(|row| {
            let wild = ["TERM", "ROLE", "CLUSTER", "ID", "REGION"];
            row.split('/')
                .map(|part| if wild.contains(&part) { "*".to_owned() } else { part.to_owned() })
                .collect()
        })
        .collect();
    let made: BTreeSet<Vec<String>> = made.iter().map(|key| shape(key)).collect();
    assert_eq!(made, documented);
}

/// Goal: the configuration file to begin with works. Method: `config check`.
#[test]
fn the_sample_configuration_is_valid() {
    let file = top().join("deploy/metasrv.toml");
    let output =
        Command::new(binary("metasrv")).args(["config", "check", "--config"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Goal: no page points to a file that is not there. Method: every relative link of every page.
#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut pages = files(&["docs", "deploy"], "md");
    pages.extend(
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|page| top().join(page)),
    );
    let mut broken = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !page.parent().unwrap().join(target).exists() {
                broken.push(format!("{} -> {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Goal: ARCHITECTURE.md names files that exist. Method: everything in backticks that looks like a path of a source.
#[test]
fn the_map_names_files_that_exist() {
    let page = read("ARCHITECTURE.md");
    let mut missing = Vec::new();
    let roots = [
        "",
        "metasrv/src/",
        "metasrv/src/handler/",
        "metasrv/core/src/",
        "metasrv/src/server/",
        "datanode/src/",
        "client/src/",
    ];
    for name in quoted(&page).filter(|name| name.ends_with(".rs") || name.ends_with('/')) {
        if name.contains(' ') || name.starts_with('/') {
            continue;
        }
        if !roots.iter().any(|root| top().join(root).join(name).exists()) {
            missing.push(name.to_owned());
        }
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:?}");
}
