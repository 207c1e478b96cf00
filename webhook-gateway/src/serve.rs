//! Serves the router on a socket: time limits, a cap on connections, TLS whose files may change, and a stop in two steps.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsAcceptor;
use axum_server::{Handle, Server};
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::tls::TlsFiles;

/// When to stop. The same tokens may serve the whole process.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Take no new connection and finish what has begun. Give [`crate::Gateway::stopping`] a clone, so that streams end.
    pub soft: CancellationToken,
    /// Close everything now.
    pub hard: CancellationToken,
    /// For so long after `soft` connections are still taken, while `/readyz` says no and every answer ends its connection: whoever spreads the
    /// load goes elsewhere before the door closes.
    pub drain: Duration,
}

/// Bounds of connections.
#[derive(Clone)]
pub struct Connections {
    /// Which peers may connect; `None` lets everybody. A named proxy in front is no protection if others can go around it.
    pub peers: Option<Peers>,
    /// Open at once; more are closed as they come.
    pub most: usize,
    /// From the end of one request to the end of the next one's headers.
    pub header_time: Duration,
}

/// See [`Connections::peers`].
pub type Peers = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

impl Default for Connections {
    fn default() -> Self {
        Self { peers: None, most: 1024, header_time: Duration::from_secs(15) }
    }
}

/// A request head larger than this is a 431, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Header lines of a request.
const HEADERS: usize = 100;

/// Serves until a stop is asked for. HTTP/1.1 only: HTTP/2 wants its own bounds and no sender needs it.
///
/// # Errors
/// If the listener cannot be used, or the TLS files cannot be read.
pub async fn serve(listener: TcpListener, tls: Option<TlsFiles>, router: Router, bounds: Connections, stop: Stop) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let handle = Handle::new();
    let _stopper = AbortOnDrop(tokio::spawn(relay(handle.clone(), stop)));
    let capped = Capped { places: Arc::new(Semaphore::new(bounds.most)), peers: bounds.peers.clone() };
    let server = axum_server::from_tcp(listener)?.handle(handle);
    match tls {
        None => bounded(server.acceptor(capped), &bounds).serve(router.into_make_service()).await?,
        Some(files) => {
            let config = files.load().await?;
            let _watch = AbortOnDrop(tokio::spawn(files.follow(config.clone())));
            let secured = server.acceptor(RustlsAcceptor::new(config).acceptor(capped));
            bounded(secured, &bounds).serve(router.into_make_service()).await?;
        }
    }
    Ok(())
}

fn bounded<A>(mut server: Server<SocketAddr, A>, bounds: &Connections) -> Server<SocketAddr, A> {
    let mut http = server.http_builder().http1();
    http.timer(TokioTimer::new()).header_read_timeout(bounds.header_time).max_headers(HEADERS).max_buf_size(HEAD_BYTES);
    server.http1_only()
}

async fn relay(handle: Handle<SocketAddr>, stop: Stop) {
    tokio::select! {
        () = stop.soft.cancelled() => {
            tokio::select! { () = tokio::time::sleep(stop.drain) => {}, () = stop.hard.cancelled() => {} }
            handle.graceful_shutdown(None);
        }
        () = stop.hard.cancelled() => {}
    }
    stop.hard.cancelled().await;
    handle.shutdown();
}

/// Ends the helper task with the server.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Lets so many connections in, and closes the others at once: to a sender that is a network error, which it tries again.
#[derive(Clone)]
struct Capped {
    places: Arc<Semaphore>,
    peers: Option<Peers>,
}

impl Capped {
    fn lets_in(&self, stream: &TcpStream) -> bool {
        let Some(peers) = &self.peers else { return true };
        stream.peer_addr().is_ok_and(|peer| peers(peer.ip()))
    }
}

impl<S> Accept<TcpStream, S> for Capped {
    type Stream = Counted;
    type Service = S;
    type Future = std::future::Ready<io::Result<(Counted, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        if !self.lets_in(&stream) {
            metrics::counter!("watchkeeper_connections_refused_total", "reason" => "peer").increment(1);
            return std::future::ready(Err(io::Error::other("not a trusted proxy")));
        }
        let accepted = match self.places.clone().try_acquire_owned() {
            Ok(permit) => stream.set_nodelay(true).map(|()| (Counted { stream, _permit: permit }, service)),
            Err(_) => {
                metrics::counter!("watchkeeper_connections_refused_total", "reason" => "full").increment(1);
                Err(io::Error::other("too many connections"))
            }
        };
        std::future::ready(accepted)
    }
}

/// A connection that counts as open until it is dropped.
struct Counted {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
