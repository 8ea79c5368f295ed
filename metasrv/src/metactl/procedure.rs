//! `metactl procedure list`, `show` and `cancel`: what is at work. And waiting for the end of one, for whoever began it.
//!
//! A procedure that has ended is not listed any more; how it ended, the history says: its last event is written in the same
//! transaction. Ctrl-C ends the waiting and not the work, and the last word says how to follow it and how to cancel it.

use metasrv_client::ClientError;
use metasrv_proto::admin::{CancelProcedureRequest, Event, ListEventsRequest, ProcedureView};
use serde::Serialize;

use crate::cli::Why;
use crate::exit::{Exit, Failure};
use crate::moves::{StuckRow, stuck};
use crate::output::{Column, Row, Shown, facts, listed, page, print_one, say, shown, table};
use crate::session::{Look, Session, Waited};
use crate::text::{Moment, cell, count, estimate, unless_zero};

/// A procedure at work.
#[derive(Serialize)]
struct ProcedureRow {
    procedure_id: u64,
    /// migration or drain.
    kind: String,
    cluster_id: u64,
    /// Null: a drain.
    region_id: Option<u64>,
    from_node_id: Option<u64>,
    /// Null: a drain, or not chosen yet.
    to_node_id: Option<u64>,
    state: String,
    started_at: Moment,
    reason: String,
    /// The drain that began it. Null: none.
    drain_id: Option<u64>,
    /// Regions that left, are left, and are on their way. Null: a migration.
    done: Option<u64>,
    left: Option<u64>,
    in_flight: Option<u64>,
    /// Null: not known.
    eta_ms: Option<u64>,
    /// Regions that wait.
    stuck: Vec<StuckRow>,
}

impl Row for ProcedureRow {
    const COLUMNS: &'static [Column<ProcedureRow>] = &[
        Column { title: "PROCEDURE", shown: Shown::Always, cell: |row, _| row.procedure_id.to_string() },
        Column { title: "KIND", shown: Shown::Always, cell: |row, _| cell(&row.kind) },
        Column { title: "CLUSTER", shown: Shown::Wide, cell: |row, _| row.cluster_id.to_string() },
        Column { title: "REGION", shown: Shown::Always, cell: |row, _| count(row.region_id) },
        Column { title: "FROM", shown: Shown::Always, cell: |row, _| count(row.from_node_id) },
        Column { title: "TO", shown: Shown::Always, cell: |row, _| count(row.to_node_id) },
        Column { title: "STATE", shown: Shown::Always, cell: |row, _| cell(&row.state) },
        Column { title: "LEFT", shown: Shown::Always, cell: |row, _| count(row.left) },
        Column {
            title: "TAKES",
            shown: Shown::Always,
            cell: |row, _| row.eta_ms.map_or_else(|| "-".to_owned(), estimate),
        },
        Column { title: "STARTED", shown: Shown::Always, cell: |row, now| row.started_at.age(now) },
        Column { title: "DONE", shown: Shown::Wide, cell: |row, _| count(row.done) },
        Column { title: "ON THEIR WAY", shown: Shown::Wide, cell: |row, _| count(row.in_flight) },
        Column { title: "OF DRAIN", shown: Shown::Wide, cell: |row, _| count(row.drain_id) },
        Column { title: "REASON", shown: Shown::Wide, cell: |row, _| cell(&row.reason) },
    ];
}

impl From<ProcedureView> for ProcedureRow {
    fn from(view: ProcedureView) -> ProcedureRow {
        let drains = view.kind == "drain";
        ProcedureRow {
            procedure_id: view.id,
            kind: view.kind,
            cluster_id: view.cluster_id,
            region_id: unless_zero(view.region_id),
            from_node_id: unless_zero(view.from_node),
            to_node_id: unless_zero(view.to_node),
            state: view.state,
            started_at: Moment(view.started_at_ms),
            reason: view.reason,
            drain_id: unless_zero(view.drain_id),
            done: drains.then_some(view.done),
            left: drains.then_some(view.left),
            in_flight: drains.then_some(view.in_flight),
            eta_ms: view.eta_ms,
            stuck: stuck(view.stuck),
        }
    }
}

/// What `procedure cancel` came to.
#[derive(Serialize)]
struct CancelRow {
    procedure_id: u64,
    /// It was told to end; a migration is undone first.
    cancelling: bool,
}

impl Row for CancelRow {
    const COLUMNS: &'static [Column<CancelRow>] = &[
        Column { title: "PROCEDURE", shown: Shown::Always, cell: |row, _| row.procedure_id.to_string() },
        Column { title: "CANCELLING", shown: Shown::Always, cell: |_, _| "yes".to_owned() },
    ];
}

