//! Where the programs under test are.
//!
//! Cargo tells a test where the binaries of its own package are, not those of other packages. They stand beside the
//! test's own binary; where they are missing or older than their sources, they are built once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};

/// Packages that the programs are made of: a newer source in one of them makes the programs stale.
const SOURCES: [&str; 4] = ["proto", "metasrv", "client", "datanode"];

/// A program under test: `metasrv`, `metactl` or `datanode`.
pub fn binary(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| match std::env::var_os("METASRV_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let directory = profile_directory();
            build_if_stale(&directory);
            directory
        }
    });
    directory.join(name)
}

/// The directory that cargo builds into: the one above `debug` and `release`.
pub fn target_directory() -> PathBuf {
    profile_directory().parent().expect("debug and release stand in the target directory").to_owned()
}

/// `target/debug` or `target/release`, whichever this test was built into.
fn profile_directory() -> PathBuf {
    let own = std::env::current_exe().expect("a process knows its own binary");
    let mut directory = own.parent().expect("a binary stands in a directory");
    if directory.ends_with("deps") {
        directory = directory.parent().expect("deps stands in a directory");
    }
    directory.to_owned()
}

fn build_if_stale(directory: &Path) {
    let stamp_path = directory.join(".metasrv-binaries-built");
    let lock = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join(".metasrv-binaries-lock"))
        .expect("the target directory is writable");
    // Tests are processes of their own: one builds, the others wait for it.
    flock(&lock, FlockOperation::LockExclusive).expect("a local file can be locked");
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository");
    let newest = SOURCES.iter().filter_map(|source| newest_source(&top.join(source))).max();
    let built = std::fs::metadata(&stamp_path).and_then(|stamp| stamp.modified()).ok();
    let present = ["metasrv", "metactl", "datanode"].iter().all(|name| directory.join(name).exists());
    if present && built >= newest {
        return;
    }
    let started = SystemTime::now();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "-p", "metasrv", "-p", "datanode", "--bins"]).current_dir(top);
    if directory.ends_with("release") {
        command.arg("--release");
    }
    command.env("CARGO_TARGET_DIR", directory.parent().expect("profiles stand in the target directory"));
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "the programs under test do not build: {command:?}");
    let stamp = std::fs::File::create(&stamp_path).expect("the target directory is writable");
    // What changed while cargo was at work may be missing in the binaries.
    stamp.set_modified(started).expect("a local file takes a time");
}

/// When the newest source below a directory was changed.
fn newest_source(directory: &Path) -> Option<SystemTime> {
    let mut newest = None;
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|end| end == "rs" || end == "proto" || end == "toml") {
                newest = newest.max(entry.metadata().and_then(|metadata| metadata.modified()).ok());
            }
        }
    }
    newest
}
