//! `metactl route list` and `metactl route watch`: who leads each region, as any replica tells frontends.
//!
//! What `region list` says comes from the leader, which knows who may write at this moment; this is what a frontend goes
//! by, and needs no leader.

use metasrv::clock::wall_clock_ms;
use metasrv_client::{ClientError, Route, RouteCache, RouteChange, RouteState};
use serde::Serialize;

use crate::cli::Format;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Row, Shown, document, print_list, print_on, say};
use crate::session::Session;
use crate::text::{Moment, cell};

/// A route. The order of the fields is the order in JSON.
#[derive(Serialize)]
struct RouteRow {
    region_id: u64,
    node_id: u64,
    node_addr: String,
    epoch: u64,
    group: String,
    revision: u64,
    /// `serving`, `moving`, `leader_ended`, `unknown`.
    state: &'static str,
    followers: Vec<Follower>,
}

/// A datanode that has the region open without the right to write.
#[derive(Serialize)]
struct Follower {
    node_id: u64,
    node_addr: String,
}

impl Row for RouteRow {
    const COLUMNS: &'static [Column<RouteRow>] = &[
        Column { title: "REGION", shown: Shown::Always, cell: |route, _| route.region_id.to_string() },
        Column { title: "NODE", shown: Shown::Always, cell: |route, _| route.node_id.to_string() },
        Column { title: "NODE ADDR", shown: Shown::Always, cell: |route, _| cell(&route.node_addr) },
        Column { title: "EPOCH", shown: Shown::Always, cell: |route, _| route.epoch.to_string() },
        Column { title: "STATE", shown: Shown::Always, cell: |route, _| route.state.to_owned() },
        Column { title: "FOLLOWERS", shown: Shown::Wide, cell: |route, _| nodes(&route.followers) },
        Column { title: "GROUP", shown: Shown::Wide, cell: |route, _| cell(&route.group) },
        Column { title: "REVISION", shown: Shown::Wide, cell: |route, _| route.revision.to_string() },
    ];
}

impl From<Route> for RouteRow {
    fn from(route: Route) -> RouteRow {
        RouteRow {
            region_id: route.region_id,
            node_id: route.node_id,
            node_addr: route.node_addr.to_string(),
            epoch: route.epoch,
            group: route.group.to_string(),
            revision: route.revision,
            state: match route.state {
                RouteState::Serving => "serving",
                RouteState::Moving => "moving",
                RouteState::LeaderEnded => "leader_ended",
                RouteState::Unknown => "unknown",
            },
            followers: route
                .followers
                .iter()
                .map(|follower| Follower {
                    node_id: follower.node_id,
                    node_addr: follower.node_addr.to_string(),
                })
                .collect(),
        }
    }
}

fn nodes(followers: &[Follower]) -> String {
    let ids: Vec<String> = followers.iter().map(|follower| follower.node_id.to_string()).collect();
    ids.join(", ")
}

/// One line of `route watch`.
#[derive(Serialize)]
struct Told {
    at: Moment,
    /// `known`: it is so at the beginning, or after more changes than could be told; `changed`; `dropped`.
    change: &'static str,
    region_id: u64,
    /// Absent where the region is gone.
    #[serde(flatten)]
    route: Option<Leads>,
}

/// Who leads.
#[derive(Serialize)]
struct Leads {
    node_id: u64,
    node_addr: String,
    epoch: u64,
    group: String,
    revision: u64,
    state: &'static str,
    followers: Vec<Follower>,
}

impl Told {
    fn of(at_ms: u64, change: &'static str, route: Route) -> Told {
        let RouteRow { region_id, node_id, node_addr, epoch, group, revision, state, followers } =
            RouteRow::from(route);
        let route = Some(Leads { node_id, node_addr, epoch, group, revision, state, followers });
        Told { at: Moment(at_ms), change, region_id, route }
    }

    fn dropped(at_ms: u64, region_id: u64) -> Told {
        Told { at: Moment(at_ms), change: "dropped", region_id, route: None }
    }

    fn line(&self, format: Format) -> Result<String, Failure> {
        if matches!(format, Format::Json | Format::Jsonl) {
            return document(self, Format::Jsonl);
        }
        let Told { change, region_id, route, .. } = self;
        Ok(match route {
            Some(Leads { node_id, node_addr, epoch, revision, state, .. }) => {
                let addr = cell(node_addr);
                format!(
                    "{revision:<10}  {change:<8}  {region_id:<10}  {node_id:<8}  {epoch:<6}  {state:<12}  {addr}\n"
                )
            }
            None => format!("{:<10}  {change:<8}  {region_id}\n", ""),
        })
    }
}

