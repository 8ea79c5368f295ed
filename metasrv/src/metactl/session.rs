//! One run of `metactl`: the client, what it prints, until when it tries, and how it waits.
//!
//! There is one deadline for the whole command, and within it one for each call, so that a leader that hangs does not use
//! up what a long wait was given. Ctrl-C ends a command that only looks, as it ends any program; one that changes
//! something says first what goes on without it.
//!
//! | the command | the whole | a change | a look while it waits |
//! | --- | --- | --- | --- |
//! | with `--timeout D` | D | what is left of D | the same, at most 15 s |
//! | without | 15 s | what is left | what is left |
//! | without, and the work takes as long as it takes | a day | 15 s | 15 s |

use std::cell::RefCell;
use std::time::Duration;

use metasrv_client::{AdminClient, BackOff, ClientError, MetaClient, MetaClientConfig, OperationsClient};
use metasrv_proto::meta::Role;
use metasrv_tls::{ClientTls, TlsFiles};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::cli::{Format, Global, TlsFlags};
use crate::exit::{Exit, Failure};
use crate::output::say;

/// Between two looks at what is waited for: short enough not to be noticed, long enough to cost a leader nothing.
const LOOKS: BackOff = BackOff { first: Duration::from_millis(50), most: Duration::from_millis(500) };

/// How long a command may take that was not told.
const USUAL: Duration = Duration::from_secs(15);

/// How long a command waits for work that takes as long as it takes, if it was not told.
const PATIENT: Duration = Duration::from_secs(24 * 60 * 60);

/// What all commands have.
pub struct Session {
    /// Finds the replicas and the leader.
    pub client: MetaClient,
    /// What the data looks like.
    pub format: Format,
    /// What `--timeout` says.
    told: Option<Duration>,
    limit: Duration,
    deadline: Instant,
}

/// One look at what is waited for.
pub enum Look<T> {
    /// It is there.
    Done(T),
    /// It is not, and this is how far it is.
    NotYet(String),
}

/// How waiting ended.
pub enum Waited<T> {
    /// With what was waited for.
    Done(T),
    /// With the deadline; the text is how far it was.
    TimedOut(String),
    /// By Ctrl-C; the text is how far it was.
    Interrupted(String),
}

/// How connections are secured, by the global flags.
fn tls(global: &Global) -> Result<Option<ClientTls>, Failure> {
    let TlsFlags { tls_ca, tls_certificate, tls_key } = &global.tls;
    let files = TlsFiles::of(tls_ca.clone(), tls_certificate.clone(), tls_key.clone()).map_err(|_| {
        Failure::new(Exit::Usage, "--tls-ca, --tls-certificate and --tls-key: set all of them".to_owned())
    })?;
    let made = files.map(ClientTls::new).transpose();
    made.map_err(|error| {
        Failure::new(Exit::Usage, format!("--tls-ca, --tls-certificate, --tls-key: {error}"))
    })
}

impl Session {
    /// Takes the global flags. Nothing is connected yet.
    pub fn start(global: &Global) -> Result<Session, Failure> {
        let mut config = MetaClientConfig::new(&global.metasrv, Role::Frontend, 0);
        let timeouts = &mut config.timeouts;
        let limit = global.timeout.unwrap_or(USUAL);
        timeouts.admin = limit;
        timeouts.ask = timeouts.ask.min(limit);
        timeouts.connect = timeouts.connect.min(limit);
        config.tls = tls(global)?;
        let client = MetaClient::try_new(config).map_err(ClientError::from)?;
        let deadline = Instant::now() + limit;
        Ok(Session { client, format: global.output, told: global.timeout, limit, deadline })
    }

    /// The same from the present on: for whoever looks again and again.
    pub fn again(&self) -> Session {
        let deadline = Instant::now() + self.limit;
        Session {
            client: self.client.clone(),
            format: self.format,
            told: self.told,
            limit: self.limit,
            deadline,
        }
    }

    /// The same for work that takes as long as it takes, unless `--timeout` says how long to wait for it.
    pub fn patient(self) -> Session {
        match self.told {
            Some(_) => self,
            None => Session { limit: PATIENT, deadline: Instant::now() + PATIENT, ..self },
        }
    }

    /// Calls to metasrv, each with what is left of the deadline.
    pub fn admin(&self) -> AdminClient {
        self.client.admin().with_deadline(self.left())
    }

    /// The same with half of that: whoever does not want to wait for an election to the end asks others then.
    pub fn hopeful_admin(&self) -> AdminClient {
        self.client.admin().with_deadline(self.left() / 2)
    }

    /// Calls of operators, likewise.
    pub fn operations(&self) -> OperationsClient {
        self.client.operations().with_deadline(self.left())
    }

    /// The same with half of that.
    pub fn hopeful_operations(&self) -> OperationsClient {
        self.client.operations().with_deadline(self.left() / 2)
    }

    /// The same for one look of many: one that hangs leaves time for others.
    pub fn looking_operations(&self) -> OperationsClient {
        self.client.operations().with_deadline(self.left().min(USUAL))
    }

    /// The same for what is only good to know: it takes no longer than one replica may take.
    pub fn brief_operations(&self) -> OperationsClient {
        self.client.operations().with_deadline(self.left().min(self.client.config().timeouts.ask))
    }

