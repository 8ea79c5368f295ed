//! The rules of ARCHITECTURE.md, as tests. Each one says on failure why the rule is there.
//!
//! Method throughout: the manifests as cargo reads them, and the text of the source files without their comments.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A source file: its path from the top of the repository, and its text.
struct Source {
    path: String,
    text: String,
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_owned()
}

/// Every Rust file below these directories, in order.
fn sources(directories: &[&str]) -> Vec<Source> {
    let top = top();
    let mut pending: Vec<PathBuf> = directories.iter().map(|directory| top.join(directory)).collect();
    let mut found = Vec::new();
    while let Some(directory) = pending.pop() {
        let entries = std::fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{} cannot be listed: {error}", directory.display()));
        for entry in entries {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target") {
                    pending.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&top).expect("below the top").to_string_lossy().into_owned();
                // A file that an editor is just replacing is no violation.
                let Ok(text) = std::fs::read_to_string(&path) else { continue };
                found.push(Source { path: relative, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no sources found below {directories:?}: this test would prove nothing");
    found
}

/// The lines of code before the file's own tests, with their numbers and without line comments.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source
        .text
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .map(|line| line.split("//").next().unwrap_or_default())
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

/// Whether `word` stands in `line` as a word of its own.
fn mentions(line: &str, word: &str) -> bool {
    let is_part = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !is_part(line[..at].chars().next_back()) && !is_part(line[at + word.len()..].chars().next())
    })
}

/// The dependencies of each package of the workspace, by the kind that Cargo gives them.
fn dependencies(kind: Kind) -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(top())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    packages
        .iter()
        .map(|package| {
            let of_kind = package["dependencies"]
                .as_array()
                .expect("a list of dependencies")
                .iter()
                .filter(|dependency| dependency["kind"].as_str() == kind.name())
                .map(|dependency| dependency["name"].as_str().expect("a name").to_owned())
                .collect();
            (package["name"].as_str().expect("a name").to_owned(), of_kind)
        })
        .collect()
}

enum Kind {
    Normal,
    Build,
    Dev,
}

impl Kind {
    fn name(&self) -> Option<&'static str> {
        match self {
            Kind::Normal => None,
            Kind::Build => Some("build"),
            Kind::Dev => Some("dev"),
        }
    }
}

fn report(violations: Vec<String>, why: &str) {
    assert!(violations.is_empty(), "{why}\n  {}", violations.join("\n  "));
}

/// Goal: the core stays pure.
#[test]
fn the_core_depends_on_nothing() {
    for kind in [Kind::Normal, Kind::Build] {
        let of_core = dependencies(kind).remove("metasrv-core").expect("metasrv-core is in the workspace");
        report(
            of_core.into_iter().collect(),
            "metasrv-core has dependencies. What is decided there runs unchanged in the server, in the simulation and \
             in the model checker; a runtime, a clock or a hash map with random order would make their runs differ:",
        );
    }
    let for_tests = dependencies(Kind::Dev).remove("metasrv-core").expect("metasrv-core is in the workspace");
    let allowed = BTreeSet::from(["proptest".to_owned()]);
    report(
        for_tests.difference(&allowed).cloned().collect(),
        "metasrv-core's tests use more than proptest. A test of the core that needs a runtime tests something else:",
    );
}

/// Goal: the direction of dependencies between the crates.
#[test]
fn crates_depend_in_one_direction() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("metasrv-proto", &[][..]),
        ("metasrv-core", &[]),
        ("metasrv-tls", &[]),
        ("metasrv-client", &["metasrv-proto", "metasrv-tls"]),
        ("datanode", &["metasrv-proto", "metasrv-core", "metasrv-client", "metasrv-tls"]),
        ("metasrv", &["metasrv-proto", "metasrv-core", "metasrv-client", "metasrv-tls"]),
        (
            "metasrv-tests",
            &[
                "metasrv-proto",
                "metasrv-core",
                "metasrv-client",
                "metasrv-tls",
                "metasrv",
                "datanode",
                "metasrv-sim",
            ],
        ),
        ("metasrv-sim", &["metasrv-proto", "metasrv-core", "metasrv-client", "metasrv", "datanode"][..]),
        ("metasrv-core-proof", &[]),
        ("metasrv-proof", &["metasrv-core-proof"]),
    ]);
    let mut violations = Vec::new();
    for kind in [Kind::Normal, Kind::Build, Kind::Dev] {
        let all = dependencies(kind);
        let ours: BTreeSet<&String> = all.keys().collect();
        for (package, uses) in &all {
            let Some(allowed) = allowed.get(package.as_str()) else {
                violations.push(format!("{package} is new: say here what it may depend on"));
                continue;
            };
            for used in uses.iter().filter(|used| ours.contains(used)) {
                if !allowed.contains(&used.as_str()) {
                    violations.push(format!("{package} -> {used}"));
                }
            }
        }
    }
    report(
        violations,
        "a dependency against the direction proto <- client <- datanode, core <- metasrv and datanode. Server and \
         datanode know each other by the protocol alone, or a datanode in another language is second class; proto \
         and core do not know each other, or the wire dictates how we think:",
    );
}

