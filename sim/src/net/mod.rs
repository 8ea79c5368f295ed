//! The network: connections are pairs of pipes, and what is written into one arrives later, or not.
//!
//! What the simulated processes speak is real HTTP/2, so faults are those of connections: bytes are late, a direction is
//! cut and what was sent comes after it heals (TCP sends it again), a connection is reset, an address refuses or is silent.
//! Bytes arrive at the beginning of a tick, so a process sees nothing of another one that runs in the same tick.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | hosts, listeners, links; the queue of what is under way |
//! | `pipe.rs` | one direction of one connection |
//! | `socket.rs` | an end of a connection, and the incoming ones, as processes see them |

mod pipe;
mod socket;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::trace::Trace;
pub use pipe::End;
use pipe::Pipe;
pub use socket::{Incoming, NetworkOf, PeerHost, Socket};

const MILLI: u64 = 1_000_000;

/// Nobody's SYN is sent again sooner.
const SYN_RETRY: u64 = 1_000 * MILLI;

/// How the links of one run behave.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The least time on the way, in microseconds.
    pub least_us: u64,
    /// The most, in microseconds.
    pub most_us: u64,
    /// Of a thousand chunks so many are lost and sent again.
    pub lost_per_mille: u32,
}

/// See the module.
#[derive(Clone)]
pub struct Net {
    state: Arc<Mutex<State>>,
}

struct State {
    now: u64,
    weather: Weather,
    random: StdRng,
    trace: Trace,
    listeners: BTreeMap<String, Listener>,
    /// Machines without power or network card: they answer nothing, and refuse nothing.
    dark: BTreeSet<String>,
    /// Directions in which nothing arrives.
    cut: BTreeSet<(String, String)>,
    /// Added to the time on the way, in nanoseconds.
    slow: BTreeMap<(String, String), u64>,
    pipes: BTreeMap<u64, Pipe>,
    next_pipe: u64,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
}

struct Listener {
    accepted: VecDeque<Socket>,
    waker: Option<Waker>,
}

enum Event {
    /// The next chunk of this pipe arrives.
    Arrival(u64),
    /// A connection is asked for.
    Syn(Arc<Mutex<Asked>>),
}

/// A connection that is being opened.
struct Asked {
    from: String,
    to: String,
    answer: Option<std::io::Result<Socket>>,
    waker: Option<Waker>,
    given_up: bool,
}