/// What is at work.
pub async fn list(session: &Session) -> Result<String, Failure> {
    let procedures = session.operations().procedures().await?.procedures;
    let rows: Vec<ProcedureRow> = procedures.into_iter().map(ProcedureRow::from).collect();
    listed(&rows, session.format)
}

/// One of them.
pub async fn show(session: &Session, id: u64) -> Result<String, Failure> {
    let procedures = session.operations().procedures().await?.procedures;
    let found = procedures.into_iter().find(|view| view.id == id).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("no procedure {id} is at work"))
            .advise("It has ended, or never was: `metactl procedure list` and `metactl events` tell.")
    })?;
    let format = session.format;
    let text = |row: &ProcedureRow, now| {
        let mut text = facts(&page(row, now));
        if !row.stuck.is_empty() {
            text.push('\n');
            text.push_str(&table(&row.stuck, format, now));
        }
        text
    };
    shown(&ProcedureRow::from(found), text, format)
}

/// Cancels one of them.
pub async fn cancel(session: &Session, id: u64, why: Why) -> Result<(), Failure> {
    let operations = session.operations();
    let request = CancelProcedureRequest { id, reason: why.reason };
    let look = "`metactl procedure list` tells whether it is still at work.";
    session.change(operations.cancel_procedure(request), look).await?;
    print_one(&CancelRow { procedure_id: id, cancelling: true }, session.format)
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// A migration of this region.
    Migration { id: u64, region: u64 },
    /// A drain.
    Drain { id: u64 },
}

/// How a procedure ended.
enum Ended {
    Done,
    /// It was cancelled, or could not be done; why, in words.
    Undone(String),
    /// The history does not go back so far.
    Somehow,
}

impl Work {
    fn id(self) -> u64 {
        match self {
            Work::Migration { id, .. } | Work::Drain { id } => id,
        }
    }

    fn name(self) -> String {
        match self {
            Work::Migration { id, region } => format!("the migration of region {region} (procedure {id})"),
            Work::Drain { id } => format!("the drain (procedure {id})"),
        }
    }

    /// How to follow it, and how to cancel it.
    pub fn advice(self) -> String {
        let id = self.id();
        format!(
            "Follow it with `metactl procedure show {id} --watch`, cancel it with `metactl procedure cancel {id}`."
        )
    }

    /// Its events are among these. A drain's are not looked for by its node: its end is one of the latest of all.
    fn events(self) -> ListEventsRequest {
        match self {
            Work::Migration { region, .. } => ListEventsRequest { region_id: region, ..Default::default() },
            Work::Drain { .. } => ListEventsRequest::default(),
        }
    }

    fn end(self, events: &[Event]) -> Ended {
        let mine = events.iter().rev().filter(|event| event.procedure_id == self.id());
        mine.filter_map(|event| match event.kind.as_str() {
            "migration_done" | "drain_done" => Some(Ended::Done),
            "migration_undone" | "drain_cancelled" => Some(Ended::Undone(event.why.clone())),
            _ => None,
        })
        .next()
        .unwrap_or(Ended::Somehow)
    }
}

/// Waits until it has ended, or only says how to follow it.
///
/// # Errors
/// As [`wait_for_end`].
pub async fn follow_or_leave(session: &Session, work: Work, wait: bool) -> Result<(), Failure> {
    if wait {
        return wait_for_end(session, work).await;
    }
    say(&work.advice());
    Ok(())
}

/// Waits until it has ended, and says meanwhile how far it is.
///
/// # Errors
/// Failed if it was undone; timed out if it goes on.
async fn wait_for_end(session: &Session, work: Work) -> Result<(), Failure> {
    let goes_on = |exit: Exit, what: String| Err(Failure::new(exit, what).advise(work.advice()));
    match session.wait(async || look_for_end(session, work).await).await? {
        Waited::Done(Ended::Done) => Ok(()),
        Waited::Done(Ended::Undone(why)) => {
            let why = if why.is_empty() { "the history does not say why".to_owned() } else { cell(&why) };
            Err(Failure::new(Exit::Failed, format!("{} has ended undone: {why}", work.name())))
        }
        Waited::Done(Ended::Somehow) => Err(Failure::new(
            Exit::Failed,
            format!("{} is not at work any more, and the history does not tell how it ended", work.name()),
        )
        .advise("`metactl region list` shows where the regions are.")),
        Waited::TimedOut(so_far) => goes_on(
            Exit::TimedOut,
            format!("{} has not ended within {} and goes on: {so_far}", work.name(), session.limit()),
        ),
        Waited::Interrupted(so_far) => goes_on(
            Exit::Failed,
            format!("interrupted: {} goes on without this command: {so_far}", work.name()),
        ),
    }
}

