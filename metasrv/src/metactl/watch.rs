//! `--watch`: the same screen again whenever it has changed.
//!
//! On a terminal each screen takes the place of the one before; in a pipe they follow each other, so that a script sees
//! every change. What may pass, such as a change of leader, is said once and does not end the watching. Ctrl-C does, as it
//! ends any program.

use std::io::IsTerminal as _;
use std::time::Duration;

use crate::cli::Watch;
use crate::exit::{Exit, Failure};
use crate::output::{print, say};
use crate::session::Session;

/// Between two looks: what is watched by a person changes no faster for them.
const PAUSE: Duration = Duration::from_secs(1);

/// Erases the terminal, and begins at its top.
const ERASE: &str = "\u{1b}[H\u{1b}[2J";

/// One screen, and whether what it shows is well.
pub struct Screen {
    /// What goes to stdout.
    pub text: String,
    /// How a command ends that shows it once.
    pub verdict: Result<(), Failure>,
}

impl From<String> for Screen {
    fn from(text: String) -> Screen {
        Screen { text, verdict: Ok(()) }
    }
}

/// Shows it once, or again and again.
pub async fn show<S: Into<Screen>>(
    session: &Session,
    watch: Watch,
    look: impl AsyncFn(&Session) -> Result<S, Failure>,
) -> Result<(), Failure> {
    if !watch.watch {
        let screen = look(session).await?.into();
        print(&screen.text)?;
        return screen.verdict;
    }
    let erase = std::io::stdout().is_terminal();
    let mut news = News::default();
    loop {
        match look(&session.again()).await.map(S::into) {
            Ok(Screen { text, verdict }) => {
                if news.is_new_screen(&text) {
                    print(&if erase { format!("{ERASE}{text}") } else { text })?;
                }
                news.say(verdict.err());
            }
            Err(failure) if may_pass(failure.exit) => news.say(Some(failure)),
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What was shown and said last.
#[derive(Default)]
struct News {
    screen: Option<String>,
    said: Option<String>,
}

impl News {
    fn is_new_screen(&mut self, text: &str) -> bool {
        let new = self.screen.as_deref() != Some(text);
        self.screen = Some(text.to_owned());
        new
    }

    /// Says what is wrong, once; and no longer remembers it when it has passed.
    fn say(&mut self, failure: Option<Failure>) {
        let text = failure.map(|failure| failure.to_string());
        if let Some(text) = text.as_deref().filter(|text| self.said.as_deref() != Some(*text)) {
            say(text);
        }
        self.said = text;
    }
}

/// Whether the next look may succeed without anybody doing anything.
fn may_pass(exit: Exit) -> bool {
    matches!(exit, Exit::NobodyReachable | Exit::Unhealthy | Exit::TimedOut | Exit::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_shown_when_it_changes_and_not_before() {
        let mut news = News::default();
        let shown = ["a", "a", "b", "a"].map(|text| news.is_new_screen(text));
        assert_eq!(shown, [true, false, true, true]);
    }

    #[test]
    fn what_was_said_is_said_again_only_after_it_had_passed() {
        let mut news = News::default();
        let wrong = || Some(Failure::new(Exit::Unhealthy, "no leader"));
        news.say(wrong());
        assert_eq!(news.said.as_deref(), Some("error: no leader"));
        news.say(None);
        assert_eq!(news.said, None);
    }

    #[test]
    fn a_mistake_ends_the_watching_and_an_election_does_not() {
        assert!(may_pass(Exit::Unhealthy) && may_pass(Exit::NobodyReachable));
        assert!(!may_pass(Exit::NotFound) && !may_pass(Exit::Usage) && !may_pass(Exit::Refused));
    }
}
