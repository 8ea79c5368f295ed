//! Docker's command line, with deadlines.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use tokio::process::Command;

/// Nothing that is asked of the engine takes longer, except to start or to stop everything.
const CALL: Duration = Duration::from_secs(30);

/// What a program printed on stdout.
///
/// # Errors
/// It failed, or took too long; with what it printed on stderr.
pub async fn output(mut command: Command, limit: Duration) -> Result<String, String> {
    let line = line(command.as_std());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(limit, command.output()).await {
        Ok(output) => output.map_err(|error| format!("{line}: {error}"))?,
        Err(_) => return Err(format!("{line}: not done within {limit:?}")),
    };
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{line}: {}\n{}", output.status, said.trim_end()))
        }
    }
}

/// The same of `docker`.
///
/// # Errors
/// As of [`output`].
pub async fn docker<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<String, String> {
    let mut command = Command::new("docker");
    command.args(arguments);
    output(command, CALL).await
}

/// Things of this kind that bear this project's label: `docker KIND ls` with further words.
///
/// # Errors
/// The engine does not list them.
pub async fn labelled(kind: &[&str], project: &str) -> Result<Vec<String>, String> {
    let label = format!("label=com.docker.compose.project={project}");
    let words = kind.iter().copied().chain(["--quiet", "--filter", &label]);
    Ok(docker(words).await?.lines().map(str::to_owned).collect())
}

/// When a container's process ended, by the engine's own word. The engine takes its time before it kills, and after it.
///
/// # Errors
/// The engine does not say it.
pub async fn ended_at(container: &str) -> Result<SystemTime, String> {
    let said = docker(["container", "inspect", "--format", "{{.State.FinishedAt}}", container]).await?;
    humantime::parse_rfc3339(&said).map_err(|error| format!("{said:?}: {error}"))
}

fn line(command: &std::process::Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
