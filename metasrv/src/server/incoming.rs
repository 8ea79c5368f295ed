//! Connections to the gRPC port with TLS: hands are shaken before the server sees them, each beside the others, so that
//! whoever is slow, or is refused, holds up nobody.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use metasrv_tls::ServerTls;
use metasrv_tls::server::{Stream, reason};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::admission::{Peer, Refusals};

/// Hands that are being shaken at a time. One takes a millisecond of CPU at most; those beyond wait in the listener's queue.
const HANDSHAKES: usize = 256;

/// Connections that the server has not taken yet. It takes them at once.
const READY: usize = 64;

/// Whoever takes longer to shake hands is no client.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause after the system refused to hand out a connection, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One connection, and whom its certificate names.
pub struct Secured {
    stream: Stream<TcpStream>,
    peer: Peer,
}

/// The connections as the server takes them, and what accepts them until the server takes no more.
pub fn secured(
    listener: TcpListener,
    tls: ServerTls,
    refusals: Arc<Refusals>,
) -> (ReceiverStream<io::Result<Secured>>, impl Future<Output = ()> + Send) {
    let (sender, ready) = mpsc::channel(READY);
    (ReceiverStream::new(ready), accept(listener, tls, refusals, sender))
}

async fn accept(
    listener: TcpListener,
    tls: ServerTls,
    refusals: Arc<Refusals>,
    sender: mpsc::Sender<io::Result<Secured>>,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            biased;
            () = sender.closed() => return,
            Some(_) = handshakes.join_next() => {}
            (place, accepted) = accepted => match accepted {
                Ok((stream, from)) => {
                    let (tls, refusals, sender) = (tls.clone(), Arc::clone(&refusals), sender.clone());
                    handshakes.spawn(async move {
                        let shaken = shake(&tls, stream).await;
                        drop(place);
                        match shaken {
                            // The server is gone only when the replica ends.
                            Ok(secured) => drop(sender.send(Ok(secured)).await),
                            Err(error) => match reason(&error) {
                                // Such as another replica that watches this port, or a probe of TCP alone.
                                Some(reason) => refusals.refused(reason, &from.to_string(), &error.to_string()),
                                None => tracing::debug!(peer = %from, %error, "no handshake"),
                            },
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a gRPC connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn shake(tls: &ServerTls, stream: TcpStream) -> io::Result<Secured> {
    stream.set_nodelay(true)?;
    match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
        Ok(shaken) => {
            let (stream, identity) = shaken?;
            Ok(Secured { stream, peer: Peer(identity.map(Arc::new)) })
        }
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

impl Connected for Secured {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