    /// What is left for one call.
    pub fn left(&self) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        left.min(self.told.unwrap_or(USUAL))
    }

    /// The deadline as it was given.
    pub fn limit(&self) -> impl std::fmt::Display {
        humantime::format_duration(self.limit)
    }

    /// Runs a change. On Ctrl-C it ends with `advice`, because a request that may be on its way cannot be called back; and
    /// likewise where its answer was lost.
    pub async fn change<T>(
        &self,
        change: impl Future<Output = Result<T, ClientError>>,
        advice: &str,
    ) -> Result<T, Failure> {
        let mut interrupt = interrupts()?;
        tokio::select! {
            biased;
            _ = interrupt.recv() => Err(Failure::new(
                Exit::Failed,
                "interrupted before the answer came: the request may have been sent, and then the work goes on",
            )
            .advise(advice)),
            result = change => result.map_err(|error| {
                let lost = matches!(error, ClientError::Unknown { .. });
                let failure = Failure::from(error);
                if lost { failure.advise(advice) } else { failure }
            }),
        }
    }

    /// Looks until it is there, until the deadline, or until Ctrl-C; says how far it is whenever that changes. What
    /// may pass, such as a change of leader, does not end the waiting.
    pub async fn wait<T>(
        &self,
        mut look: impl AsyncFnMut() -> Result<Look<T>, ClientError>,
    ) -> Result<Waited<T>, Failure> {
        // From here on Ctrl-C does not end the process by itself, not even between two looks.
        let mut interrupt = interrupts()?;
        let progress = RefCell::new(String::new());
        let looking = async {
            let mut waits = LOOKS.start();
            loop {
                let so_far = match look().await {
                    Ok(Look::Done(found)) => return Ok(found),
                    Ok(Look::NotYet(so_far)) => so_far,
                    Err(error) if error.is_retryable() => error.to_string(),
                    Err(error) => return Err(Failure::from(error)),
                };
                if *progress.borrow() != so_far {
                    say(&format!("waiting: {so_far}"));
                    *progress.borrow_mut() = so_far;
                }
                waits.wait().await;
            }
        };
        tokio::select! {
            biased;
            _ = interrupt.recv() => Ok(Waited::Interrupted(progress.take())),
            () = tokio::time::sleep_until(self.deadline) => Ok(Waited::TimedOut(progress.take())),
            found = looking => found.map(Waited::Done),
        }
    }
}

fn interrupts() -> Result<Signal, Failure> {
    signal(SignalKind::interrupt())
        .map_err(|error| Failure::new(Exit::Failed, format!("Ctrl-C cannot be watched for: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(timeout: Duration) -> Session {
        let metasrv = vec!["127.0.0.1:1".to_owned()];
        let started = Session::start(&Global {
            metasrv,
            output: Format::Table,
            timeout: Some(timeout),
            tls: TlsFlags::default(),
        });
        started.unwrap_or_else(|failure| panic!("{failure}"))
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_survives_what_passes_and_ends_with_what_does_not() {
        let session = session(Duration::from_secs(60));
        let mut looks = 0;
        let waited = session
            .wait(async || {
                looks += 1;
                match looks {
                    1 => Err(ClientError::NoLeader { why: "election".to_owned() }),
                    2 => Ok(Look::NotYet("half".to_owned())),
                    _ => Ok(Look::Done(looks)),
                }
            })
            .await;
        assert!(matches!(waited, Ok(Waited::Done(3))));
        let refused = session.wait::<()>(async || Err(ClientError::Refused("never".to_owned()))).await;
        assert_eq!(refused.err().map(|failure| failure.exit), Some(Exit::Refused));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_at_the_deadline_and_says_how_far_it_was() {
        let session = session(Duration::from_secs(3));
        let started = Instant::now();
        let waited = session.wait::<()>(async || Ok(Look::NotYet("1 of 2".to_owned()))).await;
        assert!(matches!(waited, Ok(Waited::TimedOut(so_far)) if so_far == "1 of 2"));
        assert_eq!(started.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test]
    async fn whoever_loses_the_answer_to_a_change_is_told_where_to_look() {
        let session = session(Duration::from_secs(3));
        let said = async |error| {
            let change = async { Err::<(), _>(error) };
            session.change(change, "Look there.").await.expect_err("it failed").to_string()
        };
        let lost = ClientError::Unknown { what: "drop a region", why: "a:1 died".to_owned() };
        assert!(said(lost).await.ends_with("Look there."));
        assert_eq!(said(ClientError::Refused("no".to_owned())).await, "error: no");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_leaves_each_call_its_usual_time() {
        let untold = || {
            Session::start(&Global {
                tls: TlsFlags::default(),
                metasrv: vec!["127.0.0.1:1".to_owned()],
                output: Format::Table,
                timeout: None,
            })
        };
        let patient = untold().ok().map(Session::patient).expect("a session");
        assert_eq!(patient.deadline, Instant::now() + PATIENT);
        assert_eq!(patient.left(), USUAL);
        let told = session(Duration::from_secs(60)).patient();
        assert_eq!(told.left(), Duration::from_secs(60), "--timeout is the last word");
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(told.left(), Duration::from_secs(10));
        assert_eq!(told.again().left(), Duration::from_secs(60));
    }

    #[test]
    fn addresses_that_are_none_are_a_usage_error_and_all_named() {
        let metasrv = vec!["nonsense".to_owned(), "a:1".to_owned(), "b".to_owned()];
        let global = Global { metasrv, output: Format::Table, timeout: None, tls: TlsFlags::default() };
        let failure = Session::start(&global).err().expect("two are none");
        assert_eq!(failure.exit, Exit::Usage);
        let said = failure.to_string();
        assert!(said.contains("nonsense") && said.contains("\"b\"") && said.contains("--metasrv"), "{said}");
    }
}
