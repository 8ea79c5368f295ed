//! Before something is destroyed, somebody says yes: by `--yes`, or at a terminal when asked.
//!
//! A script is never asked: without a terminal the command ends, and says how to write it. The question comes before the
//! deadline of the command begins.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::cli::{Command, Decommission, Drop, NodeCommand, RegionCommand};
use crate::exit::{Exit, Failure};

/// Asks, if this command destroys something and was not told yes.
///
/// # Errors
/// Wrong usage where nobody can be asked; failed where the answer is no.
pub fn ask(command: &Command) -> Result<(), Failure> {
    let Some(question) = question(command) else { return Ok(()) };
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(unasked(&question));
    }
    // Whoever closed the terminal has not said yes.
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if is_yes(&answer) {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, "nothing was changed: the answer was not yes"))
    }
}

fn unasked(question: &str) -> Failure {
    Failure::new(Exit::Usage, format!("nothing was changed: nobody can be asked \"{question}\""))
        .advise("Add --yes to say so beforehand.")
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
}

/// What is asked before it. Nothing, if it destroys nothing or the answer is there.
fn question(command: &Command) -> Option<String> {
    match command {
        Command::Region { command: RegionCommand::Drop(Drop { region, yes: false, .. }) } => {
            Some(format!("Drop region {region}, so that nobody can read or write it any more?"))
        }
        Command::Node { command: NodeCommand::Decommission(Decommission { which, yes: false, .. }) } => {
            Some(format!("Forget datanode {} for good?", which.node))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::parsed;

    fn asked(line: &str) -> Option<String> {
        question(&parsed(line).expect(line).command)
    }

    #[test]
    fn only_what_destroys_is_asked_about_and_only_once() {
        assert!(asked("metactl region drop 7").is_some_and(|question| question.contains("region 7")));
        assert!(asked("metactl node decommission 3").is_some_and(|question| question.contains("datanode 3")));
        for line in
            ["metactl region drop 7 --yes", "metactl node decommission 3 --yes", "metactl node drain 3"]
        {
            assert_eq!(asked(line), None, "{line}");
        }
    }

    #[test]
    fn a_script_is_told_what_to_add() {
        let failure = unasked("Drop region 7?");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.to_string().contains("--yes"), "{failure}");
    }

    #[test]
    fn yes_is_yes_and_all_else_is_no() {
        assert!(is_yes("y\n") && is_yes(" YES "));
        assert!(!is_yes("") && !is_yes("\n") && !is_yes("yesterday"));
    }
}
