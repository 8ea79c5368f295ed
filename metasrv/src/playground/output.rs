//! Where the picture goes: drawn in place on a terminal, line by line elsewhere.
//!
//! Writing may block for as long as nobody reads: Ctrl-S on a terminal, a pager on a pipe. The processes must be looked
//! after meanwhile, so a thread of the runtime's pool writes, one text at a time, and what is drawn meanwhile is left
//! out.

use std::io::{IsTerminal as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use metasrv_core::time::{BootTime, Clock as _};
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::chronicle::Event;
use super::screen::{self, Colours, Snapshot};
use crate::clock::SystemClock;
use crate::logging;

/// Between two frames.
const FRAME: Duration = Duration::from_millis(250);
/// Between two lines at least.
const LINE_AT_LEAST: Duration = Duration::from_secs(1);
/// Between two lines at most: whoever follows a log sees that it goes on.
const LINE_AT_MOST: Duration = Duration::from_secs(5);
/// Lines that nobody reads are kept up to this size, in bytes: hours of them.
const LARGEST_PENDING: usize = 1 << 20;
/// The end waits so long for somebody to read.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// Rows of a terminal that does not say how many it has.
const USUAL_HEIGHT: usize = 24;
/// `stty` answers at once or not at all.
const STTY_PATIENCE: Duration = Duration::from_secs(1);

/// To the start of the line, and lines are cut and not wrapped.
const CUT_LINES: &str = "\r\u{1b}[?7l";
/// Lines are wrapped again.
const WRAP_LINES: &str = "\u{1b}[?7h";
/// The rest of this line goes.
const CLEAR_LINE: &str = "\u{1b}[K";
/// Everything below goes.
const CLEAR_BELOW: &str = "\u{1b}[J";

/// How it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Style {
    /// Drawn over the last one.
    Frames(Colours),
    /// One below the other.
    Lines,
}

/// Standard output.
pub struct Output {
    style: Style,
    pending: String,
    writing: Option<JoinHandle<std::io::Result<()>>>,
    broken: bool,
    /// Lines of the frame that the next one is drawn over.
    drawn: usize,
    /// Rows of the terminal.
    height: usize,
    shown_at: Option<BootTime>,
    shown_gist: String,
}

impl Output {
    /// Frames on a terminal that can draw, lines elsewhere.
    pub fn new() -> Output {
        let draws =
            std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let style = match (draws, logging::colours(draws)) {
            (true, true) => Style::Frames(Colours::On),
            (true, false) => Style::Frames(Colours::Off),
            (false, _) => Style::Lines,
        };
        Output {
            style,
            pending: String::new(),
            writing: None,
            broken: false,
            drawn: 0,
            height: USUAL_HEIGHT,
            shown_at: None,
            shown_gist: String::new(),
        }
    }

    /// Asks the terminal for its height: at the start, and whenever it changes. A frame that is higher than its
    /// terminal cannot be drawn over.
    pub async fn measure(&mut self) {
        if matches!(self.style, Style::Frames(_)) {
            self.height = terminal_height().await.unwrap_or(USUAL_HEIGHT);
            // What was pushed out of a terminal that became smaller cannot be drawn over.
            self.drawn = self.drawn.min(self.height.saturating_sub(1));
        }
    }

    /// Shows the snapshot, if it is time for it. Events that are new since the last call are always shown.
    pub fn show(&mut self, snapshot: &Snapshot, fresh: &[Event]) {
        let now = SystemClock.now();
        let since = self.shown_at.map_or(Duration::MAX, |shown| now.since(shown));
        match self.style {
            Style::Frames(colours) => {
                if (since >= FRAME || !fresh.is_empty()) && !self.is_busy() {
                    self.draw(&screen::frame(snapshot, colours, self.height));
                    self.shown_at = Some(now);
                }
            }
            Style::Lines => {
                for event in fresh {
                    self.push(&screen::event_line(event));
                }
                let gist = screen::gist(snapshot);
                let changed = gist != self.shown_gist;
                if (changed && since >= LINE_AT_LEAST) || since >= LINE_AT_MOST {
                    self.push(&screen::line(snapshot));
                    (self.shown_at, self.shown_gist) = (Some(now), gist);
                }
            }
        }
        self.pump();
    }

