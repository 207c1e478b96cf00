//! The HTTP server under both fakes: hands whole requests to one function and can cut a connection without an answer.

use std::future::Future;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use bytes::Bytes;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::form;

/// Larger than anything a platform accepts: limits are the fakes' own business.
const BODY_LIMIT: usize = 64 << 20;

/// One request, read to its end.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) conn: Conn,
}

impl Call {
    /// A header's value, empty where it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The content type without its parameters, in lower case.
    pub(crate) fn content_type(&self) -> String {
        self.header("content-type").split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

/// What the fake answers.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self { status, headers: vec![("content-type", "application/json; charset=utf-8".to_owned())], body: body.to_string().into_bytes() }
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { status, headers: vec![("content-type", "text/html".to_owned())], body: body.as_bytes().to_vec() }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// The connection a request came on.
#[derive(Clone, Debug)]
pub(crate) struct Conn(Option<Arc<std::net::TcpStream>>);

impl Conn {
    /// Closes the connection under the server's feet. The answer returned is never seen.
    pub(crate) fn cut(&self) -> Answer {
        if let Some(stream) = &self.0 {
            // It may be closed already, which is what was wanted.
            let _closed = stream.shutdown(Shutdown::Both);
        }
        Answer::empty(500)
    }
}

impl Connected<IncomingStream<'_, Tap>> for Conn {
    fn connect_info(stream: IncomingStream<'_, Tap>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A server that ends when this is dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves every request on a free loopback port by `handle`.
///
/// # Errors
/// If no port can be bound.
pub(crate) async fn serve<F, A>(handle: F) -> anyhow::Result<Server>
where
    F: Fn(Call) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.context("binding a loopback port for a fake")?;
    let addr = listener.local_addr()?;
    let app = Router::new().fallback(move |ConnectInfo(conn): ConnectInfo<Conn>, request: Request| {
        let handle = handle.clone();
        async move { respond(handle(read(conn, request).await).await) }
    });
    let task = tokio::spawn(async move {
        // An accept loop on loopback ends only with its task.
        let _ended = axum::serve(Tap(listener), app.into_make_service_with_connect_info::<Conn>()).await;
    });
    Ok(Server { addr, task })
}

/// Accepts connections and keeps a handle by which each can be cut.
struct Tap(TcpListener);

impl Listener for Tap {
    type Io = TcpStream;
    type Addr = Conn;

    async fn accept(&mut self) -> (TcpStream, Conn) {
        loop {
            let (stream, _peer) = Listener::accept(&mut self.0).await;
            let split = stream.into_std().and_then(|std| Ok((std.try_clone()?, TcpStream::from_std(std)?)));
            if let Ok((handle, stream)) = split {
                return (stream, Conn(Some(Arc::new(handle))));
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Conn> {
        Ok(Conn(None))
    }
}

async fn read(conn: Conn, request: Request) -> Call {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_LIMIT).await.unwrap_or_default();
    let query = form::decode(parts.uri.query().unwrap_or_default());
    Call { method: parts.method, path: parts.uri.path().to_owned(), query, headers: parts.headers, body, conn }
}

fn respond(answer: Answer) -> Response {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(answer.body)).unwrap_or_else(|_| {
        let mut broken = Response::new(Body::empty());
        *broken.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        broken
    })
}
