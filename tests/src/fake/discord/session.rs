//! Gateway sessions: what was dispatched, so that a resumed connection gets what it missed.

use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::state::State;

/// A session of the product, connected or waiting to be resumed.
pub(super) struct Session {
    pub(super) id: String,
    pub(super) seq: u64,
    /// Everything dispatched, by sequence number.
    pub(super) events: Vec<(u64, String)>,
    /// The connection, while there is one.
    pub(super) frames: Option<UnboundedSender<Frame>>,
    /// How often it was resumed.
    pub(super) resumed: usize,
}

impl Session {
    /// Dispatches an event to this session; one without connection keeps it for the resume.
    pub(super) fn dispatch(&mut self, event: &str, data: &Value) {
        self.seq += 1;
        let frame = json!({"op": 0, "t": event, "s": self.seq, "d": data}).to_string();
        self.events.push((self.seq, frame.clone()));
        if let Some(frames) = &self.frames {
            // A connection that is just going away gets it when it resumes.
            let _sent = frames.send(Frame::text(frame));
        }
    }
}

impl State {
    /// Dispatches an event to every session; `false` if there is none.
    pub(super) fn dispatch(&mut self, event: &str, data: &Value) -> bool {
        self.sessions.iter_mut().for_each(|session| session.dispatch(event, data));
        !self.sessions.is_empty()
    }

    /// Binds the session to a new connection and sends what was missed; `false` if it is not known.
    pub(super) fn resume(&mut self, id: &str, seq: u64, frames: &UnboundedSender<Frame>) -> bool {
        let Some(session) = self.sessions.iter_mut().find(|session| session.id == id && seq <= session.seq) else { return false };
        session.frames = Some(frames.clone());
        session.resumed += 1;
        for (_, frame) in session.events.iter().filter(|(number, _)| *number > seq) {
            // The receiver is held by the connection that asked.
            let _sent = frames.send(Frame::text(frame.clone()));
        }
        session.dispatch("RESUMED", &json!({}));
        true
    }
}