impl Net {
    /// A network without hosts.
    pub fn new(seed: u64, weather: Weather, trace: Trace) -> Net {
        let state = State {
            now: 0,
            weather,
            random: StdRng::seed_from_u64(seed),
            trace,
            listeners: BTreeMap::new(),
            dark: BTreeSet::new(),
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            pipes: BTreeMap::new(),
            next_pipe: 0,
            events: BTreeMap::new(),
            next_event: 0,
        };
        Net { state: Arc::new(Mutex::new(state)) }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is now; whatever should have arrived does.
    pub fn advance(&self, now: u64) {
        let mut state = self.locked();
        state.now = now;
        let mut wakers = Vec::new();
        while let Some(entry) = state.events.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Event::Arrival(pipe) => state.arrive(pipe, &mut wakers),
                Event::Syn(asked) => self.answer(&mut state, &asked, &mut wakers),
            }
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Nothing arrives any more from `from` at `to`, until it is healed.
    pub fn cut(&self, from: &str, to: &str) {
        self.locked().cut.insert((from.to_owned(), to.to_owned()));
    }

    /// What goes from `from` to `to` takes so much longer.
    pub fn slow(&self, from: &str, to: &str, nanos: u64) {
        self.locked().slow.insert((from.to_owned(), to.to_owned()), nanos);
    }

    /// Everything arrives again; what was held up comes within a few hundred milliseconds.
    pub fn heal(&self) {
        let mut state = self.locked();
        state.cut.clear();
        state.slow.clear();
        state.release();
    }

    /// The way from `from` to `to` is as good as ever.
    pub fn mend(&self, from: &str, to: &str) {
        let mut state = self.locked();
        let way = (from.to_owned(), to.to_owned());
        state.cut.remove(&way);
        state.slow.remove(&way);
        state.release();
    }

    /// Every connection between the two is reset.
    pub fn reset(&self, a: &str, b: &str) {
        self.end(|pipe| (pipe.from == a && pipe.to == b) || (pipe.from == b && pipe.to == a), End::Reset);
    }

    /// A machine answers nothing from now on, and nobody is told.
    pub fn darken(&self, host: &str) {
        self.locked().dark.insert(host.to_owned());
    }

    /// A machine is back; what is left of its old connections is reset.
    pub fn lighten(&self, host: &str) {
        self.locked().dark.remove(host);
        self.end(|pipe| pipe.from == host || pipe.to == host, End::Reset);
    }

    /// Bytes of all that was sent, for figures.
    pub fn open_pipes(&self) -> usize {
        self.locked().pipes.len()
    }

    fn end(&self, which: impl Fn(&Pipe) -> bool, end: End) {
        let mut state = self.locked();
        let mut wakers = Vec::new();
        for pipe in state.pipes.values_mut().filter(|pipe| which(pipe)) {
            pipe.end_now(end, &mut wakers);
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A SYN has arrived, or it has not.
    fn answer(&self, state: &mut State, asked: &Arc<Mutex<Asked>>, wakers: &mut Vec<Waker>) {
        let mut open = asked.lock().unwrap_or_else(PoisonError::into_inner);
        if open.given_up || open.answer.is_some() {
            return;
        }
        let host = open.to.split(':').next().unwrap_or_default().to_owned();
        let silent = state.is_cut(&open.from, &host) || state.is_cut(&host, &open.from);
        if silent {
            let at = state.now + SYN_RETRY;
            state.schedule(at, Event::Syn(Arc::clone(asked)));
            return;
        }
        let from = open.from.clone();
        if !state.listeners.contains_key(&open.to) {
            open.answer = Some(Err(std::io::ErrorKind::ConnectionRefused.into()));
        } else {
            let (there, back) = (state.pipe(&from, &host), state.pipe(&host, &from));
            let near = Socket::new(self.clone(), host.clone(), back, there);
            let far = Socket::new(self.clone(), from, there, back);
            if let Some(listener) = state.listeners.get_mut(&open.to) {
                listener.accepted.push_back(far);
                wakers.extend(listener.waker.take());
            }
            open.answer = Some(Ok(near));
        }
        wakers.extend(open.waker.take());
    }
}

impl State {
    /// What was held up and may arrive again is sent again.
    fn release(&mut self) {
        let held = self.pipes.values().filter(|pipe| pipe.is_held() && !self.is_cut(&pipe.from, &pipe.to));
        let held: Vec<u64> = held.map(|pipe| pipe.id).collect();
        for id in held {
            let at = self.now + self.random.random_range(1..300) * MILLI;
            if let Some(pipe) = self.pipes.get_mut(&id) {
                pipe.release();
            }
            self.schedule(at, Event::Arrival(id));
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    fn is_cut(&self, from: &str, to: &str) -> bool {
        let away = self.dark.contains(from) || self.dark.contains(to);
        away || (!self.cut.is_empty() && self.cut.contains(&(from.to_owned(), to.to_owned())))
    }

    /// Time on the way from now on. A host reaches itself at once.
    fn way(&mut self, from: &str, to: &str) -> u64 {
        if from == to {
            return 1;
        }
        let Weather { least_us, most_us, lost_per_mille } = self.weather;
        let mut way = self.random.random_range(least_us..=most_us) * 1_000;
        if lost_per_mille > 0 && self.random.random_range(0..1_000) < lost_per_mille {
            way += 200 * MILLI;
        }
        if !self.slow.is_empty() {
            way += self.slow.get(&(from.to_owned(), to.to_owned())).copied().unwrap_or(0);
        }
        way
    }

    fn pipe(&mut self, from: &str, to: &str) -> u64 {
        self.next_pipe += 1;
        let id = self.next_pipe;
        self.pipes.insert(id, Pipe::new(id, from, to));
        id
    }

    fn arrive(&mut self, id: u64, wakers: &mut Vec<Waker>) {
        let Some(pipe) = self.pipes.get(&id) else { return };
        let cut = self.is_cut(&pipe.from, &pipe.to);
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if cut {
            pipe.hold();
            return;
        }
        if pipe.is_held() {
            return;
        }
        for chunk in pipe.arrive(self.now, wakers) {
            self.trace.chunk(self.now, id, &chunk);
        }
        // What comes later has an event of its own.
        if pipe.is_over() {
            self.pipes.remove(&id);
        }
    }
}
