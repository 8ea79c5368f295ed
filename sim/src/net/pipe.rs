//! One direction of one connection: what was sent and has not arrived, what has arrived and was not read, and how it ends.

use std::collections::VecDeque;
use std::task::Waker;

/// What may be under way or unread in one direction, like a socket's buffers.
const WINDOW: usize = 256 << 10;

/// How a direction ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The sender has closed it; what was sent before arrives.
    Closed,
    /// It is broken: nothing more arrives, and nothing can be sent.
    Reset,
}

pub struct Pipe {
    pub id: u64,
    pub from: String,
    pub to: String,
    /// By their times of arrival, which never decrease.
    under_way: VecDeque<(u64, Vec<u8>)>,
    arrived: VecDeque<u8>,
    unread: usize,
    closed_at: Option<u64>,
    end: Option<End>,
    /// Nothing arrives until the way is healed.
    held: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    reader_gone: bool,
}

impl Pipe {
    pub fn new(id: u64, from: &str, to: &str) -> Pipe {
        Pipe {
            id,
            from: from.to_owned(),
            to: to.to_owned(),
            under_way: VecDeque::new(),
            arrived: VecDeque::new(),
            unread: 0,
            closed_at: None,
            end: None,
            held: false,
            reader: None,
            writer: None,
            reader_gone: false,
        }
    }

    /// Room for so many bytes; where there is none, the writer is woken when there is.
    pub fn room(&mut self, waker: &Waker) -> Option<usize> {
        let room = WINDOW.saturating_sub(self.unread);
        if room == 0 {
            self.writer = Some(waker.clone());
        }
        (room > 0).then_some(room)
    }

    /// Whether a writer learns that nobody listens any more.
    pub fn is_broken(&self) -> bool {
        self.end == Some(End::Reset) || self.reader_gone
    }

    /// Takes bytes that arrive at this time, or after what was sent before; says when.
    pub fn send(&mut self, at: u64, bytes: &[u8]) -> u64 {
        let at = self.under_way.back().map_or(at, |(last, _)| at.max(*last));
        self.unread += bytes.len();
        self.under_way.push_back((at, bytes.to_vec()));
        at
    }

    /// The writer is done; says when the reader learns it.
    pub fn close(&mut self, at: u64) -> u64 {
        let at = self.under_way.back().map_or(at, |(last, _)| at.max(*last));
        self.closed_at.get_or_insert(at);
        at
    }

    /// The reader is gone. What it has not read makes its machine answer with a reset.
    pub fn abandon(&mut self) {
        self.reader_gone = true;
        self.arrived.clear();
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    pub fn end_now(&mut self, end: End, wakers: &mut Vec<Waker>) {
        self.end = Some(end);
        wakers.extend(self.reader.take());
        wakers.extend(self.writer.take());
    }

    pub fn hold(&mut self) {
        self.held = true;
    }

    pub fn is_held(&self) -> bool {
        self.held
    }

    pub fn release(&mut self) {
        self.held = false;
    }

    /// Hands over what has arrived by now.
    pub fn arrive(&mut self, now: u64, wakers: &mut Vec<Waker>) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        while self.under_way.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, chunk)) = self.under_way.pop_front() else { break };
            if self.reader_gone {
                self.unread = self.unread.saturating_sub(chunk.len());
            } else {
                self.arrived.extend(&chunk);
            }
            chunks.push(chunk);
        }
        if self.under_way.is_empty() && self.closed_at.is_some_and(|at| at <= now) {
            self.end.get_or_insert(End::Closed);
        }
        if !chunks.is_empty() || self.end.is_some() {
            wakers.extend(self.reader.take());
        }
        chunks
    }

    /// Whether neither end needs it any more.
    pub fn is_over(&self) -> bool {
        self.reader_gone && self.closed_at.is_some() && self.under_way.is_empty()
    }

    /// Moves up to `most` bytes out of what has arrived; none means that the reader has to wait. An empty answer is the end.
    pub fn read(&mut self, most: usize, waker: &Waker) -> Option<Result<Vec<u8>, End>> {
        if self.end == Some(End::Reset) {
            return Some(Err(End::Reset));
        }
        if self.arrived.is_empty() {
            if self.end == Some(End::Closed) {
                return Some(Ok(Vec::new()));
            }
            self.reader = Some(waker.clone());
            return None;
        }
        let take = most.min(self.arrived.len());
        let bytes: Vec<u8> = self.arrived.drain(..take).collect();
        self.unread = self.unread.saturating_sub(bytes.len());
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        Some(Ok(bytes))
    }
}
