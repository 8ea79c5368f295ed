//! `metactl wait --for CONDITION`: for scripts that go on when something holds.
//!
//! What is not there yet, an election for example, is waited for; no replica that answers, too. The data is what holds, as
//! `metactl status` shows it for `healthy` and `metactl leader show` for `leader`.

use metasrv_client::ClientError;

use crate::cli::Condition;
use crate::exit::{Exit, Failure};
use crate::leader::LeaderRow;
use crate::output::{print, print_one};
use crate::procedure;
use crate::session::{Look, Session, Waited};
use crate::status::Overview;
use crate::survey::Survey;

/// Waits until it holds.
pub async fn until(session: &Session, condition: Condition) -> Result<(), Failure> {
    match condition {
        Condition::Healthy => {
            let overview = ended(session, condition, async || healthy(session).await).await?;
            print(&overview.text(session.format)?)
        }
        Condition::Leader => {
            let leader = ended(session, condition, async || leader(session).await).await?;
            print_one(&leader, session.format)
        }
        Condition::Idle => {
            ended(session, condition, async || idle(session).await).await?;
            print(&procedure::list(session).await?)
        }
    }
}

async fn ended<T>(
    session: &Session,
    condition: Condition,
    look: impl AsyncFnMut() -> Result<Look<T>, ClientError>,
) -> Result<T, Failure> {
    let name = match condition {
        Condition::Healthy => "healthy",
        Condition::Leader => "led",
        Condition::Idle => "idle",
    };
    match session.wait(look).await? {
        Waited::Done(found) => Ok(found),
        Waited::TimedOut(so_far) => {
            let what = format!("metasrv is not {name} within {}: {so_far}", session.limit());
            Err(Failure::new(Exit::TimedOut, what)
                .advise("`metactl status` shows what each replica knows. --timeout waits longer."))
        }
        Waited::Interrupted(so_far) => Err(Failure::new(Exit::Failed, format!("interrupted: {so_far}"))),
    }
}

async fn healthy(session: &Session) -> Result<Look<Overview>, ClientError> {
    let overview = Overview::take(session).await?;
    Ok(match overview.problems() {
        [] => Look::Done(overview),
        problems => Look::NotYet(problems.join("; ")),
    })
}

async fn leader(session: &Session) -> Result<Look<LeaderRow>, ClientError> {
    let leader = LeaderRow::of(&Survey::take(session).await?);
    Ok(match leader.filter(|leader| leader.confirmed) {
        Some(leader) => Look::Done(leader),
        None => Look::NotYet("no replica says that it leads".to_owned()),
    })
}

async fn idle(session: &Session) -> Result<Look<()>, ClientError> {
    match session.looking_operations().procedures().await?.procedures.len() {
        0 => Ok(Look::Done(())),
        count => Ok(Look::NotYet(format!("{count} procedures are at work"))),
    }
}
