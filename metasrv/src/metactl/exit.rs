//! How a command ends: the exit code for scripts, and for people what was wrong, where, and what to do.

use std::fmt;
use std::process::ExitCode;

use metasrv_client::ClientError;

/// The exit codes. Scripts rely on the numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It did not work, or whether it did is not known.
    Failed = 1,
    /// The command line cannot be meant.
    Usage = 2,
    /// None of the replicas that were named answered.
    NobodyReachable = 3,
    /// What it is about does not exist.
    NotFound = 4,
    /// It was understood, and refused by a safety check.
    Refused = 5,
    /// The deadline passed.
    TimedOut = 6,
    /// The answer is that the system is not well.
    Unhealthy = 10,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not end with success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// For scripts.
    pub exit: Exit,
    /// What was wrong, and where.
    what: String,
    /// What to do about it.
    advice: Option<String>,
}

impl Failure {
    /// A failure that speaks for itself.
    pub fn new(exit: Exit, what: impl Into<String>) -> Failure {
        Failure { exit, what: what.into(), advice: None }
    }

    /// The same, with what to do about it.
    pub fn advise(self, advice: impl Into<String>) -> Failure {
        Failure { advice: Some(advice.into()), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        match &self.advice {
            Some(advice) => write!(f, "\n       {advice}"),
            None => Ok(()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let failure = Failure::new(exit_of(&error), error.to_string());
        match advice_for(&error) {
            Some(advice) => failure.advise(advice),
            None => failure,
        }
    }
}

/// The exit code for each error of the client.
fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::Config(_) | ClientError::InvalidArgument(_) => Exit::Usage,
        ClientError::NobodyReachable { .. } => Exit::NobodyReachable,
        // Replicas are there and none leads: that is an answer about their health.
        ClientError::NoLeader { .. } => Exit::Unhealthy,
        ClientError::NotFound(_) => Exit::NotFound,
        // The client's own check keeps two installations apart.
        ClientError::Refused(_) | ClientError::OtherInstallation { .. } => Exit::Refused,
        ClientError::TimedOut { .. } => Exit::TimedOut,
        ClientError::NotLeader { .. }
        | ClientError::LeaderChanged { .. }
        | ClientError::LowerTerm { .. }
        | ClientError::StaleIncarnation { .. }
        | ClientError::Superseded { .. }
        | ClientError::Ended { .. }
        | ClientError::Transport { .. }
        | ClientError::Failed(_)
        // Not "timed out": a script that repeats after a time-out must not repeat this.
        | ClientError::Unknown { .. } => Exit::Failed,
    }
}

fn advice_for(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Config(_) => Some("Check --metasrv, or the environment's METACTL_METASRV."),
        ClientError::NobodyReachable { .. } => {
            Some("Name running replicas by --metasrv HOST:PORT,… or in METACTL_METASRV.")
        }
        ClientError::NoLeader { .. } => {
            Some("`metactl status` shows what each replica knows. An election takes seconds; then try again.")
        }
        ClientError::OtherInstallation { .. } => Some("Name replicas of one installation only by --metasrv."),
        ClientError::TimedOut { .. } => {
            Some("`metactl status` shows what each replica knows. --timeout lets a command try for longer.")
        }
        ClientError::Unknown { .. } => {
            Some("`metactl region list` and `metactl leader show` tell what has become of it.")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metasrv_client::ConfigError;

    use super::*;

    /// Every error of the client with the number that scripts see. `exit_of` names every variant, so that a new one
    /// does not compile until its number is chosen; this list holds the numbers still.
    #[test]
    fn every_error_has_its_exit_code() {
        let (addr, why, what) = (|| "a:1".to_owned(), || "why".to_owned(), "create regions");
        for (error, code) in [
            (ClientError::Config(ConfigError { violations: Vec::new() }), 2),
            (ClientError::InvalidArgument(why()), 2),
            (ClientError::NobodyReachable { why: why() }, 3),
            (ClientError::NotFound(why()), 4),
            (ClientError::Refused(why()), 5),
            (ClientError::OtherInstallation { addr: addr(), ours: 1, theirs: 2 }, 5),
            (ClientError::TimedOut { what, after: Duration::from_secs(1), why: why() }, 6),
            (ClientError::NoLeader { why: why() }, 10),
            (ClientError::NotLeader { addr: addr(), leader: None, term: 1 }, 1),
            (ClientError::LeaderChanged { addr: addr(), term: 2 }, 1),
            (ClientError::LowerTerm { addr: addr(), term: 1, highest: 2 }, 1),
            (ClientError::StaleIncarnation { known: 1, message: why() }, 1),
            (ClientError::Superseded { message: why() }, 1),
            (ClientError::Ended { addr: addr() }, 1),
            (ClientError::Transport { addr: addr(), why: why() }, 1),
            (ClientError::Failed(why()), 1),
            (ClientError::Unknown { what, why: why() }, 1),
        ] {
            assert_eq!(exit_of(&error) as u8, code, "{error:?}");
        }
    }

    #[test]
    fn a_lost_answer_says_so_and_what_to_do() {
        let lost =
            ClientError::Unknown { what: "create regions", why: "a:1 did not answer in time".to_owned() };
        let said = Failure::from(lost).to_string();
        for part in ["create regions", "may or may not have been done", "a:1", "metactl region list"] {
            assert!(said.contains(part), "{part} is missing: {said}");
        }
    }

    #[test]
    fn an_error_says_what_where_and_what_to_do() {
        let nobody = ClientError::NobodyReachable { why: "a:1: connection refused".to_owned() };
        let said = Failure::from(nobody).to_string();
        assert!(
            said.starts_with("error: no metasrv replica could be reached: a:1: connection refused\n"),
            "{said}"
        );
        assert!(said.contains("--metasrv") && said.contains("METACTL_METASRV"), "{said}");
    }
}
