//! What is done to the cluster in the containers, and what it costs. Times are figures and never fail a run; that every
//! step comes to its end does, and that nothing acknowledged is lost.

use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::process::Command;

use super::engine::{docker, ended_at, output};
use super::project::{MEMBERS, Project, top};
use super::world::World;
use crate::binaries::binary;
use crate::chaos::region::world::RegionWorld;
use crate::chaos::servers::reach;
use crate::figures::Figures;
use crate::wait::now;

/// Images are made of packages and binaries.
const IMAGES: Duration = Duration::from_secs(120);

/// One look of an operator's tool.
const METACTL: Duration = Duration::from_secs(20);

/// So many leaders are killed, one after another.
const KILLS: usize = 3;

/// Time between two puts to a region that is measured.
const PACE: Duration = Duration::from_millis(20);

/// The writers are at their pace before anything happens.
const QUIET: Duration = Duration::from_millis(700);

/// Everything, from the images to the removal.
///
/// # Errors
/// What did not work. The project may still be there then.
pub async fn run(tool: Option<&str>, binaries: &Path, figures: &mut Figures) -> Result<(), String> {
    images(binaries, figures).await?;
    let project = Project::prepare(tool).await?;
    let began = now();
    project.up().await?;
    let world = World::begin(&project).await?;
    figures.add("compose_up_s", now().since(began).as_secs_f64(), "s");
    look_with_metactl(&project).await?;
    kill_the_leader(&project, &world, figures).await?;
    disconnect_a_datanode(&project, &world, figures).await?;
    restart_with_a_new_configuration(&project, &world, figures).await?;
    let lost = world.writers.check(&world.writers.regions()).await?;
    figures.add("compose_lost_puts", count(lost.len()), "puts");
    let findings = world.findings().await?;
    drop(world);
    project.down().await?;
    match lost.iter().chain(&findings).next() {
        None => Ok(()),
        Some(_) => Err(format!("lost: {lost:?}; found in the store: {findings:?}")),
    }
}

async fn images(binaries: &Path, figures: &mut Figures) -> Result<(), String> {
    let mut command = Command::new("sh");
    command.arg(top().join("deploy/docker/offline.sh")).arg(binaries);
    let said = output(command, IMAGES).await?;
    let weight = said.lines().find_map(|line| line.strip_prefix("figure image_mib ")?.split(' ').next());
    let weight = weight.and_then(|text| text.parse().ok());
    let weight: f64 = weight.ok_or_else(|| format!("no figure image_mib in {said:?}"))?;
    match binaries.ends_with("release") {
        true => figures.add("image_mib", weight, "MiB"),
        // Nobody ships it.
        false => println!("an image of {weight} MiB, of the binaries in {}", binaries.display()),
    }
    Ok(())
}

/// `metactl status` as the pages tell it: from this machine, and in a container.
async fn look_with_metactl(project: &Project) -> Result<(), String> {
    let addrs: Vec<String> = project.replica_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut command = Command::new(binary("metactl"));
    command.args(["--metasrv", &addrs.join(","), "status"]);
    println!("{}", output(command, METACTL).await?);
    let inside =
        project.compose(["exec", "-T", "metasrv-1", "metactl", "status", "-o", "json"], METACTL).await?;
    serde_json::from_str::<serde_json::Value>(&inside)
        .map_err(|error| format!("{error}: metactl in the container says {inside:?}"))?;
    Ok(())
}

/// What the end of a leader costs: the longest times of all rounds.
#[derive(Default)]
struct Succession {
    /// Until a leader of a later term answers.
    serving: Duration,
    /// Until it hears every datanode. They come when their next heartbeat is nearly due.
    gap: Duration,
    /// Between two acknowledged puts to any region.
    write_gap: Duration,
}

