//! `metactl history region R`: which datanode held a region, and from when until when; `--at T`: which one at that time.
//!
//! A tenure begins with an event that names a holder and ends with the next one. To hold means that the route named the
//! node; whether it could write at each moment is another question. Times are those of the leaders' clocks: order comes from the
//! events' ids. The history is bounded, so that its first event may be a change: then who held it before is known, and
//! since when is not.

use metasrv_proto::admin::{Event, ListEventsRequest};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Column, Row, Shown, print_list, print_one};
use crate::session::Session;
use crate::text::{Moment, cell, count, unless_zero};

/// All that is kept.
const MOST: u32 = 10_000;

/// One node's time with a region.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
struct Tenure {
    region_id: u64,
    node_id: u64,
    /// Null: not known.
    epoch: Option<u64>,
    /// Null: before the history begins.
    from: Moment,
    /// Null: it holds it now.
    until: Moment,
    /// The event that it began with. Null: it is not in the history.
    began_with: Option<String>,
    term: Option<u64>,
    procedure_id: Option<u64>,
    why: String,
}

impl Row for Tenure {
    const COLUMNS: &'static [Column<Tenure>] = &[
        Column { title: "REGION", shown: Shown::Wide, cell: |tenure, _| tenure.region_id.to_string() },
        Column { title: "NODE", shown: Shown::Always, cell: |tenure, _| tenure.node_id.to_string() },
        Column { title: "EPOCH", shown: Shown::Always, cell: |tenure, _| count(tenure.epoch) },
        Column { title: "FROM", shown: Shown::Always, cell: |tenure, _| tenure.from.clock() },
        Column { title: "UNTIL", shown: Shown::Always, cell: |tenure, _| tenure.until.clock() },
        Column {
            title: "BEGAN WITH",
            shown: Shown::Always,
            cell: |tenure, _| cell(tenure.began_with.as_deref().unwrap_or_default()),
        },
        Column { title: "TERM", shown: Shown::Wide, cell: |tenure, _| count(tenure.term) },
        Column { title: "PROCEDURE", shown: Shown::Wide, cell: |tenure, _| count(tenure.procedure_id) },
        Column { title: "WHY", shown: Shown::Always, cell: |tenure, _| cell(&tenure.why) },
    ];
}

/// Shows all of it, or who held it at one time.
pub async fn region(session: &Session, region: u64, at_ms: Option<u64>) -> Result<(), Failure> {
    let request = ListEventsRequest { region_id: region, limit: MOST, ..Default::default() };
    let events = session.operations().events(request).await?;
    let mut tenures = tenures(region, &events);
    if tenures.is_empty() {
        tenures.push(unchanged(session, region).await?);
    }
    match at_ms {
        None => print_list(&tenures, session.format),
        Some(at_ms) => {
            print_one(&at(&tenures, at_ms).map_err(|why| nobody(region, at_ms, &why))?, session.format)
        }
    }
}

/// The tenures that these events tell of, the first one first.
fn tenures(region: u64, events: &[Event]) -> Vec<Tenure> {
    let mut tenures: Vec<Tenure> = Vec::new();
    for event in events.iter().filter(|event| event.region_id == region) {
        let names_holder = match event.kind.as_str() {
            "region_created" | "region_failed_over" | "region_migrated" | "region_epoch_raised" => true,
            "region_dropped" => false,
            _ => continue,
        };
        if tenures.is_empty() && event.kind != "region_created" {
            tenures.extend(before(region, event));
        }
        if let Some(last) = tenures.last_mut().filter(|last| last.until == Moment(0)) {
            last.until = Moment(event.at_ms);
        }
        if names_holder {
            tenures.push(Tenure {
                region_id: region,
                node_id: event.node_id,
                epoch: unless_zero(event.epoch),
                from: Moment(event.at_ms),
                until: Moment(0),
                began_with: Some(event.kind.clone()),
                term: Some(event.term),
                procedure_id: unless_zero(event.procedure_id),
                why: event.why.clone(),
            });
        }
    }
    tenures
}

/// Who held it before the first change that the history has.
fn before(region: u64, event: &Event) -> Option<Tenure> {
    let node_id = unless_zero(event.from_node_id).or(unless_zero(event.node_id))?;
    Some(Tenure {
        region_id: region,
        node_id,
        epoch: None,
        from: Moment(0),
        until: Moment(0),
        began_with: None,
        term: None,
        procedure_id: None,
        why: String::new(),
    })
}

/// The only tenure of a region that the history does not name: it is where it was before the history begins.
async fn unchanged(session: &Session, region: u64) -> Result<Tenure, Failure> {
    let now = session.operations().explain_region(region).await?;
    Ok(Tenure {
        region_id: region,
        node_id: now.node_id,
        epoch: unless_zero(now.epoch),
        from: Moment(0),
        until: Moment(0),
        began_with: None,
        term: None,
        procedure_id: None,
        why: String::new(),
    })
}

