//! What happened, twice: as a hash of everything, which two runs of one seed share, and as the last lines, for people.
//!
//! The hash takes in every chunk that arrives anywhere, with its time and its bytes, and every line that a process logs.
//! The lines are those that the processes log themselves, and what the simulation does to them.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::host;

const MILLI: u64 = 1_000_000;

/// Lines that one tick may have.
const MOST_AT_ONCE: u32 = 5_000;

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Trace {
    state: Arc<Mutex<State>>,
}

struct State {
    now: u64,
    hash: DefaultHasher,
    chunks: u64,
    lines: VecDeque<String>,
    /// Lines since time went on last.
    at_once: u32,
    most: usize,
    echo: bool,
}

impl Trace {
    /// Keeps so many lines; with `echo` it also prints each.
    pub fn new(most: usize, echo: bool) -> Trace {
        // Its keys are constants: two runs get the same hash.
        let state = State {
            now: 0,
            hash: DefaultHasher::new(),
            chunks: 0,
            lines: VecDeque::new(),
            at_once: 0,
            most,
            echo,
        };
        Trace { state: Arc::new(Mutex::new(state)) }
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut State) -> T) -> T {
        use_it(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It is now, in nanoseconds of true time.
    pub fn advance(&self, now: u64) {
        self.with(|state| {
            state.now = now;
            state.at_once = 0;
        });
    }

    /// A chunk has arrived.
    pub fn chunk(&self, now: u64, pipe: u64, bytes: &[u8]) {
        self.with(|state| {
            state.chunks += 1;
            (now, pipe, bytes).hash(&mut state.hash);
        });
    }

    /// Something that is worth a line.
    pub fn say(&self, who: &str, what: &str) {
        self.with(|state| {
            state.at_once += 1;
            let millis = state.now / MILLI;
            let line = format!("{:>4}.{:03} {who:<9} {what}", millis / 1_000, millis % 1_000);
            line.hash(&mut state.hash);
            if state.echo {
                println!("{line}");
            }
            if state.lines.len() >= state.most {
                state.lines.pop_front();
            }
            state.lines.push_back(line);
        });
    }

    /// Whether so much is said in one tick that it will never end.
    fn is_endless(&self) -> bool {
        self.with(|state| state.at_once > MOST_AT_ONCE)
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.with(|state| state.hash.finish())
    }

    /// How many chunks have arrived.
    pub fn chunks(&self) -> u64 {
        self.with(|state| state.chunks)
    }

    /// The last lines.
    pub fn lines(&self) -> Vec<String> {
        self.with(|state| state.lines.iter().cloned().collect())
    }
}

/// Takes the lines that processes log into the trace. Spans say nothing here.
pub struct Lines {
    trace: Trace,
    level: Level,
}

impl Lines {
    /// Lines of this level and more important ones.
    pub fn new(trace: Trace, level: Level) -> Lines {
        Lines { trace, level }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() <= self.level
            && ["metasrv", "datanode"].iter().any(|ours| metadata.target().starts_with(ours))
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { text: String::new(), fields: String::new() };
        event.record(&mut line);
        let level = event.metadata().level();
        let text = format!("{level:>5} {}{}", line.text, line.fields);
        self.trace.say(&host::running(), &text);
        // A loop that never waits never lets time go on; this ends it, and fails the run.
        assert!(!self.trace.is_endless(), "a loop without a pause says {text}");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line {
    text: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
