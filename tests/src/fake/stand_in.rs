//! A stand-in for the product in the fakes' own tests: answers by a function and keeps what came.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::form;
use super::wire::{self, Answer, Server};

/// What the product received.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) headers: HashMap<String, String>,
    pub(super) body: String,
}

impl Received {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The JSON in the form field `payload`.
    pub(super) fn payload(&self) -> Value {
        let payload = form::decode(&self.body).into_iter().find(|(name, _)| name == "payload").unwrap().1;
        serde_json::from_str(&payload).unwrap()
    }
}

pub(super) struct Product {
    server: Server,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Product {
    pub(super) async fn by(delay: Duration, answer: impl Fn(&Received) -> (u16, Value) + Clone + Send + Sync + 'static) -> Self {
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let keep = received.clone();
        let server = wire::serve(move |call| {
            let header =
                |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
            let came =
                Received { headers: call.headers.iter().map(header).collect(), body: String::from_utf8(call.body.to_vec()).unwrap() };
            let (status, body) = answer(&came);
            keep.lock().unwrap().push(came);
            async move {
                tokio::time::sleep(delay).await;
                if body.is_null() { Answer::empty(status) } else { Answer::json(status, body) }
            }
        });
        Self { server: server.await.unwrap(), received }
    }

    pub(super) async fn answering(status: u16, body: Value) -> Self {
        Self::by(Duration::ZERO, move |_| (status, body.clone())).await
    }

    pub(super) async fn ok() -> Self {
        Self::answering(200, Value::Null).await
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/interactions", self.server.addr)
    }

    pub(super) fn last(&self) -> Received {
        self.received.lock().unwrap().last().unwrap().clone()
    }
}
