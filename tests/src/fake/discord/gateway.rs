//! The gateway: hello, identify, heartbeats, resume, dispatch, and the ways in which it ends (discord.com/developers/docs, "Gateway").

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::super::json::string;
use super::session::Session;
use super::state::State;
use super::{Core, FakeDiscord, objects};

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

impl FakeDiscord {
    /// How many gateway sessions are connected.
    pub fn sessions(&self) -> usize {
        self.core.state.look(|state| connected(state))
    }

    /// Waits until `count` gateway sessions are connected and ready.
    ///
    /// # Errors
    /// If they are not within `within`.
    pub async fn wait_for_sessions(&self, count: usize, within: Duration) -> anyhow::Result<()> {
        let found = self.core.state.wait(within, |state| (connected(state) == count).then_some(())).await;
        found.with_context(|| format!("{} gateway sessions after {within:?}, not {count}", self.sessions()))
    }

    /// How often sessions were resumed rather than begun anew.
    pub fn resumes(&self) -> usize {
        self.core.state.look(|state| state.sessions.iter().map(|session| session.resumed).sum())
    }

    /// Dispatches any event to every session.
    pub fn dispatch(&self, event: &str, data: &Value) {
        self.core.state.change(|state| state.dispatch(event, data));
    }

    /// Asks every session to reconnect and resume (op 7), then closes the connections.
    pub fn reconnect_sessions(&self) {
        self.frame(&json!({"op": 7, "d": null}), Some((4000, "reconnect")));
    }

    /// Tells every session that it is invalid (op 9); one that is not resumable is forgotten and must identify again.
    pub fn invalidate_sessions(&self, resumable: bool) {
        self.frame(&json!({"op": 9, "d": resumable}), None);
        if !resumable {
            self.core.state.change(|state| state.sessions.clear());
        }
    }

    /// Closes every connection with a gateway close code, such as 4009.
    pub fn close_sessions(&self, code: u16) {
        self.frame(&Value::Null, Some((code, "closed by the test")));
    }

    /// Drops every connection without a word; the sessions can be resumed.
    pub fn cut_sessions(&self) {
        self.core.state.change(|state| state.sessions.iter_mut().for_each(|session| session.frames = None));
    }

    fn frame(&self, frame: &Value, close: Option<(u16, &'static str)>) {
        self.core.state.change(|state| {
            for session in &mut state.sessions {
                let Some(frames) = &session.frames else { continue };
                if !frame.is_null() {
                    // A connection that is gone has nothing to be told.
                    let _sent = frames.send(Frame::text(frame.to_string()));
                }
                if let Some((code, reason)) = close {
                    let _closed = frames.send(goodbye(code, reason));
                }
            }
        });
    }
}

pub(super) async fn listen(core: Arc<Core>) -> anyhow::Result<Listener> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("binding a loopback port for the gateway")?;
    let addr = listener.local_addr()?;
    let task = tokio::spawn(async move {
        while let Ok((stream, _peer)) = listener.accept().await {
            tokio::spawn(hold(core.clone(), stream));
        }
    });
    Ok(Listener { addr, task })
}

async fn hold(core: Arc<Core>, stream: TcpStream) {
    let Ok(websocket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (mut out, mut frames_in) = websocket.split();
    let (frames, mut queued) = mpsc::unbounded_channel();
    let mut session = None;
    let interval = core.config.heartbeat.as_millis() as u64;
    let hello = json!({"op": 10, "d": {"heartbeat_interval": interval, "_trace": ["[\"gateway-fake\"]"]}});
    // The receiver is held right here.
    let _queued = frames.send(Frame::text(hello.to_string()));
    let mut own = Some(frames);
    loop {
        tokio::select! {
            frame = queued.recv() => match frame {
                Some(frame) => {
                    let last = frame.is_close();
                    if out.send(frame).await.is_err() || last { break }
                }
                None => break,
            },
            frame = frames_in.next() => match frame {
                Some(Ok(Frame::Text(text))) => {
                    let answer = receive(&core, &text, &mut session, own.as_ref());
                    // From here on the session alone keeps the connection open, so that tests can cut it.
                    if session.is_some() { own = None }
                    if let Some(answer) = answer {
                        let last = answer.is_close();
                        if out.send(answer).await.is_err() || last { break }
                    }
                }
                Some(Ok(Frame::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    queued.close();
    let lost = |known: &&mut Session| known.frames.as_ref().is_some_and(UnboundedSender::is_closed);
    core.state.change(|state| state.sessions.iter_mut().filter(lost).for_each(|known| known.frames = None));
}

/// Acts on what the product sent; the answer is sent at once.
fn receive(core: &Core, text: &str, session: &mut Option<String>, frames: Option<&UnboundedSender<Frame>>) -> Option<Frame> {
    let Ok(message) = serde_json::from_str::<Value>(text) else { return Some(goodbye(4002, "Error while decoding payload.")) };
    let (op, data) = (message["op"].as_u64(), &message["d"]);
    let frames = match (op, frames) {
        (Some(1), _) => return Some(Frame::text(json!({"op": 11, "d": null}).to_string())),
        (Some(2 | 6), None) => return Some(goodbye(4005, "Already authenticated.")),
        (Some(2 | 6), Some(frames)) => frames,
        (Some(3 | 4 | 8 | 31), None) => return None,
        (_, Some(_)) => return Some(goodbye(4003, "Not authenticated.")),
        (_, None) => return Some(goodbye(4001, "Unknown opcode.")),
    };
    if string(&data["token"]).trim_start_matches("Bot ") != core.config.bot_token {
        return Some(goodbye(4004, "Authentication failed."));
    }
    if op == Some(6) {
        let id = string(&data["session_id"]);
        let resumed = core.state.change(|state| state.resume(&id, data["seq"].as_u64().unwrap_or_default(), frames));
        if !resumed {
            return Some(Frame::text(json!({"op": 9, "d": false}).to_string()));
        }
        *session = Some(id);
        return None;
    }
    if !data["intents"].is_u64() || !data["properties"].is_object() {
        return Some(goodbye(4013, "Invalid intent(s)."));
    }
    *session = Some(core.state.change(|state| identify(core, state, data, frames)));
    None
}

fn identify(core: &Core, state: &mut State, data: &Value, frames: &UnboundedSender<Frame>) -> String {
    let config = &core.config;
    let id = format!("session-{}", state.next_id(core.time.now()));
    let mut session = Session { id: id.clone(), seq: 0, events: Vec::new(), frames: Some(frames.clone()), resumed: 0 };
    let addr = state.gateway_at.map(|addr| addr.to_string()).unwrap_or_default();
    let ready = json!({
        "v": 10, "user": objects::bot_user(config).json(), "guilds": [{"id": config.guild_id, "unavailable": true}], "session_id": id,
        "resume_gateway_url": format!("ws://{addr}"), "shard": data.get("shard").cloned().unwrap_or(json!([0, 1])),
        "application": {"id": config.application_id, "flags": 0}, "session_type": "normal", "private_channels": [], "presences": []
    });
    session.dispatch("READY", &ready);
    session.dispatch("GUILD_CREATE", &objects::guild(config));
    state.sessions.push(session);
    id
}

fn connected(state: &State) -> usize {
    state.sessions.iter().filter(|session| session.frames.is_some()).count()
}

fn goodbye(code: u16, reason: &'static str) -> Frame {
    Frame::Close(Some(CloseFrame { code: code.into(), reason: reason.into() }))
}
