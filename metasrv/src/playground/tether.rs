//! The tether: what makes a child end when the playground does, even by `kill -9`.
//!
//! A child begins as this program once more. It asks the kernel to be killed when its parent ends, looks whether the
//! parent is still there, and then becomes the real program under the same process id. No other program is needed for
//! it, and there is no moment in which a child could be left behind.
//!
//! The kernel watches the parent's **thread**, not its process: children are started by the main thread only, which
//! is why the playground runs on a runtime of one thread.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::process::Command;

/// The command of the playground that a child begins as.
pub const NAME: &str = "tethered";

/// Starts `program` tethered to this process; `metasrv` is this program.
pub fn command<A: AsRef<OsStr>>(metasrv: &Path, program: &Path, arguments: &[A]) -> Command {
    let mut command = Command::new(metasrv);
    command.args(["playground", NAME, "--parent", &std::process::id().to_string(), "--"]);
    command.arg(program).args(arguments);
    command
}

/// What `metasrv playground tethered` is told.
#[derive(clap::Args)]
pub struct Tethered {
    /// The playground's process id
    #[arg(long)]
    parent: i32,
    /// What to become, with its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// Ties this process to its parent and becomes the program. Comes back only if that fails.
pub fn become_child(tethered: &Tethered) -> ExitCode {
    let fail = |what: String| {
        eprintln!("error: {what}");
        ExitCode::FAILURE
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return fail(format!("the kernel does not tie this process to its parent: {error}"));
    }
    // If the parent was gone before the line above, there is nobody left whose end would end this process.
    if getppid().map(Pid::as_raw_nonzero).is_none_or(|parent| parent.get() != tethered.parent) {
        return fail("the playground ended while this process was started".to_owned());
    }
    let Some((program, arguments)) = tethered.command.split_first() else {
        return fail("there is nothing to become".to_owned());
    };
    let error = std::process::Command::new(program).args(arguments).exec();
    fail(format!("{} cannot be started: {error}", Path::new(program).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_told_its_parent_and_what_to_become() {
        let command = command(Path::new("/bin/metasrv"), Path::new("/bin/etcd"), &["--name=e1"]);
        let parent = std::process::id().to_string();
        let said: Vec<_> = command.as_std().get_args().collect();
        assert_eq!(said, ["playground", "tethered", "--parent", &parent, "--", "/bin/etcd", "--name=e1"]);
    }

    #[test]
    fn a_child_whose_parent_is_gone_does_not_become_anything() {
        let tethered = Tethered { parent: i32::MAX, command: vec!["/bin/true".into()] };
        // The signal is meant for the end of this test's own parent, which is not awaited here.
        assert_eq!(format!("{:?}", become_child(&tethered)), format!("{:?}", ExitCode::FAILURE));
        set_parent_process_death_signal(None).unwrap();
    }
}
