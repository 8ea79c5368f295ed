//! What the playground looks like: a snapshot goes in, text comes out. Pure.
//!
//! On a terminal a frame is drawn in place. Each of its lines is cut by the terminal rather than wrapped, so that a
//! frame has as many rows as lines, whatever the width. Elsewhere the same snapshot is one line.

use std::fmt::Write as _;
use std::time::Duration;

use super::child::State;
use super::chronicle::{Event, seconds};

/// Lines of a frame that are neither processes nor events.
const FIXED_LINES: usize = 11;
/// Events are shown if there is room for them; so many even if datanodes have to be summed up for it.
const LEAST_EVENTS: usize = 3;

/// Whether text is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colours {
    /// It is.
    On,
    /// It is not: no terminal, or NO_COLOR.
    Off,
}

/// Everything that is shown at one moment.
#[derive(Clone, Default, Debug)]
pub struct Snapshot {
    /// Since the start.
    pub elapsed: Duration,
    /// What the playground is about.
    pub doing: String,
    /// Who leads, and its term.
    pub leader: Option<(String, u64)>,
    /// Heartbeats answered per second.
    pub heartbeats: Option<f64>,
    /// Regions writable, and regions, as the leader says.
    pub regions: Option<(u64, u64)>,
    /// Replicas up, and replicas.
    pub replicas_up: (usize, usize),
    /// Datanodes with a stream to the leader, and datanodes.
    pub datanodes_connected: (usize, usize),
    /// The processes, from the bottom up.
    pub rows: Vec<Row>,
    /// The last events, oldest first.
    pub events: Vec<Event>,
    /// What to type elsewhere.
    pub hints: Vec<String>,
}

/// A process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What it is.
    pub what: &'static str,
    /// What it does.
    pub state: State,
    /// What it is in the cluster: leader, follower, connected.
    pub role: String,
    /// Regions that it may write to, and regions, where it has some.
    pub regions: Option<(u64, u64)>,
    /// Where it speaks gRPC.
    pub addr: String,
}

/// The whole picture, line by line, for a terminal of so many rows. It leaves one for the cursor.
pub fn frame(snapshot: &Snapshot, colours: Colours, height: usize) -> Vec<String> {
    let paint = Paint(colours);
    let room = height.saturating_sub(FIXED_LINES + 1);
    let (datanodes, others): (Vec<&Row>, Vec<&Row>) =
        snapshot.rows.iter().partition(|row| row.what == "datanode");
    let datanode_room = room.saturating_sub(others.len() + LEAST_EVENTS.min(snapshot.events.len()));
    let mut lines = vec![
        format!("{}  {}", paint.bold("metasrv playground"), headline(snapshot)),
        figures(snapshot, &paint),
        String::new(),
        paint.dim(&format!(
            "{:<5}{:<10}{:<9}{:<18}{:<18}{}",
            "NAME", "WHAT", "STATE", "ROLE", "REGIONS WRITABLE", "GRPC"
        )),
    ];
    lines.extend(others.iter().map(|row| table_row(row, &paint)));
    let shown =
        if datanodes.len() <= datanode_room { datanodes.len() } else { datanode_room.saturating_sub(1) };
    lines.extend(datanodes.iter().take(shown).map(|row| table_row(row, &paint)));
    lines.extend(summed_up(&datanodes[shown..]));
    let event_room = room.saturating_sub(lines.len().saturating_sub(4));
    lines.push(String::new());
    lines.push(paint.dim("WHAT JUST HAPPENED"));
    let events = snapshot.events.iter().skip(snapshot.events.len().saturating_sub(event_room));
    lines.extend(events.map(|event| format!("{}  {}", paint.dim(&stamp(event.at)), event.text)));
    lines.push(String::new());
    lines.push(paint.dim("FROM A SECOND TERMINAL"));
    lines.extend(snapshot.hints.iter().cloned());
    lines.truncate(height.saturating_sub(1));
    lines
}

/// One line for the datanodes for which there is no room.
fn summed_up(datanodes: &[&Row]) -> Option<String> {
    let (first, last) = (datanodes.first()?, datanodes.last()?);
    let up = datanodes.iter().filter(|row| row.state == State::Up).count();
    let (mut writable, mut regions) = (0, 0);
    for (its_writable, its_regions) in datanodes.iter().filter_map(|row| row.regions) {
        writable += its_writable;
        regions += its_regions;
    }
    Some(format!("{} to {}: {up} up, {writable} of {regions} regions writable", first.name, last.name))
}