/// Goal: etcd can be replaced, and what we learned about it stands in one place.
#[test]
fn only_the_etcd_module_names_its_client() {
    let mut violations = Vec::new();
    for source in sources(&["proto", "tls", "metasrv", "client", "datanode"]) {
        if source.path.starts_with("metasrv/src/etcd/") {
            continue;
        }
        for (number, line) in code(&source) {
            if mentions(line, "etcd_client") {
                violations.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    report(
        violations,
        "etcd's client is named outside metasrv/src/etcd/. It has no deadlines, no retries and other traps of its \
         own; they are handled once, behind the Store trait and the election:",
    );
    for kind in [Kind::Normal, Kind::Dev] {
        let users: Vec<_> = dependencies(kind)
            .into_iter()
            .filter(|(package, uses)| package != "metasrv" && uses.contains("etcd-client"))
            .map(|(package, _)| package)
            .collect();
        report(users, "a package other than metasrv depends on etcd-client:");
    }
}

/// Goal: a server never asks itself through its own front door.
#[test]
fn the_server_does_not_use_the_client() {
    let allowed = ["metasrv/src/metactl/", "metasrv/src/playground/"];
    let mut violations = Vec::new();
    for source in sources(&["metasrv/src"]) {
        if allowed.iter().any(|prefix| source.path.starts_with(prefix)) {
            continue;
        }
        for (number, line) in code(&source) {
            if mentions(line, "metasrv_client") {
                violations.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    report(
        violations,
        "the server uses MetaClient outside metactl and the playground. A replica that calls replicas builds cycles \
         of waiting that no deadline explains:",
    );
}

/// Goal: the same input gives the same output, always.
#[test]
fn the_core_is_deterministic() {
    let banned = [
        ("Instant", "time is an argument"),
        ("SystemTime", "time is an argument"),
        ("HashMap", "its order is random; use BTreeMap"),
        ("HashSet", "its order is random; use BTreeSet"),
        ("RandomState", "a hidden source of randomness"),
        ("rand", "randomness is a number that is handed in"),
        ("thread", "the core neither waits nor runs beside itself"),
        ("async", "the core does not wait"),
        ("await", "the core does not wait"),
        ("println", "output is the shell's"),
        ("eprintln", "output is the shell's"),
        ("unsafe", "nothing here needs it"),
    ];
    let mut violations = Vec::new();
    for source in sources(&["metasrv/core/src"]) {
        for (number, line) in code(&source) {
            for (word, why) in banned {
                if mentions(line, word) {
                    violations.push(format!("{}:{number}: {word} ({why}): {}", source.path, line.trim()));
                }
            }
        }
    }
    report(
        violations,
        "the core has something in it that differs from run to run. A failing seed of the simulation must fail \
         again, and the model must explore the code that runs:",
    );
}

/// Goal: a newcomer can read any file in one sitting.
#[test]
fn no_file_is_longer_than_four_hundred_lines() {
    const LONGEST: usize = 400;
    let violations = sources(&["proto", "tls", "metasrv", "client", "datanode", "tests", "proof", "sim"])
        .iter()
        .map(|source| (source, source.text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .map(|(source, lines)| format!("{}: {lines} lines", source.path))
        .collect();
    report(
        violations,
        "files of more than 400 lines. They hold more than one idea; split them by the ideas, not by the lines:",
    );
}

/// Goal: a file begins with why it is there.
#[test]
fn every_file_begins_with_its_story() {
    let violations = sources(&["proto", "tls", "metasrv", "client", "datanode", "tests", "proof", "sim"])
        .iter()
        .filter(|source| !source.text.trim_start().starts_with("//!"))
        .map(|source| source.path.clone())
        .collect();
    report(violations, "these files do not begin with a module comment that says what they are for and why:");
}

/// Goal: nothing unfinished lands, whatever it is called.
#[test]
fn nothing_is_left_for_later() {
    let words = ["todo!", "unimplemented!", "TODO", "FIXME", "XXX"];
    let mut violations = Vec::new();
    for source in sources(&["proto", "tls", "metasrv", "client", "datanode"]) {
        for (index, line) in source.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                violations.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    report(violations, "what is not built is not written; what is planned is an issue, not a comment:");
}
