//! An end of a connection, the incoming ones of a listener, and the network as one host sees it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use super::{Asked, End, Event, Listener, Net};

/// The host at the other end of a connection, as requests carry it.
#[derive(Clone, Debug)]
pub struct PeerHost(pub String);

/// An end of a connection.
pub struct Socket {
    net: Net,
    peer: String,
    /// What is read, and what is written.
    inward: u64,
    outward: u64,
}

impl Socket {
    pub(super) fn new(net: Net, peer: String, inward: u64, outward: u64) -> Socket {
        Socket { net, peer, inward, outward }
    }

    fn close(&self) {
        let mut state = self.net.locked();
        let Some((from, to)) =
            state.pipes.get(&self.outward).map(|pipe| (pipe.from.clone(), pipe.to.clone()))
        else {
            return;
        };
        let at = state.now + state.way(&from, &to);
        let at = state.pipes.get_mut(&self.outward).map_or(at, |pipe| pipe.close(at));
        state.schedule(at, Event::Arrival(self.outward));
    }
}

impl Drop for Socket {
    /// As a kernel does for a process that ends: what was sent arrives, then the end of it.
    fn drop(&mut self) {
        self.close();
        let mut state = self.net.locked();
        if let Some(pipe) = state.pipes.get_mut(&self.inward) {
            pipe.abandon();
            if pipe.is_over() {
                state.pipes.remove(&self.inward);
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.net.locked();
        let Some(pipe) = state.pipes.get_mut(&self.inward) else { return Poll::Ready(Ok(())) };
        match pipe.read(buffer.remaining(), context.waker()) {
            None => Poll::Pending,
            Some(Ok(bytes)) => {
                buffer.put_slice(&bytes);
                Poll::Ready(Ok(()))
            }
            Some(Err(End::Closed)) => Poll::Ready(Ok(())),
            Some(Err(End::Reset)) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.net.locked();
        let Some(pipe) = state.pipes.get_mut(&self.outward) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if pipe.is_broken() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let Some(room) = pipe.room(context.waker()) else { return Poll::Pending };
        let (from, to) = (pipe.from.clone(), pipe.to.clone());
        let bytes = &bytes[..room.min(bytes.len())];
        let at = state.now + state.way(&from, &to);
        let at = state.pipes.get_mut(&self.outward).map_or(at, |pipe| pipe.send(at, bytes));
        state.schedule(at, Event::Arrival(self.outward));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

impl Connected for Socket {
    type ConnectInfo = PeerHost;

    fn connect_info(&self) -> PeerHost {
        PeerHost(self.peer.clone())
    }
}

/// The connections that come in at one address; nobody can connect any more once it is dropped.
pub struct Incoming {
    net: Net,
    addr: String,
}

impl Stream for Incoming {
    type Item = io::Result<Socket>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Socket>>> {
        let mut state = self.net.locked();
        let Some(listener) = state.listeners.get_mut(&self.addr) else { return Poll::Ready(None) };
        match listener.accepted.pop_front() {
            Some(socket) => Poll::Ready(Some(Ok(socket))),
            None => {
                listener.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let listener = self.net.locked().listeners.remove(&self.addr);
        // Their ends are closed outside the lock, which they take themselves.
        drop(listener);
    }
}

/// The network as one host sees it.
#[derive(Clone)]
pub struct NetworkOf {
    net: Net,
    host: String,
}

impl Net {
    /// The network as this host sees it.
    pub fn of(&self, host: &str) -> NetworkOf {
        NetworkOf { net: self.clone(), host: host.to_owned() }
    }
}

impl NetworkOf {
    /// Listens at this host's port.
    pub fn listen(&self, port: u16) -> Incoming {
        let addr = format!("{}:{port}", self.host);
        let listener = Listener { accepted: Default::default(), waker: None };
        self.net.locked().listeners.insert(addr.clone(), listener);
        Incoming { net: self.net.clone(), addr }
    }

    /// Opens a connection; fails as TCP does, and may take for ever.
    ///
    /// # Errors
    /// Where nobody listens.
    pub async fn open(&self, addr: &str) -> io::Result<Socket> {
        let to = match addr.strip_prefix("127.0.0.1") {
            Some(port) => format!("{}{port}", self.host),
            None => addr.to_owned(),
        };
        let asked =
            Asked { from: self.host.clone(), to: to.clone(), answer: None, waker: None, given_up: false };
        let asked = Arc::new(Mutex::new(asked));
        {
            let mut state = self.net.locked();
            let host = to.split(':').next().unwrap_or_default();
            let at = state.now + state.way(&self.host, host);
            state.schedule(at, Event::Syn(Arc::clone(&asked)));
        }
        let asking = GivenUp(Arc::clone(&asked));
        let answer = poll_fn(|context| {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            match asked.answer.take() {
                Some(answer) => Poll::Ready(answer),
                None => {
                    asked.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        drop(asking);
        answer
    }
}

/// Whoever asked does not wait any more.
struct GivenUp(Arc<Mutex<Asked>>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        let unused = {
            let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            asked.given_up = true;
            asked.answer.take()
        };
        // Its end is closed outside the lock.
        drop(unused);
    }
}

#[async_trait]
impl metasrv::dial::Network for NetworkOf {
    async fn connect(&self, addr: &str) -> io::Result<metasrv::dial::Connection> {
        Ok(Box::new(self.open(addr).await?))
    }
}

impl metasrv_client::Network for NetworkOf {
    fn connect(&self, addr: &str) -> metasrv_client::Opening {
        let (network, addr) = (self.clone(), addr.to_owned());
        Box::pin(async move {
            let socket: Box<dyn metasrv_client::Wire> = Box::new(network.open(&addr).await?);
            Ok(socket)
        })
    }
}