/// Lists all routes, or that of one region.
pub async fn list(session: &Session, region: Option<u64>) -> Result<(), Failure> {
    let cache = ready(session).await?;
    let rows: Vec<RouteRow> = cache
        .all()
        .into_iter()
        .filter(|route| is_wanted(region, route.region_id))
        .map(RouteRow::from)
        .collect();
    if let Some(region) = region.filter(|_| rows.is_empty()) {
        return Err(Failure::new(Exit::NotFound, format!("there is no region {region}"))
            .advise("`metactl route list` shows all that there are."));
    }
    print_list(&rows, session.format)
}

/// Prints what is known, then every change, until Ctrl-C or until nobody reads any more.
pub async fn watch(session: &Session, region: Option<u64>) -> Result<(), Failure> {
    let cache = ready(session).await?;
    let mut changes = cache.watch();
    if matches!(session.format, Format::Table | Format::Wide) {
        let header = format!(
            "{:<10}  {:<8}  {:<10}  {:<8}  {:<6}  {:<12}  {}\n",
            "REVISION", "CHANGE", "REGION", "NODE", "EPOCH", "STATE", "NODE ADDR"
        );
        print_on(&header)?;
    }
    let mut goes_on = print_all(&cache, session.format, region)?;
    while goes_on {
        goes_on = match changes.next().await {
            Some(RouteChange::Changed(route)) if is_wanted(region, route.region_id) => {
                print_on(&Told::of(wall_clock_ms(), "changed", route).line(session.format)?)?
            }
            Some(RouteChange::Dropped { region_id }) if is_wanted(region, region_id) => {
                print_on(&Told::dropped(wall_clock_ms(), region_id).line(session.format)?)?
            }
            Some(RouteChange::Replaced) => {
                say("more has changed than was told one by one; this is what is known now:");
                print_all(&cache, session.format, region)?
            }
            Some(_) => true,
            None => false,
        };
    }
    Ok(())
}

fn print_all(cache: &RouteCache, format: Format, region: Option<u64>) -> Result<bool, Failure> {
    let now = wall_clock_ms();
    let mut text = String::new();
    for route in cache.all().into_iter().filter(|route| is_wanted(region, route.region_id)) {
        text.push_str(&Told::of(now, "known", route).line(format)?);
    }
    print_on(&text)
}

fn is_wanted(region: Option<u64>, region_id: u64) -> bool {
    region.is_none_or(|region| region == region_id)
}

/// A cache that has its first snapshot. Where nobody answers at all, that is said at once.
async fn ready(session: &Session) -> Result<RouteCache, Failure> {
    // Whether anybody leads is nothing to it.
    if let Err(error @ ClientError::NobodyReachable { .. }) = session.client.ask_leader().await {
        return Err(error.into());
    }
    let cache = session.client.route_cache(0);
    cache.ready(session.left()).await?;
    Ok(cache)
}

#[cfg(test)]
mod tests {
    use super::*;
    use metasrv_client::RouteFollower;

    fn route() -> Route {
        Route {
            region_id: 7,
            node_id: 2,
            node_addr: "n2:1".into(),
            epoch: 3,
            group: "t".into(),
            revision: 90,
            state: RouteState::Moving,
            followers: vec![RouteFollower { node_id: 3, node_addr: "n3:1".into() }],
        }
    }

    #[test]
    fn the_names_of_its_fields_stay() {
        let json = document(&RouteRow::from(route()), Format::Jsonl);
        let expected = concat!(
            r#"{"region_id":7,"node_id":2,"node_addr":"n2:1","epoch":3,"group":"t","revision":90,"#,
            r#""state":"moving","followers":[{"node_id":3,"node_addr":"n3:1"}]}"#,
            "\n"
        );
        assert_eq!(json.as_deref(), Ok(expected));
        let told = Told::of(0, "changed", route()).line(Format::Jsonl);
        let expected = concat!(
            r#"{"at":null,"change":"changed","region_id":7,"#,
            r#""node_id":2,"node_addr":"n2:1","epoch":3,"group":"t","revision":90,"#,
            r#""state":"moving","followers":[{"node_id":3,"node_addr":"n3:1"}]}"#,
            "\n"
        );
        assert_eq!(told.as_deref(), Ok(expected));
        let dropped = Told::dropped(0, 7).line(Format::Json);
        assert_eq!(dropped.as_deref(), Ok("{\"at\":null,\"change\":\"dropped\",\"region_id\":7}\n"));
    }

    #[test]
    fn lines_for_people_stand_below_their_headings() {
        let line = Told::of(0, "changed", route()).line(Format::Table);
        assert_eq!(
            line.as_deref(),
            Ok("90          changed   7           2         3       moving        n2:1\n")
        );
        assert_eq!(Told::dropped(0, 7).line(Format::Table).as_deref(), Ok("            dropped   7\n"));
    }
}