/// Who held it at this time; else why nobody did.
fn at(tenures: &[Tenure], at_ms: u64) -> Result<Tenure, String> {
    let last = tenures.iter().rev().find(|tenure| tenure.from.0 <= at_ms);
    match last {
        Some(tenure) if tenure.until == Moment(0) || at_ms < tenure.until.0 => Ok(tenure.clone()),
        Some(tenure) => Err(format!("it was dropped at {}", tenure.until.clock())),
        None => Err(match tenures.first() {
            Some(first) => format!("it was created at {}", first.from.clock()),
            None => "nothing is known of it".to_owned(),
        }),
    }
}

fn nobody(region: u64, at_ms: u64, why: &str) -> Failure {
    let what = format!("nobody held region {region} at {}: {why}", Moment(at_ms).clock());
    Failure::new(Exit::NotFound, what)
        .advise(format!("`metactl history region {region}` shows all that is known."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::document;

    fn event(at_ms: u64, kind: &str, from_node_id: u64, node_id: u64, epoch: u64) -> Event {
        Event { at_ms, kind: kind.to_owned(), region_id: 7, from_node_id, node_id, epoch, ..Event::default() }
    }

    fn life() -> Vec<Event> {
        vec![
            event(100, "region_created", 0, 1, 1),
            event(150, "migration_begun", 1, 2, 1),
            event(200, "region_migrated", 1, 2, 2),
            event(210, "migration_done", 1, 2, 2),
            Event { region_id: 8, ..event(250, "region_dropped", 0, 0, 0) },
            event(300, "region_failed_over", 2, 3, 3),
            event(400, "region_dropped", 3, 0, 3),
        ]
    }

    fn holders(tenures: &[Tenure]) -> Vec<(u64, u64, u64)> {
        tenures.iter().map(|tenure| (tenure.node_id, tenure.from.0, tenure.until.0)).collect()
    }

    #[test]
    fn a_tenure_lasts_from_one_change_of_holder_to_the_next() {
        let all = tenures(7, &life());
        assert_eq!(holders(&all), [(1, 100, 200), (2, 200, 300), (3, 300, 400)]);
        assert_eq!(all[1].epoch, Some(2));
        assert_eq!(holders(&tenures(7, &life()[..6])).last(), Some(&(3, 300, 0)), "it holds it now");
    }

    /// Goal: who held it at a time, at the edges too. Method: the life above, and the same with its beginning forgotten.
    #[test]
    fn who_held_it_at_a_time_and_why_nobody_did() {
        let all = tenures(7, &life());
        let holder = |tenures: &[Tenure], at_ms| at(tenures, at_ms).map(|tenure| tenure.node_id);
        for (at_ms, node) in [(100, 1), (199, 1), (200, 2), (299, 2), (300, 3), (399, 3)] {
            assert_eq!(holder(&all, at_ms), Ok(node), "at {at_ms}");
        }
        assert!(holder(&all, 99).is_err_and(|why| why.contains("created")));
        assert!(holder(&all, 400).is_err_and(|why| why.contains("dropped")));
        let trimmed = tenures(7, &life()[2..]);
        assert_eq!(holders(&trimmed)[0], (1, 0, 200), "who held it before the history begins is known");
        assert_eq!(holder(&trimmed, 1), Ok(1));
        assert_eq!(holder(&[], 1), Err("nothing is known of it".to_owned()));
    }

    #[test]
    fn a_raised_epoch_after_the_beginning_is_forgotten_stays_on_its_node() {
        let all = tenures(7, &[event(200, "region_epoch_raised", 0, 1, 2)]);
        assert_eq!(holders(&all), [(1, 0, 200), (1, 200, 0)]);
    }

    #[test]
    fn the_names_of_its_fields_stay() {
        let first = tenures(7, &life()).remove(0);
        let json = document(&first, Format::Jsonl);
        assert_eq!(
            json.as_deref(),
            Ok(concat!(
                r#"{"region_id":7,"node_id":1,"epoch":1,"from":"1970-01-01T00:00:00.100Z","#,
                r#""until":"1970-01-01T00:00:00.200Z","began_with":"region_created","term":0,"#,
                r#""procedure_id":null,"why":""}"#,
                "\n"
            ))
        );
        let failure = nobody(7, 1_700_000_000_000, "it was dropped");
        assert_eq!(failure.exit, Exit::NotFound);
        assert!(
            failure.to_string().contains("region 7 at 2023-11-14T22:13:20Z: it was dropped"),
            "{failure}"
        );
    }
}