    /// Adds a line below everything shown so far. The next frame begins below it.
    pub fn say(&mut self, text: &str) {
        self.drawn = 0;
        if matches!(self.style, Style::Frames(_)) {
            // The terminal echoes Ctrl-C there.
            self.pending.push('\r');
            self.pending.push_str(CLEAR_LINE);
        }
        self.push(text);
        self.pump();
    }

    /// Whether nobody reads any more: the other end of the pipe is closed.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Waits until everything is written, but not for ever.
    pub async fn flush(&mut self) {
        let flushing = async {
            while self.is_busy() && !self.broken {
                tokio::time::sleep(Duration::from_millis(5)).await;
                self.pump();
            }
        };
        // Whoever does not read does not miss it.
        let _ = tokio::time::timeout(FLUSH_PATIENCE, flushing).await;
    }

    fn is_busy(&mut self) -> bool {
        self.pump();
        self.writing.is_some() || !self.pending.is_empty()
    }

    fn push(&mut self, line: &str) {
        if self.pending.len() < LARGEST_PENDING {
            self.pending.push_str(line);
            self.pending.push('\n');
        }
    }

    fn draw(&mut self, lines: &[String]) {
        self.pending.push_str(CUT_LINES);
        if self.drawn > 0 {
            self.pending.push_str(&format!("\u{1b}[{}A", self.drawn));
        }
        for line in lines {
            self.pending.push_str(line);
            self.pending.push_str(CLEAR_LINE);
            self.pending.push('\n');
        }
        self.pending.push_str(CLEAR_BELOW);
        self.pending.push_str(WRAP_LINES);
        self.drawn = lines.len();
    }

    /// Takes the result of the last write, and hands out the next text.
    fn pump(&mut self) {
        use futures_util::FutureExt as _;
        if let Some(writing) = &mut self.writing {
            let Some(result) = writing.now_or_never() else { return };
            self.writing = None;
            self.broken |= !matches!(result, Ok(Ok(())));
        }
        if self.pending.is_empty() || self.broken {
            self.pending.clear();
            return;
        }
        let text = std::mem::take(&mut self.pending);
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(text.as_bytes())?;
            stdout.flush()
        }));
    }
}

/// What `stty` says: there is no way to ask the kernel without unsafe code or one more dependency.
async fn terminal_height() -> Option<usize> {
    let terminal = std::fs::File::open("/dev/tty").ok()?;
    let mut stty = Command::new("stty");
    stty.arg("size").stdin(terminal).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(STTY_PATIENCE, stty.output()).await.ok()?.ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    said.split_whitespace().next()?.parse().ok().filter(|height| *height > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(style: Style) -> Output {
        Output { style, broken: true, ..Output::new() }
    }

    #[tokio::test]
    async fn a_frame_is_drawn_over_the_last_one_and_below_what_was_said() {
        let mut output = output(Style::Frames(Colours::Off));
        output.draw(&["a".to_owned(), "b".to_owned()]);
        assert!(!output.pending.contains("A"), "there is nothing to draw over");
        output.pending.clear();
        output.draw(&["c".to_owned()]);
        assert!(output.pending.contains("\u{1b}[2A"), "{:?}", output.pending);
        assert!(output.pending.ends_with(WRAP_LINES));
        output.say("goodbye");
        output.draw(&["d".to_owned()]);
        assert!(!output.pending.contains('A'), "{:?}", output.pending);
    }

    #[tokio::test]
    async fn lines_come_with_a_change_or_an_event_and_not_more_often() {
        let mut output = output(Style::Lines);
        let mut snapshot = Snapshot::default();
        let event = Event { at: Duration::ZERO, text: "m1 was killed".to_owned() };
        // Writing is left out: a broken output forgets what it is given, so each call is looked at by its effects.
        output.show(&snapshot, &[]);
        let first = output.shown_at;
        assert!(first.is_some());
        snapshot.leader = Some(("m1".to_owned(), 1));
        output.show(&snapshot, &[event]);
        assert_eq!(output.shown_at, first, "a second has not passed");
    }
}
