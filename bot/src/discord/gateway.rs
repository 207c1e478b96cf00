//! Discord's gateway: the same interactions over one outgoing websocket, for servers that Discord cannot reach.
//!
//! It needs no intents: interactions arrive without. An event that serenity cannot read still counts, from its raw JSON.

use std::sync::Arc;
use std::time::Duration;

use domain::chat::ChatError;
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::Value;
use serenity::all::{ClientBuilder, Context, Event, GatewayError, GatewayIntents, HttpBuilder, RawEventHandler};
use serenity::async_trait;
use tokio_util::sync::CancellationToken;

use super::api::{Call, body};
use super::payload::Interaction;
use super::{Discord, PLATFORM, is_id, is_token};

/// Between attempts to connect; Discord allows a thousand a day.
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_MOST: Duration = Duration::from_secs(300);

impl Discord {
    /// Listens until `shutdown`. Serenity resumes by itself; when it gives up, this begins anew. One process per bot should run it: the
    /// caller holds a lease.
    ///
    /// # Errors
    /// [`ChatError::Refused`] if Discord will never let this bot in; says what to do.
    pub async fn run_gateway(self: Arc<Self>, shutdown: CancellationToken) -> Result<(), ChatError> {
        let mut pause = AGAIN;
        while !shutdown.is_cancelled() {
            let began = tokio::time::Instant::now();
            let listened = self.listen(&shutdown).await;
            if began.elapsed() >= AGAIN_MOST {
                // It was let in: what was lost before has nothing to do with it.
                pause = AGAIN;
            }
            match listened {
                Ok(()) => pause = AGAIN,
                Err(error) if is_final(&error) => {
                    return Err(ChatError::Refused(format!("Discord's gateway refuses the bot ({error}): check `discord.bot_token`")));
                }
                Err(error) => {
                    tracing::warn!(%error, "Discord's gateway is lost; connecting again in {pause:?}");
                    metrics::counter!("watchkeeper_chat_gateway_lost_total", "platform" => PLATFORM).increment(1);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = AGAIN_MOST.min(pause * 2),
                () = shutdown.cancelled() => {}
            }
        }
        Ok(())
    }

    /// One connection with its resumptions.
    async fn listen(self: &Arc<Self>, shutdown: &CancellationToken) -> serenity::Result<()> {
        let (api_url, token) = &self.login;
        let http = HttpBuilder::new(token.expose_secret()).proxy(api_url).ratelimiter_disabled(true).build();
        let mut client = ClientBuilder::new_with_http(http, GatewayIntents::empty()).raw_event_handler(Listener(Arc::clone(self))).await?;
        let shards = Arc::clone(&client.shard_manager);
        let stop = async {
            shutdown.cancelled().await;
            shards.shutdown_all().await;
        };
        tokio::select! {
            ended = client.start() => ended,
            () = stop => Ok(()),
        }
    }

    /// Answers an interaction over HTTP, where Discord waits for it.
    async fn heard(&self, raw: Value) {
        let interaction = match serde_json::from_value::<Interaction>(raw) {
            Ok(interaction) if is_id(&interaction.id) && is_token(&interaction.token) => interaction,
            _ => {
                crate::edge::count_rejected(PLATFORM, "unparsable");
                return tracing::warn!("an interaction from Discord's gateway could not be read");
            }
        };
        let Some(answer) = self.answer(&interaction).await else { return };
        if let Err(error) = self.call_back(&interaction, &answer).await {
            tracing::warn!(%error, "an interaction could not be answered");
        }
    }

    async fn call_back(&self, interaction: &Interaction, answer: &impl serde::Serialize) -> Result<(), ChatError> {
        let body = body(answer)?;
        let path = format!("/interactions/{}/{}/callback", interaction.id, interaction.token);
        let call = Call { name: "interaction_callback", method: Method::POST, path, as_bot: false, repeatable: true, body: Some(&body) };
        self.api.call(call).await.map(drop).map_err(|failed| failed.error)
    }
}

/// Hands interactions on; each is answered on a task of its own, because the shard waits for nobody.
struct Listener(Arc<Discord>);

#[async_trait]
impl RawEventHandler for Listener {
    async fn raw_event(&self, _context: Context, event: Event) {
        let raw = match event {
            Event::InteractionCreate(created) => {
                let mut raw = serde_json::to_value(&created.interaction).unwrap_or_default();
                // Serenity keeps the type in its enum's variant and does not write it.
                raw["type"] = u8::from(created.interaction.kind()).into();
                raw
            }
            Event::Unknown(unknown) if unknown.kind == "INTERACTION_CREATE" => unknown.value,
            Event::Ready(_) => return tracing::info!("Discord's gateway is ready"),
            Event::Unknown(_) => return metrics::counter!("watchkeeper_chat_unknown_events_total", "platform" => PLATFORM).increment(1),
            _ => return,
        };
        let discord = Arc::clone(&self.0);
        tokio::spawn(async move { discord.heard(raw).await });
    }
}

/// Whether connecting again would be refused again.
fn is_final(error: &serenity::Error) -> bool {
    let gateway = |error: &GatewayError| {
        matches!(error, GatewayError::InvalidAuthentication | GatewayError::DisallowedGatewayIntents | GatewayError::InvalidGatewayIntents)
    };
    match error {
        serenity::Error::Gateway(error) => gateway(error),
        serenity::Error::Http(error) => error.status_code().is_some_and(|status| status.as_u16() == 401),
        _ => false,
    }
}
