//! An agent among others: it announces itself, and hears who hails it or cancels what it does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::announcement::{Announcement, PROTOCOL};
use domain::order::{Cancel, SERVER};
use domain::time::{Clock, SystemClock};
use futures::StreamExt;

use super::Agent;
use super::obey::RECONNECT;

/// How often an agent announces itself unasked.
const HELLO: Duration = Duration::from_secs(10);
/// How often it does at most.
const HELLO_PAUSE: Duration = Duration::from_millis(500);

impl Agent {
    /// Says every few seconds, and when it is hailed, who is here, of which version, and for which targets.
    pub(super) async fn greet(self: Arc<Self>) {
        loop {
            if let Err(error) = self.announce().await {
                tracing::debug!(error = %format!("{error:#}"), "nobody could be told that this agent is here");
            }
            tokio::time::sleep(HELLO_PAUSE).await;
            tokio::select! { () = tokio::time::sleep(HELLO) => {}, () = self.hailed.notified() => {} }
        }
    }

    async fn announce(&self) -> anyhow::Result<()> {
        let announcement = Announcement {
            iss: self.settings.name.clone(),
            aud: SERVER.to_owned(),
            iat: SystemClock.now().as_second(),
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            targets: self.settings.targets.keys().cloned().collect(),
            actions: self.settings.actions.clone(),
        };
        let token = self.signer.sign(&announcement)?;
        Ok(self.link.client().await?.publish(self.names.hello(&self.settings.name), token.into()).await?)
    }

    /// Listens for cancels and hails.
    pub(super) async fn hear(self: Arc<Self>) {
        let me = &self.settings.name;
        loop {
            let heard = async {
                let client = self.link.client().await?;
                let mut replaced = std::pin::pin!(self.link.replaced());
                let (mut cancels, mut hails) =
                    (client.subscribe(self.names.cancel(me)).await?, client.subscribe(self.names.hail(me)).await?);
                self.hailed.notify_one();
                loop {
                    tokio::select! {
                        Some(cancel) = cancels.next() => self.hear_cancel(&cancel.payload),
                        Some(_) = hails.next() => {
                            self.hails.fetch_add(1, Ordering::Relaxed);
                            self.hailed.notify_one();
                        }
                        () = &mut replaced => return anyhow::Ok(()),
                        else => return anyhow::Ok(()),
                    }
                }
            };
            if let Err(error) = heard.await {
                tracing::debug!(error = %format!("{error:#}"), "nobody can be heard");
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    fn hear_cancel(self: &Arc<Self>, token: &[u8]) {
        let Some(cancel) = self.servers.iter().find_map(|server| server.check::<Cancel>(token)) else {
            return self.audit("refused", "a cancel is not signed by a server that this agent believes", None);
        };
        if let Err(error) = self.heed(&cancel, false) {
            tracing::warn!(error = %format!("{error:#}"), "that an order is off cannot be kept");
        }
    }
}
