//! `metactl events`: what was decided, the oldest first; with `--follow` what is decided from now on, too.
//!
//! Ids of events grow with time, and an event may come to be seen a moment after one with a higher id, because an id is
//! taken before its transaction is committed. Following asks a little further back than what it has seen, and leaves out
//! what it has shown: so far back as what it had seen some seconds ago, so that it asks for nothing twice where nothing happens.

use std::collections::BTreeMap;
use std::time::Duration;

use metasrv::clock::{SystemClock, wall_clock_ms};
use metasrv_core::time::{BootTime, Clock as _};
use metasrv_proto::admin::{Event, ListEventsRequest};
use serde::Serialize;

use crate::cli::{Events, Format};
use crate::exit::{Exit, Failure};
use crate::node::order::millis;
use crate::output::{Column, Row, Shown, document, print, print_list, say};
use crate::session::Session;
use crate::text::{Moment, cell, count, unless_zero};

/// Between two looks for new events.
const PAUSE: Duration = Duration::from_millis(500);

/// How many ids an event may be late by. A term's commits are made one after another; this is thousands of times what two of
/// them were seen to be apart.
const LATE: u64 = 1_000;

/// How long an event may be late by: a transaction whose answer does not come is sent again, and a leader that cannot commit
/// for so long does not lead any more.
const LATE_FOR: Duration = Duration::from_secs(15);

/// The most that one answer holds.
const MOST: u32 = 10_000;

/// One decision.
#[derive(Serialize)]
pub struct EventRow {
    id: u64,
    term: u64,
    at: Moment,
    kind: String,
    cluster_id: u64,
    /// Null: it is about none.
    region_id: Option<u64>,
    node_id: Option<u64>,
    from_node_id: Option<u64>,
    epoch: Option<u64>,
    procedure_id: Option<u64>,
    why: String,
}

impl Row for EventRow {
    const COLUMNS: &'static [Column<EventRow>] = &[
        Column { title: "AT", shown: Shown::Always, cell: |event, _| event.at.clock() },
        Column { title: "WHAT", shown: Shown::Always, cell: |event, _| cell(&event.kind) },
        Column { title: "REGION", shown: Shown::Always, cell: |event, _| count(event.region_id) },
        Column { title: "NODE", shown: Shown::Always, cell: |event, _| count(event.node_id) },
        Column { title: "FROM", shown: Shown::Always, cell: |event, _| count(event.from_node_id) },
        Column { title: "EPOCH", shown: Shown::Always, cell: |event, _| count(event.epoch) },
        Column { title: "TERM", shown: Shown::Wide, cell: |event, _| event.term.to_string() },
        Column { title: "PROCEDURE", shown: Shown::Wide, cell: |event, _| count(event.procedure_id) },
        Column { title: "CLUSTER", shown: Shown::Wide, cell: |event, _| event.cluster_id.to_string() },
        Column { title: "ID", shown: Shown::Wide, cell: |event, _| event.id.to_string() },
        Column { title: "WHY", shown: Shown::Always, cell: |event, _| cell(&event.why) },
    ];
}

impl From<Event> for EventRow {
    fn from(event: Event) -> EventRow {
        EventRow {
            id: event.id,
            term: event.term,
            at: Moment(event.at_ms),
            kind: event.kind,
            cluster_id: event.cluster_id,
            region_id: unless_zero(event.region_id),
            node_id: unless_zero(event.node_id),
            from_node_id: unless_zero(event.from_node_id),
            epoch: unless_zero(event.epoch),
            procedure_id: unless_zero(event.procedure_id),
            why: event.why,
        }
    }
}

impl EventRow {
    /// On a line of its own: while events come one by one, columns have no common width.
    fn line(&self) -> String {
        let mut line = format!("{}  {}", self.at.clock(), cell(&self.kind));
        let parts = [
            ("region", self.region_id),
            ("from node", self.from_node_id),
            ("node", self.node_id),
            ("epoch", self.epoch),
            ("procedure", self.procedure_id),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                line.push_str(&format!("  {name} {value}"));
            }
        }
        if !self.why.is_empty() {
            line.push_str(&format!("  ({})", cell(&self.why)));
        }
        line.push('\n');
        line
    }
}

