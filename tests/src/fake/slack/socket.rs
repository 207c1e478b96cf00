//! Socket Mode: `apps.connections.open`, the websocket behind it, envelopes and their acknowledgements (docs.slack.dev, "Using Socket Mode").

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::super::{ANSWER_WITHIN, reply::Reply};
use super::args::Refusal;
use super::state::State;
use super::{Core, FakeSlack};

/// Slack allows ten connections per app.
const MAX_CONNECTIONS: usize = 10;

/// A connection of the product.
pub(super) struct Socket {
    id: u64,
    frames: mpsc::UnboundedSender<Frame>,
    waiting: HashMap<String, oneshot::Sender<Value>>,
}

/// Accepts the websockets; ends when dropped.
pub(super) struct Listener {
    pub(super) addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeSlack {
    /// How many Socket Mode connections the product holds.
    pub fn sockets(&self) -> usize {
        self.core.state.look(|state| state.sockets.len())
    }

    /// How many Socket Mode connections the product has opened so far.
    pub fn sockets_opened(&self) -> usize {
        self.core.state.look(|state| state.sockets_opened)
    }

    /// Waits until the product holds `count` Socket Mode connections.
    ///
    /// # Errors
    /// If it does not within `within`.
    pub async fn wait_for_sockets(&self, count: usize, within: Duration) -> anyhow::Result<()> {
        let found = self.core.state.wait(within, |state| (state.sockets.len() == count).then_some(())).await;
        found.with_context(|| format!("{} Socket Mode connections after {within:?}, not {count}", self.sockets()))
    }

    /// Sends every connection the `disconnect` frame for `reason` (`refresh_requested`, `warning`, `link_disabled`), then closes it unless it was
    /// only a warning.
    pub fn disconnect_sockets(&self, reason: &str) {
        let frame = json!({"type": "disconnect", "reason": reason, "debug_info": {"host": "applink-fake-1"}}).to_string();
        self.core.state.change(|state| {
            for socket in &state.sockets {
                // A connection that is gone needs no goodbye.
                let _sent = socket.frames.send(Frame::text(frame.clone()));
                if reason != "warning" {
                    let _closed = socket.frames.send(Frame::Close(None));
                }
            }
        });
    }

    /// Drops every connection without a word.
    pub fn cut_sockets(&self) {
        self.core.state.change(|state| state.sockets.clear());
    }
}

/// `apps.connections.open`: a URL with a ticket that is good for one connection.
pub(super) fn open(state: &mut State) -> Result<Value, Refusal> {
    if state.sockets.len() >= MAX_CONNECTIONS {
        return Err(Refusal::new("too_many_websockets"));
    }
    let ticket = format!("ticket-{}", state.next_id());
    state.tickets.push(ticket.clone());
    let addr = state.sockets_at.map(|addr| addr.to_string()).unwrap_or_default();
    Ok(json!({"url": format!("ws://{addr}/link/?ticket={ticket}&app_id=fake")}))
}

pub(super) async fn listen(core: Arc<Core>) -> anyhow::Result<Listener> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("binding a loopback port for Socket Mode")?;
    let addr = listener.local_addr()?;
    let task = tokio::spawn(async move {
        while let Ok((stream, _peer)) = listener.accept().await {
            tokio::spawn(hold(core.clone(), stream));
        }
    });
    Ok(Listener { addr, task })
}

/// Delivers an envelope over one of the connections and waits for its acknowledgement.
pub(super) async fn deliver(core: &Core, kind: &str, payload: &Value) -> anyhow::Result<Reply> {
    let sent = Instant::now();
    let acknowledged = core.state.change(|state| {
        let envelope_id = format!("00000000-0000-4000-8000-{:012x}", state.next_id());
        let mut envelope =
            json!({"type": kind, "envelope_id": envelope_id, "accepts_response_payload": kind != "events_api", "payload": payload});
        if kind == "events_api" {
            envelope["retry_attempt"] = json!(0);
            envelope["retry_reason"] = json!("");
        }
        let turn = state.next_id() as usize % state.sockets.len().max(1);
        let socket = state.sockets.get_mut(turn).context("the product holds no Socket Mode connection")?;
        let (done, acknowledged) = oneshot::channel();
        socket.waiting.insert(envelope_id, done);
        socket.frames.send(Frame::text(envelope.to_string())).context("the connection was just closed")?;
        Ok::<_, anyhow::Error>(acknowledged)
    })?;
    let ack = tokio::time::timeout(ANSWER_WITHIN, acknowledged).await.context("no acknowledgement within three seconds")?;
    let payload = ack.context("the connection was closed before the acknowledgement")?;
    let body = if payload.is_null() { String::new() } else { payload.to_string() };
    Ok(Reply { status: 200, headers: Default::default(), body, took: sent.elapsed() })
}

#[expect(clippy::result_large_err, reason = "the websocket library's own callback signature")]
async fn hold(core: Arc<Core>, stream: TcpStream) {
    let check = |request: &Request, response: Response| admit(&core, request, response);
    let Ok(websocket) = tokio_tungstenite::accept_hdr_async(stream, check).await else {
        return;
    };
    let (mut out, mut frames_in) = websocket.split();
    let (frames, mut queued) = mpsc::unbounded_channel();
    let id = core.state.change(|state| {
        let id = state.next_id();
        let hello = json!({
            "type": "hello", "num_connections": state.sockets.len() + 1, "connection_info": {"app_id": core.config.app_id},
            "debug_info": {"host": "applink-fake-1", "build_number": 1, "approximate_connection_time": 18060}
        });
        // The receiver is held right here.
        let _queued = frames.send(Frame::text(hello.to_string()));
        state.sockets_opened += 1;
        state.sockets.push(Socket { id, frames, waiting: HashMap::new() });
        id
    });
    loop {
        tokio::select! {
            frame = queued.recv() => match frame {
                Some(frame) => if out.send(frame).await.is_err() { break },
                None => break,
            },
            frame = frames_in.next() => match frame {
                Some(Ok(Frame::Text(text))) => acknowledge(&core, id, &text),
                Some(Ok(Frame::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    core.state.change(|state| state.sockets.retain(|socket| socket.id != id));
}

/// Lets a connection in that brings a ticket not used before.
#[expect(clippy::result_large_err, reason = "the websocket library's own callback signature")]
fn admit(core: &Core, request: &Request, response: Response) -> Result<Response, ErrorResponse> {
    let query = super::super::form::decode(request.uri().query().unwrap_or_default());
    let ticket = query.into_iter().find(|(name, _)| name == "ticket").map(|(_, value)| value);
    let known = core.state.change(|state| {
        let at = state.tickets.iter().position(|known| Some(known) == ticket.as_ref());
        at.map(|at| state.tickets.remove(at))
    });
    if known.is_some() {
        return Ok(response);
    }
    let mut refused = ErrorResponse::new(Some("unknown ticket".to_owned()));
    *refused.status_mut() = axum::http::StatusCode::UNAUTHORIZED;
    Err(refused)
}

fn acknowledge(core: &Core, id: u64, text: &str) {
    let ack: Value = serde_json::from_str(text).unwrap_or_default();
    core.state.change(|state| {
        let socket = state.sockets.iter_mut().find(|socket| socket.id == id);
        let waiting = socket.and_then(|socket| socket.waiting.remove(ack["envelope_id"].as_str().unwrap_or_default()));
        // Nobody waits for an acknowledgement that came too late.
        waiting.map(|waiting| waiting.send(ack["payload"].clone()))
    });
}
