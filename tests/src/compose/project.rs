//! One project of docker-compose: a copy of deploy/compose, so that its configuration can be changed, on ports that are
//! free, under a name of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;
use tokio::process::Command;

use super::engine::{docker, labelled, output};
use crate::chaos::servers::reach;
use crate::ports::free_port;

/// What is made bears this name. One run at a time: see [`lock`].
const NAME: &str = "metasrv-compose-test";

/// Nine containers start, in three waves that wait for one another's health.
const UP: Duration = Duration::from_secs(150);

/// Nine containers end, each within its grace period.
const DOWN: Duration = Duration::from_secs(90);

/// How many there are of each: etcd, metasrv, datanode.
pub const MEMBERS: u16 = 3;

/// See the module.
pub struct Project {
    tool: Vec<String>,
    directory: TempDir,
    environment: Vec<(String, String)>,
    /// gRPC ports of the replicas on 127.0.0.1, in their order.
    pub replica_ports: Vec<u16>,
    /// The same of the datanodes.
    pub datanode_ports: Vec<u16>,
}

impl Project {
    /// Prepares it; nothing runs yet. What an earlier run left under the same name is removed, so the lock has to be held.
    ///
    /// # Errors
    /// There is no tool, or no engine.
    pub async fn prepare(tool: Option<&str>) -> Result<Project, String> {
        let tool = match tool {
            Some(tool) => tool,
            None => a_tool().await?,
        };
        let directory = copy_of_deploy().map_err(|error| format!("deploy/ cannot be copied: {error}"))?;
        let mut environment = vec![
            ("COMPOSE_PROJECT_NAME".to_owned(), NAME.to_owned()),
            ("METASRV_IMAGE".to_owned(), "metasrv:offline".to_owned()),
            ("ETCD_IMAGE".to_owned(), "metasrv-etcd:offline".to_owned()),
        ];
        let mut ports = |variable: &str| -> Vec<u16> {
            let named = (1..=MEMBERS).map(|number| (format!("{variable}_{number}"), free_port()));
            let named: Vec<_> = named.collect();
            environment.extend(named.iter().map(|(name, port)| (name.clone(), port.to_string())));
            named.into_iter().map(|(_, port)| port).collect()
        };
        let replica_ports = ports("METASRV_PORT");
        ports("METASRV_HTTP_PORT");
        let datanode_ports = ports("DATANODE_PORT");
        let tool = tool.split_whitespace().map(str::to_owned).collect();
        let project = Project { tool, directory, environment, replica_ports, datanode_ports };
        println!("{} {}", project.tool.join(" "), project.compose(["version"], UP).await?);
        remove_everything().await?;
        Ok(project)
    }