/// The whole picture as one line.
pub fn line(snapshot: &Snapshot) -> String {
    let (up, replicas) = snapshot.replicas_up;
    let (connected, datanodes) = snapshot.datanodes_connected;
    format!(
        "{}  {}, {up}/{replicas} replicas up, {connected}/{datanodes} datanodes connected, {}, {}",
        stamp(snapshot.elapsed),
        leader(snapshot),
        regions(snapshot),
        heartbeats(snapshot)
    )
}

/// What of the line is worth another line when it changes: everything but time and rate.
pub fn gist(snapshot: &Snapshot) -> String {
    let counts = (snapshot.replicas_up, snapshot.datanodes_connected);
    format!("{} {counts:?} {}", leader(snapshot), regions(snapshot))
}

/// An event as a line of its own.
pub fn event_line(event: &Event) -> String {
    format!("{}  * {}", stamp(event.at), event.text)
}

fn stamp(at: Duration) -> String {
    format!("{:>+7.1}s", at.as_secs_f64())
}

fn headline(snapshot: &Snapshot) -> String {
    format!("{}, for {}; Ctrl-C ends it", snapshot.doing, seconds(snapshot.elapsed))
}

fn leader(snapshot: &Snapshot) -> String {
    match &snapshot.leader {
        Some((name, term)) => format!("leader {name} (term {term})"),
        None => "no leader".to_owned(),
    }
}

fn regions(snapshot: &Snapshot) -> String {
    match snapshot.regions {
        Some((writable, regions)) => format!("regions writable {writable}/{regions}"),
        None => "regions unknown".to_owned(),
    }
}

fn heartbeats(snapshot: &Snapshot) -> String {
    match snapshot.heartbeats {
        Some(rate) => format!("{rate:.1} heartbeats/s"),
        None => "- heartbeats/s".to_owned(),
    }
}

fn figures(snapshot: &Snapshot, paint: &Paint) -> String {
    let leader = match snapshot.leader {
        Some(_) => paint.good(&leader(snapshot)),
        None => paint.bad(&leader(snapshot)),
    };
    let regions = match snapshot.regions {
        Some((writable, all)) if writable == all && all > 0 => paint.good(&regions(snapshot)),
        Some(_) => paint.bad(&regions(snapshot)),
        None => regions(snapshot),
    };
    format!("{leader}   {regions}   {}", heartbeats(snapshot))
}

fn table_row(row: &Row, paint: &Paint) -> String {
    // Colour comes after padding: its codes take no room on the screen.
    let state = format!("{:<9}", row.state.name());
    let state = match row.state {
        State::Up => paint.good(&state),
        State::Waiting => paint.dim(&state),
        State::Paused => paint.odd(&state),
        State::Killed | State::Ended => paint.bad(&state),
    };
    let role = format!("{:<18}", row.role);
    let role = if row.role.starts_with("leader") { paint.bold(&role) } else { role };
    let regions =
        row.regions.map(|(writable, regions)| format!("{writable} of {regions}")).unwrap_or_default();
    let mut line = String::new();
    // Writing to a string does not fail.
    let _ = write!(line, "{:<5}{:<10}{state}{role}{regions:<18}{}", row.name, row.what, row.addr);
    line
}

/// Puts colours around text, or not.
struct Paint(Colours);

impl Paint {
    fn code(&self, code: &str, text: &str) -> String {
        match self.0 {
            Colours::On => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Colours::Off => text.to_owned(),
        }
    }

