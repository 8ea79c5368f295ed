//! The programs that a playground starts: this one, its neighbour `datanode`, and etcd where the machine has it.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// How to get etcd, for people who do not have it.
pub const GET_ETCD: &str =
    "To get it: apt-get install etcd-server, or name the binary by --etcd PATH or METASRV_ETCD";

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This very program.
    pub metasrv: PathBuf,
    /// The reference datanode.
    pub datanode: PathBuf,
    /// etcd, where there is one and it is wanted.
    pub etcd: Option<PathBuf>,
}

/// Where replicas keep their state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// In etcd: this binary, or the one in PATH.
    Etcd(Option<PathBuf>),
    /// In a store of the one replica.
    Embedded,
}

impl Programs {
    /// Finds them. etcd may be missing, the others may not.
    ///
    /// # Errors
    /// A sentence that says what is missing and what to do.
    pub fn find(wanted: &Wanted) -> Result<Programs, String> {
        let metasrv = std::env::current_exe()
            .map_err(|error| format!("the path of this program cannot be read from /proc: {error}"))?;
        let datanode = metasrv.with_file_name("datanode");
        if !is_program(&datanode) {
            return Err(format!(
                "there is no program {}; it is built by: cargo build -p datanode",
                datanode.display()
            ));
        }
        let etcd = match wanted {
            Wanted::Embedded => None,
            Wanted::Etcd(Some(named)) if is_program(named) => {
                // Children run in a directory of their own.
                Some(std::path::absolute(named).map_err(|error| format!("{}: {error}", named.display()))?)
            }
            Wanted::Etcd(Some(named)) => {
                return Err(format!("{} is no program that can be started. {GET_ETCD}", named.display()));
            }
            Wanted::Etcd(None) => in_path("etcd", std::env::var_os("PATH")),
        };
        Ok(Programs { metasrv, datanode, etcd })
    }
}

/// The first program of this name in the directories of `path`.
fn in_path(name: &str, path: Option<OsString>) -> Option<PathBuf> {
    let path = path?;
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|candidate| is_program(candidate))
}

/// Whether there is a file that somebody may execute.
fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_path_order_and_must_be_executable() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("first"), directory.path().join("second"));
        for place in [&first, &second] {
            std::fs::create_dir(place).unwrap();
            std::fs::write(place.join("etcd"), "").unwrap();
        }
        let path = std::env::join_paths([&first, &second]).unwrap();
        assert_eq!(in_path("etcd", Some(path.clone())), None, "neither can be executed");
        for place in [&second, &first] {
            let executable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(place.join("etcd"), executable).unwrap();
            assert_eq!(in_path("etcd", Some(path.clone())), Some(place.join("etcd")));
        }
        assert_eq!(in_path("etcd", None), None);
    }

    #[test]
    fn a_named_etcd_that_is_missing_is_an_error_and_not_a_reason_to_go_on_without() {
        // The datanode may not be built beside this test; then it is that which is reported.
        let error = Programs::find(&Wanted::Etcd(Some(PathBuf::from("/nowhere/etcd")))).unwrap_err();
        assert!(error.contains("/nowhere/etcd") || error.contains("datanode"), "{error}");
    }
}