    /// Runs the tool with these words in the copy of deploy/compose.
    ///
    /// # Errors
    /// It fails, or takes longer.
    pub async fn compose<'a>(
        &self,
        words: impl IntoIterator<Item = &'a str>,
        limit: Duration,
    ) -> Result<String, String> {
        let [program, first @ ..] = self.tool.as_slice() else { return Err("no tool is named".to_owned()) };
        let mut command = Command::new(program);
        let file = self.directory.path().join("compose/compose.yaml");
        command.args(first).arg("--file").arg(file).args(words);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        output(command, limit).await
    }

    /// `up -d`, and waits until every container is healthy.
    ///
    /// # Errors
    /// One does not get there.
    pub async fn up(&self) -> Result<(), String> {
        self.compose(["up", "-d"], UP).await?;
        for service in self.services() {
            self.healthy(&service).await?;
        }
        Ok(())
    }

    /// Every service that is not of the profile `observe`.
    pub fn services(&self) -> Vec<String> {
        let of = |kind: &str| (1..=MEMBERS).map(|number| format!("{kind}-{number}")).collect::<Vec<_>>();
        ["etcd", "metasrv", "datanode"].into_iter().flat_map(of).collect()
    }

    /// The id of a service's container.
    ///
    /// # Errors
    /// There is none, or several.
    pub async fn container(&self, service: &str) -> Result<String, String> {
        let filter = format!("label=com.docker.compose.service={service}");
        let found = labelled(&["container", "ls", "--all", "--filter", &filter], NAME).await?;
        match found.as_slice() {
            [id] => Ok(id.clone()),
            _ => Err(format!("{service} has {} containers", found.len())),
        }
    }

    /// Waits until a service's container is healthy.
    ///
    /// # Errors
    /// It is not in time; with the end of its log.
    pub async fn healthy(&self, service: &str) -> Result<(), String> {
        let what = format!("{service} is healthy");
        let waited = reach(&what, async || {
            let id = self.container(service).await?;
            let format = "{{.State.Status}} {{.State.Health.Status}}";
            match docker(["container", "inspect", "--format", format, &id]).await?.as_str() {
                "running healthy" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
        match waited.await {
            Ok(()) => Ok(()),
            Err(why) => {
                let id = self.container(service).await?;
                let log = docker(["container", "logs", "--tail", "20", &id]).await.unwrap_or_else(|why| why);
                Err(format!("{why}\n{log}"))
            }
        }
    }

    /// Replaces a service's container, as an operator does who changed its configuration.
    ///
    /// # Errors
    /// The tool fails, or the new container does not get healthy.
    pub async fn recreate(&self, service: &str) -> Result<(), String> {
        self.compose(["up", "-d", "--no-deps", "--force-recreate", service], UP).await?;
        self.healthy(service).await
    }

    /// The network of all its containers.
    pub fn network(&self) -> String {
        format!("{NAME}_metasrv")
    }

    /// The configuration file of the replicas, which belongs to this project alone.
    pub fn configuration(&self) -> PathBuf {
        self.directory.path().join("metasrv.toml")
    }

    /// `down` with all volumes, and a look whether anything is left.
    ///
    /// # Errors
    /// Something is.
    pub async fn down(self) -> Result<(), String> {
        self.compose(["down", "--volumes", "--remove-orphans"], DOWN).await?;
        for kind in KINDS {
            let left = labelled(&[kind, "ls"], NAME).await?;
            if !left.is_empty() {
                return Err(format!("{kind}s are left: {}", left.join(", ")));
            }
        }
        Ok(())
    }
}

/// What a project makes.
const KINDS: [&str; 3] = ["container", "network", "volume"];

/// Removes whatever bears the project's label, and nothing else: for the end of a run that did not come to its end.
///
/// # Errors
/// The engine refuses.
pub async fn remove_everything() -> Result<(), String> {
    for kind in KINDS {
        let all: &[&str] = if kind == "container" { &["--all"] } else { &[] };
        for id in labelled(&[&[kind, "ls"], all].concat(), NAME).await? {
            let words: &[&str] = if kind == "network" { &[kind, "rm"] } else { &[kind, "rm", "--force"] };
            docker(words.iter().copied().chain([id.as_str()])).await?;
        }
    }
    Ok(())
}

/// What reads compose.yaml on this machine.
async fn a_tool() -> Result<&'static str, String> {
    let mut said = Vec::new();
    for tool in ["docker compose", "docker-compose"] {
        let mut words = tool.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("version");
        match output(command, UP).await {
            Ok(_) => return Ok(tool),
            Err(why) => said.push(why),
        }
    }
    Err(said.join("; "))
}

/// The right to make, and to remove, what bears the name; until this is dropped.
///
/// # Errors
/// Another run has it: whoever is second does not wait.
pub fn lock() -> Result<File, String> {
    let path = std::env::temp_dir().join(format!("{NAME}.lock"));
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| format!("{}: {error}", path.display()))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| format!("another run is at work: {} is locked", path.display()))?;
    Ok(file)
}

/// The top of the repository.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// What compose.yaml refers to, in the same places relative to it.
fn copy_of_deploy() -> std::io::Result<TempDir> {
    let deploy = top().join("deploy");
    let copy = tempfile::Builder::new().prefix(&format!("{NAME}-")).tempdir()?;
    std::fs::create_dir(copy.path().join("compose"))?;
    for file in ["compose/compose.yaml", "compose/.env", "metasrv.toml"] {
        std::fs::write(copy.path().join(file), std::fs::read(deploy.join(file))?)?;
    }
    // The containers' users are not ours.
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(copy.path(), everybody)?;
    Ok(copy)
}