    fn bold(&self, text: &str) -> String {
        self.code("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.code("2", text)
    }

    fn good(&self, text: &str) -> String {
        self.code("32", text)
    }

    fn odd(&self, text: &str) -> String {
        self.code("33", text)
    }

    fn bad(&self, text: &str) -> String {
        self.code("31", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, what: &'static str, state: State, role: &str, regions: Option<(u64, u64)>) -> Row {
        let addr = "127.0.0.1:61000".to_owned();
        Row { name: name.to_owned(), what, state, role: role.to_owned(), regions, addr }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            elapsed: Duration::from_millis(12_340),
            doing: "running".to_owned(),
            leader: Some(("m2".to_owned(), 3)),
            heartbeats: Some(3.02),
            regions: Some((8, 12)),
            replicas_up: (2, 3),
            datanodes_connected: (2, 3),
            rows: vec![
                row("e1", "etcd", State::Up, "", None),
                row("m1", "metasrv", State::Killed, "", None),
                row("m2", "metasrv", State::Up, "leader (term 3)", None),
                row("d1", "datanode", State::Up, "connected", Some((4, 4))),
                row("d2", "datanode", State::Paused, "not connected", Some((0, 4))),
            ],
            events: vec![Event { at: Duration::from_secs(9), text: "m1 was killed".to_owned() }],
            hints: vec!["metasrv playground ls".to_owned()],
        }
    }

    #[test]
    fn without_colours_a_frame_is_plain_text() {
        let lines = frame(&snapshot(), Colours::Off, 24);
        let expected = "\
metasrv playground  running, for 12.3 s; Ctrl-C ends it
leader m2 (term 3)   regions writable 8/12   3.0 heartbeats/s

NAME WHAT      STATE    ROLE              REGIONS WRITABLE  GRPC
e1   etcd      up                                           127.0.0.1:61000
m1   metasrv   killed                                       127.0.0.1:61000
m2   metasrv   up       leader (term 3)                     127.0.0.1:61000
d1   datanode  up       connected         4 of 4            127.0.0.1:61000
d2   datanode  paused   not connected     0 of 4            127.0.0.1:61000

WHAT JUST HAPPENED
   +9.0s  m1 was killed

FROM A SECOND TERMINAL
metasrv playground ls";
        assert_eq!(lines.join("\n"), expected);
    }

    #[test]
    fn colours_change_nothing_but_the_colour() {
        let plain = frame(&snapshot(), Colours::Off, 24).join("\n");
        let mut coloured = frame(&snapshot(), Colours::On, 24).join("\n");
        assert!(coloured.contains("\u{1b}[31mkilled"), "{coloured}");
        for code in ["0", "1", "2", "31", "32", "33"] {
            coloured = coloured.replace(&format!("\u{1b}[{code}m"), "");
        }
        assert_eq!(coloured, plain);
    }

    #[test]
    fn a_frame_fits_on_its_terminal_whatever_there_is_to_show() {
        let mut snapshot = snapshot();
        let datanode = |id: u32| row(&format!("d{id}"), "datanode", State::Up, "connected", Some((1, 2)));
        snapshot.rows = (1..=30).map(datanode).collect();
        snapshot.hints = vec!["metasrv playground ls".to_owned(); 3];
        let event = |second| Event { at: Duration::from_secs(second), text: "m1 was killed".to_owned() };
        snapshot.events = (1..=12).map(event).collect();
        let lines = frame(&snapshot, Colours::Off, 24);
        assert_eq!(lines.len(), 23, "{lines:#?}");
        assert!(lines.contains(&"d9 to d30: 22 up, 22 of 44 regions writable".to_owned()), "{lines:#?}");
        assert_eq!(lines.iter().filter(|line| line.contains("was killed")).count(), LEAST_EVENTS);
        assert!(lines.iter().any(|line| line.contains("+12.0s")), "the last events are shown");
        let tall = frame(&snapshot, Colours::Off, 60);
        assert_eq!(tall.len(), FIXED_LINES + 30 + 12, "there is room for everything");
        for height in 0..60 {
            assert!(frame(&snapshot, Colours::Off, height).len() < height.max(1), "{height}");
        }
    }

    #[test]
    fn elsewhere_it_is_one_line() {
        let mut snapshot = snapshot();
        assert_eq!(
            line(&snapshot),
            "  +12.3s  leader m2 (term 3), 2/3 replicas up, 2/3 datanodes connected, regions writable 8/12, \
             3.0 heartbeats/s"
        );
        let before = gist(&snapshot);
        snapshot.elapsed += Duration::from_secs(1);
        snapshot.heartbeats = None;
        assert_eq!(gist(&snapshot), before, "time and rate alone are no change");
        (snapshot.leader, snapshot.regions) = (None, None);
        assert_ne!(gist(&snapshot), before);
        assert!(line(&snapshot).contains("no leader"), "{}", line(&snapshot));
    }
}
