//! How a second terminal speaks to a playground: one request and one answer, each a line of JSON, over its socket.
//!
//! The playground itself does what is asked. Only a parent can start a child, and only a parent knows for certain that
//! a process id is still its child's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// A process is killed or paused within two seconds; the rest is room.
const ANSWER_PATIENCE: Duration = Duration::from_secs(8);
/// The list of the largest playground takes some kilobytes.
const LARGEST_LINE: u64 = 1 << 20;
/// People type; a handful of requests at a time is plenty. More wait in the socket.
const CONNECTIONS: usize = 16;
/// Between attempts where the system refuses a connection, for lack of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// Which processes are there?
    List,
    /// Kill this one.
    Kill {
        /// Its name, or `leader`.
        name: String,
    },
    /// Start it again.
    Start {
        /// As above.
        name: String,
    },
    /// Stop it in its tracks.
    Pause {
        /// As above.
        name: String,
    },
    /// Let it go on.
    Resume {
        /// As above.
        name: String,
    },
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The processes.
    List(Listing),
    /// It is done: a sentence.
    Done(String),
    /// It is not done: why.
    Refused(String),
}

/// A playground as it is listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// The playground's own process id.
    pub pid: u32,
    /// Where the replicas speak gRPC.
    pub metasrv: Vec<String>,
    /// The one that leads.
    pub leader: Option<String>,
    /// Its processes, from the bottom up.
    pub processes: Vec<Listed>,
}

/// A process as it is listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is.
    pub what: String,
    /// Its process id, while it runs.
    pub pid: Option<u32>,
    /// waiting, up, paused, killed, ended.
    pub state: String,
    /// Where it speaks gRPC.
    pub grpc: String,
    /// Where it speaks HTTP, if it does.
    pub http: Option<String>,
    /// Its log.
    pub log: PathBuf,
}

/// A request that waits for its answer.
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// Hands every request to the playground, until it is dropped.
pub async fn serve(listener: UnixListener, playground: mpsc::Sender<Asked>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let playground = playground.clone();
                    connections.spawn(async move {
                        // Whoever went away does not wait for an answer.
                        let _ = tokio::time::timeout(ANSWER_PATIENCE, answer(stream, playground)).await;
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
            },
        }
    }
}

async fn answer(stream: UnixStream, playground: mpsc::Sender<Asked>) -> Result<(), String> {
    let mut stream = BufReader::new(stream);
    let answer = match read_line::<Request>(&mut stream).await {
        // A connection without a request only looks whether somebody is here.
        Ok(None) => return Ok(()),
        Ok(Some(request)) => {
            let (sender, receiver) = oneshot::channel();
            let sent = playground.send(Asked { request, answer: sender }).await;
            let ending = || Answer::Refused("the playground is ending".to_owned());
            match sent {
                Ok(()) => receiver.await.unwrap_or_else(|_| ending()),
                Err(_) => ending(),
            }
        }
        Err(error) => Answer::Refused(format!("not a request of this version's: {error}")),
    };
    write_line(&mut stream, &answer).await
}

/// Asks a playground.
///
/// # Errors
/// It does not answer, or not in this version's language.
pub async fn ask(socket: &Path, request: &Request) -> Result<Answer, String> {
    let asking = async {
        let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        let mut stream = BufReader::new(stream);
        write_line(&mut stream, request).await?;
        read_line(&mut stream).await?.ok_or_else(|| "it ended without an answer".to_owned())
    };
    match tokio::time::timeout(ANSWER_PATIENCE, asking).await {
        Ok(answered) => answered.map_err(|error| format!("the playground does not answer: {error}")),
        Err(_) => {
            Err(format!("the playground does not answer within {ANSWER_PATIENCE:?}; is it paused itself?"))
        }
    }
}

async fn read_line<T: DeserializeOwned>(stream: &mut BufReader<UnixStream>) -> Result<Option<T>, String> {
    let mut line = String::new();
    stream.take(LARGEST_LINE).read_line(&mut line).await.map_err(|error| error.to_string())?;
    if line.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(&line).map(Some).map_err(|error| error.to_string())
}

async fn write_line<T: Serialize>(stream: &mut BufReader<UnixStream>, value: &T) -> Result<(), String> {
    let mut line = serde_json::to_string(value).map_err(|error| error.to_string())?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a request reaches the playground, and its answer the terminal; nonsense and silence harm nobody.
    /// Method: a socket, a playground that answers everything in the same way, and three kinds of visitors.
    #[tokio::test]
    async fn what_is_asked_is_answered() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (sender, mut receiver) = mpsc::channel(1);
        let serving = tokio::spawn(serve(listener, sender));
        let playing = tokio::spawn(async move {
            let Asked { request, answer } = receiver.recv().await.unwrap();
            answer.send(Answer::Done(format!("{request:?}"))).unwrap();
            receiver
        });
        drop(UnixStream::connect(&socket).await.unwrap());
        let request = Request::Kill { name: "m1".to_owned() };
        assert_eq!(ask(&socket, &request).await, Ok(Answer::Done(format!("{request:?}"))));

        let mut visitor = BufReader::new(UnixStream::connect(&socket).await.unwrap());
        visitor.write_all(b"hello\n").await.unwrap();
        let answer: Option<Answer> = read_line(&mut visitor).await.unwrap();
        assert!(matches!(answer, Some(Answer::Refused(_))), "{answer:?}");

        drop(playing.await.unwrap());
        let ending = Answer::Refused("the playground is ending".to_owned());
        assert_eq!(ask(&socket, &Request::List).await, Ok(ending));
        serving.abort();
        let _ = serving.await;
        assert!(ask(&socket, &Request::List).await.unwrap_err().contains("does not answer"));
    }
}