/// Lists them; on request goes on with new ones.
pub async fn events(session: &Session, wanted: Events) -> Result<(), Failure> {
    if wanted.follow && session.format == Format::Json {
        return Err(Failure::new(Exit::Usage, "--follow never ends, and a JSON array does")
            .advise("Take -o jsonl: one object for each event."));
    }
    let mut events = session.operations().events(request(&wanted, 0)).await?;
    let seen = Seen::begin(&events, SystemClock.now());
    if let Some(since) = wanted.since {
        let first_ms = wall_clock_ms().saturating_sub(millis(since));
        events.retain(|event| event.at_ms >= first_ms);
    }
    if !wanted.follow {
        return print_list(&rows(events), session.format);
    }
    let left_out = events.len().saturating_sub(shown_at_first(&wanted));
    follow(session, &wanted, seen, events.split_off(left_out)).await
}

/// How many events that were there before it begins to follow.
fn shown_at_first(wanted: &Events) -> usize {
    let limit = wanted.limit.unwrap_or(if wanted.since.is_some() { MOST } else { 10 });
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn rows(events: Vec<Event>) -> Vec<EventRow> {
    events.into_iter().map(EventRow::from).collect()
}

/// The latest ones; or, after an id, the next ones. Whoever follows asks for all, to know what is not new.
fn request(wanted: &Events, after: u64) -> ListEventsRequest {
    let limit = match wanted.limit {
        _ if wanted.follow => MOST,
        Some(limit) => limit,
        None if wanted.since.is_some() => MOST,
        None => 1_000,
    };
    ListEventsRequest {
        after,
        region_id: wanted.region.unwrap_or_default(),
        node_id: wanted.node.unwrap_or_default(),
        limit,
    }
}

async fn follow(
    session: &Session,
    wanted: &Events,
    mut seen: Seen,
    mut new: Vec<Event>,
) -> Result<(), Failure> {
    let (mut said, mut after) = (None, seen.after());
    loop {
        let text: String = new
            .into_iter()
            .map(EventRow::from)
            .map(|row| match session.format {
                Format::Json | Format::Jsonl => document(&row, Format::Jsonl),
                Format::Table | Format::Wide => Ok(row.line()),
            })
            .collect::<Result<_, Failure>>()?;
        print(&text)?;
        new = match session.again().operations().events(request(wanted, after)).await {
            Ok(events) => {
                said = None;
                if let Some(last) = events.last() {
                    // There may be more than one answer holds.
                    after = last.id;
                } else {
                    tokio::time::sleep(PAUSE).await;
                    after = seen.after();
                }
                seen.take(events, SystemClock.now())
            }
            Err(error) => {
                let text = error.to_string();
                if said.as_ref() != Some(&text) {
                    say(&format!("waiting: {text}"));
                }
                said = Some(text);
                tokio::time::sleep(PAUSE).await;
                Vec::new()
            }
        };
    }
}

/// What was shown.
#[derive(Default)]
struct Seen {
    /// All ids above the one to ask after, and when each was shown.
    ids: BTreeMap<u64, BootTime>,
    after: u64,
}

impl Seen {
    /// With the latest events. What is older than they is not new, whatever its id.
    fn begin(events: &[Event], now: BootTime) -> Seen {
        let mut seen =
            Seen { after: events.first().map_or(0, |first| first.id.saturating_sub(1)), ..Seen::default() };
        seen.take(events.to_vec(), now);
        seen
    }

    /// From which id on to ask. 1 where nothing was seen: 0 would ask for the latest ones.
    fn after(&self) -> u64 {
        self.after.max(1)
    }

    /// Those of them that were not shown yet. Several events of one transaction have the same id and come together.
    fn take(&mut self, events: Vec<Event>, now: BootTime) -> Vec<Event> {
        let new: Vec<Event> = events
            .into_iter()
            .filter(|event| event.id > self.after && !self.ids.contains_key(&event.id))
            .collect();
        for event in &new {
            self.ids.entry(event.id).or_insert(now);
        }
        let settled = self.ids.iter().filter(|(_, shown)| now.since(**shown) >= LATE_FOR).map(|(id, _)| *id);
        let far = self.ids.keys().next_back().map(|last| last.saturating_sub(LATE));
        self.after = settled.chain(far).fold(self.after, u64::max);
        self.ids = self.ids.split_off(&self.after.saturating_add(1));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::table;

    fn event(id: u64) -> Event {
        Event {
            id,
            term: 2,
            at_ms: 1_700_000_000_123,
            kind: "region_failed_over".to_owned(),
            region_id: 7,
            node_id: 3,
            from_node_id: 1,
            epoch: 4,
            why: "node 1 was lost".to_owned(),
            ..Event::default()
        }
    }

    #[test]
    fn the_names_of_its_fields_stay() {
        let json = document(&EventRow::from(event(5)), Format::Jsonl);
        assert_eq!(
            json.as_deref(),
            Ok(concat!(
                r#"{"id":5,"term":2,"at":"2023-11-14T22:13:20.123Z","kind":"region_failed_over","cluster_id":0,"#,
                r#""region_id":7,"node_id":3,"from_node_id":1,"epoch":4,"procedure_id":null,"#,
                r#""why":"node 1 was lost"}"#,
                "\n"
            ))
        );
    }

    #[test]
    fn a_table_has_the_time_itself_and_a_line_says_all_that_is_known() {
        let shown = table(&rows(vec![event(5)]), Format::Table, 0);
        assert!(shown.contains("2023-11-14T22:13:20Z  region_failed_over  7       3     1     4"), "{shown}");
        let line = EventRow::from(Event { node_id: 0, why: "a\nb".to_owned(), ..event(5) }).line();
        let expected = "2023-11-14T22:13:20Z  region_failed_over  region 7  from node 1  epoch 4  (a\\nb)\n";
        assert_eq!(line, expected);
    }

    /// Goal: each event is shown once, also one that is seen after one with a higher id. Method: answers that overlap.
    #[test]
    fn an_event_is_shown_once_and_a_late_one_too() {
        let mut seen = Seen::default();
        assert_eq!(seen.after(), 1);
        let ids = |events: Vec<Event>| events.into_iter().map(|event| event.id).collect::<Vec<_>>();
        let (term, now) = (2 << 32, BootTime::from_millis(1_000));
        assert_eq!(
            ids(seen.take(vec![event(term), event(term + 2), event(term + 2)], now)),
            [term, term + 2, term + 2]
        );
        assert_eq!(ids(seen.take(vec![event(term + 1), event(term + 2)], now)), [term + 1]);
        assert!(seen.after() < term, "late ones are asked for");
        let far = term + 5_000;
        assert_eq!(ids(seen.take(vec![event(far)], now)), [far]);
        assert_eq!((seen.after(), seen.ids.len()), (far - LATE, 1), "what is remembered is bounded");
        assert_eq!(ids(seen.take(vec![event(far), event(far - 1)], now)), [far - 1]);
    }

    /// Goal: where nothing happens, nothing is asked for twice. Method: the same answer again and again, until it is old.
    #[test]
    fn what_was_seen_some_seconds_ago_is_not_asked_for_again() {
        let term = 2 << 32;
        let mut seen = Seen::default();
        let begin = BootTime::from_millis(1_000);
        assert_eq!(seen.take(vec![event(term), event(term + 1)], begin).len(), 2);
        assert_eq!(seen.take(vec![event(term + 3)], begin + LATE_FOR / 2).len(), 1);
        assert!(seen.take(vec![event(term), event(term + 1), event(term + 3)], begin + LATE_FOR).is_empty());
        assert_eq!(seen.after(), term + 1, "what came later may still be overtaken");
        assert_eq!(seen.take(vec![event(term + 2)], begin + LATE_FOR).len(), 1, "as by this one");
        assert!(seen.take(Vec::new(), begin + LATE_FOR * 2).is_empty());
        assert_eq!((seen.after(), seen.ids.len()), (term + 3, 0));
    }

    #[test]
    fn what_was_there_before_is_not_new() {
        let now = BootTime::from_millis(1_000);
        let mut seen = Seen::begin(&[event(500), event(501)], now);
        assert!(seen.take(vec![event(3), event(499), event(500), event(501)], now).is_empty());
        assert_eq!(seen.take(vec![event(502)], now).len(), 1);
        let mut nothing = Seen::begin(&[], now);
        assert_eq!((nothing.after(), nothing.take(vec![event(2)], now).len()), (1, 1));
    }

    #[test]
    fn the_limit_depends_on_what_is_asked_for() {
        let wanted = |follow, since, limit| Events { follow, since, region: Some(7), node: None, limit };
        let limit = |wanted: &Events| request(wanted, 0).limit;
        assert_eq!(limit(&wanted(false, None, None)), 1_000);
        assert_eq!(limit(&wanted(false, Some(PAUSE), None)), MOST);
        assert_eq!(limit(&wanted(false, Some(PAUSE), Some(3))), 3);
        assert_eq!(limit(&wanted(true, None, Some(3))), MOST, "it must know all that is not new");
        assert_eq!(shown_at_first(&wanted(true, None, None)), 10);
        assert_eq!(shown_at_first(&wanted(true, None, Some(3))), 3);
        assert_eq!(request(&wanted(true, None, None), 5).region_id, 7);
    }
}