/// No region may change hands for it.
async fn kill_the_leader(project: &Project, world: &World, figures: &mut Figures) -> Result<(), String> {
    let routes = world.routes().await?;
    let regions = world.writers.regions();
    let mut worst = Succession::default();
    for _ in 0..KILLS {
        let leader = world.settle().await?;
        let service = format!("metasrv-{}", leader.replica + 1);
        let id = project.container(&service).await?;
        world.writers.focus(&regions, PACE);
        tokio::time::sleep(QUIET).await;
        world.writers.begin_round(&regions);
        let killing = tokio::spawn({
            let id = id.clone();
            async move { docker(["container", "kill", &id]).await }
        });
        world.succeeded(leader, 0).await?;
        let serving = SystemTime::now();
        world.succeeded(leader, MEMBERS).await?;
        let heard = SystemTime::now();
        killing.await.map_err(|error| error.to_string())??;
        let ended = ended_at(&id).await?;
        let since = |until: SystemTime| until.duration_since(ended).unwrap_or_default();
        worst.serving = worst.serving.max(since(serving));
        worst.gap = worst.gap.max(since(heard));
        // Whoever lost its leader has to have been granted again.
        world.settle().await?;
        worst.write_gap = worst.write_gap.max(longest(world, &regions));
        docker(["container", "start", &id]).await?;
        project.healthy(&service).await?;
        world.writers.relax();
    }
    figures.add("compose_leader_kill_serving_ms", millis(worst.serving), "ms");
    figures.add("compose_leader_kill_gap_ms", millis(worst.gap), "ms");
    figures.add("compose_leader_kill_write_gap_ms", millis(worst.write_gap), "ms");
    match world.routes().await? {
        after if after == routes => Ok(()),
        after => Err(format!("regions changed hands when the leader was killed: {routes:?}, then {after:?}")),
    }
}

/// The longest gap of any of these regions since the round began.
fn longest(world: &World, regions: &[u64]) -> Duration {
    world.writers.gaps(regions).into_iter().max().unwrap_or_default()
}

async fn disconnect_a_datanode(
    project: &Project,
    world: &World,
    figures: &mut Figures,
) -> Result<(), String> {
    world.settle().await?;
    let (node, epochs) = RegionWorld::busiest(&world.routes().await?);
    let regions: Vec<u64> = epochs.keys().copied().collect();
    let service = format!("datanode-{node}");
    let (id, network) = (project.container(&service).await?, project.network());
    world.writers.focus(&regions, PACE);
    tokio::time::sleep(QUIET).await;
    world.writers.begin_round(&regions);
    docker(["network", "disconnect", &network, &id]).await?;
    world.writers.written(&epochs).await?;
    figures.add("compose_node_loss_gap_ms", millis(longest(world, &regions)), "ms");
    world.writers.relax();
    docker(["network", "connect", "--alias", &service, &network, &id]).await?;
    world.settle().await?;
    project.healthy(&service).await
}

/// One replica after the other, as docs/deploy.md tells it.
async fn restart_with_a_new_configuration(
    project: &Project,
    world: &World,
    figures: &mut Figures,
) -> Result<(), String> {
    let path = project.configuration();
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let changed = text.replace("log-format = \"json\"", "log-format = \"text\"");
    let changed = changed.replace("region-lease = \"5s\"", "region-lease = \"6s\"");
    std::fs::write(&path, changed).map_err(|error| format!("{}: {error}", path.display()))?;
    world.settle().await?;
    let regions = world.writers.regions();
    world.writers.focus(&regions, PACE);
    tokio::time::sleep(QUIET).await;
    world.writers.begin_round(&regions);
    for number in 1..=MEMBERS {
        let service = format!("metasrv-{number}");
        project.recreate(&service).await?;
        says_it_as_text(project, &service).await?;
    }
    world.settle().await?;
    figures.add("compose_rolling_restart_gap_ms", millis(longest(world, &regions)), "ms");
    world.writers.relax();
    Ok(())
}

/// The sign that the new configuration is in effect.
async fn says_it_as_text(project: &Project, service: &str) -> Result<(), String> {
    let id = project.container(service).await?;
    reach(&format!("{service} logs by the new configuration"), async || {
        let mut command = Command::new("sh");
        // What it says is on stderr.
        command.args(["-c", "docker container logs \"$0\" 2>&1 | head -n 1", &id]);
        match output(command, METACTL).await? {
            line if line.is_empty() || line.starts_with('{') => Err(format!("it says {line:?}")),
            _ => Ok(()),
        }
    })
    .await
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round()
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}