async fn look_for_end(session: &Session, work: Work) -> Result<Look<Ended>, ClientError> {
    let operations = session.looking_operations();
    let at_work = operations.procedures().await?.procedures;
    if let Some(view) = at_work.iter().find(|view| view.id == work.id()) {
        return Ok(Look::NotYet(progress(view)));
    }
    Ok(Look::Done(work.end(&operations.events(work.events()).await?)))
}

/// How far it is, in words. An estimate changes in steps, so that it is not said anew at every look.
fn progress(view: &ProcedureView) -> String {
    if view.kind != "drain" {
        return cell(&view.state);
    }
    let all = view.done.saturating_add(view.left);
    let mut text = format!("{} of {all} regions have left, {} are on their way", view.done, view.in_flight);
    if let Some(eta) = view.eta_ms.filter(|_| view.left > 0) {
        text.push_str(&format!(", {} to go", estimate(eta)));
    }
    if let Some(first) = view.stuck.first() {
        text.push_str(&format!(
            "; {} wait, region {}: {}",
            view.stuck.len(),
            first.region_id,
            cell(&first.why)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use metasrv_proto::admin::StuckRegion;

    use super::*;
    use crate::cli::Format;
    use crate::output::document;

    fn drain() -> ProcedureView {
        ProcedureView {
            id: 9,
            kind: "drain".to_owned(),
            from_node: 3,
            state: "moving".to_owned(),
            done: 12,
            left: 38,
            in_flight: 2,
            eta_ms: Some(21_000),
            ..ProcedureView::default()
        }
    }

    #[test]
    fn the_names_of_its_fields_stay() {
        let json = |view| document(&ProcedureRow::from(view), Format::Jsonl);
        assert_eq!(
            json(drain()).as_deref(),
            Ok(concat!(
                r#"{"procedure_id":9,"kind":"drain","cluster_id":0,"region_id":null,"from_node_id":3,"#,
                r#""to_node_id":null,"state":"moving","started_at":null,"reason":"","drain_id":null,"#,
                r#""done":12,"left":38,"in_flight":2,"eta_ms":21000,"stuck":[]}"#,
                "\n"
            ))
        );
        let migration = ProcedureView { kind: "migration".to_owned(), region_id: 7, ..drain() };
        let json = json(migration).unwrap();
        assert!(json.contains(r#""region_id":7"#) && json.contains(r#""done":null,"left":null"#), "{json}");
        let cancelled = document(&CancelRow { procedure_id: 9, cancelling: true }, Format::Jsonl);
        assert_eq!(cancelled.as_deref(), Ok("{\"procedure_id\":9,\"cancelling\":true}\n"));
    }

    #[test]
    fn progress_says_how_many_how_long_and_what_waits() {
        assert_eq!(progress(&drain()), "12 of 50 regions have left, 2 are on their way, about 25s to go");
        let stuck = vec![StuckRegion { region_id: 8, why: "no node may take it".to_owned() }];
        let waiting = progress(&ProcedureView { stuck, eta_ms: None, ..drain() });
        assert_eq!(
            waiting,
            "12 of 50 regions have left, 2 are on their way; 1 wait, region 8: no node may take it"
        );
    }

    /// Goal: how it ended is read from its own last event. Method: events of others around it, and its earlier ones.
    #[test]
    fn how_it_ended_is_in_its_own_last_event() {
        let event = |procedure_id, kind: &str| Event {
            procedure_id,
            kind: kind.to_owned(),
            why: "cancelled".to_owned(),
            ..Event::default()
        };
        let work = Work::Migration { id: 9, region: 7 };
        let events = [event(8, "migration_done"), event(9, "region_migrated"), event(9, "migration_done")];
        assert!(matches!(work.end(&events), Ended::Done));
        let events = [event(9, "migration_begun"), event(9, "migration_undone"), event(10, "migration_done")];
        assert!(matches!(work.end(&events), Ended::Undone(why) if why == "cancelled"));
        assert!(matches!(work.end(&[event(8, "migration_done")]), Ended::Somehow));
        assert!(matches!(Work::Drain { id: 9 }.end(&[event(9, "drain_done")]), Ended::Done));
    }
}
