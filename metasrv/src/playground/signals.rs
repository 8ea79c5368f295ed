//! The signals that a playground listens to. From the first of them on, none ends the process by itself: it ends its
//! children first.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What was heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It is to end: the signal that says so.
    End(&'static str),
    /// The terminal has another size.
    Resize,
}

/// The receivers.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    resize: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system does not let it.
    pub fn new() -> Result<Signals, String> {
        let receive = |kind| signal(kind).map_err(|error| format!("signals cannot be received: {error}"));
        Ok(Signals {
            interrupt: receive(SignalKind::interrupt())?,
            terminate: receive(SignalKind::terminate())?,
            hangup: receive(SignalKind::hangup())?,
            resize: receive(SignalKind::window_change())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Heard {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Heard::End("SIGINT"),
            _ = self.terminate.recv() => Heard::End("SIGTERM"),
            // The terminal was closed.
            _ = self.hangup.recv() => Heard::End("SIGHUP"),
            _ = self.resize.recv() => Heard::Resize,
        }
    }

    /// The next one of those that end it.
    pub async fn end(&mut self) -> &'static str {
        loop {
            if let Heard::End(name) = self.next().await {
                return name;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each signal is heard as what it means. Method: this process sends them to itself.
    #[tokio::test]
    async fn signals_are_heard_as_what_they_mean() {
        use rustix::process::{Signal as Kind, getpid, kill_process};
        let mut signals = Signals::new().unwrap();
        for (kind, meant) in [
            (Kind::INT, Heard::End("SIGINT")),
            (Kind::TERM, Heard::End("SIGTERM")),
            (Kind::HUP, Heard::End("SIGHUP")),
            (Kind::WINCH, Heard::Resize),
        ] {
            kill_process(getpid(), kind).unwrap();
            assert_eq!(signals.next().await, meant);
        }
        kill_process(getpid(), Kind::WINCH).unwrap();
        kill_process(getpid(), Kind::TERM).unwrap();
        assert_eq!(signals.end().await, "SIGTERM");
    }
}
