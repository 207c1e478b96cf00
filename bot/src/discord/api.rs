//! Calls of Discord's REST API, and what its errors mean to an outbox. Serenity makes the bodies; the calls are our own, because its client
//! drops `retry_after` and does not say whether a request left.

use std::time::Duration;

use domain::chat::ChatError;
use reqwest::{Client, Method};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::PLATFORM;
use crate::http::{self, Answer, Broken, count};

/// Who calls, in the form that Discord insists on.
const AGENT: &str = concat!("DiscordBot (https://watchkeeper.example, ", env!("CARGO_PKG_VERSION"), ")");
/// Waited after a limit that names no time.
const WAIT: Duration = Duration::from_secs(5);

/// Discord's error codes that decide something (its documentation, "JSON Error Codes").
pub(super) mod code {
    pub(crate) const UNKNOWN_CHANNEL: u64 = 10_003;
    pub(crate) const UNKNOWN_GUILD: u64 = 10_004;
    pub(crate) const UNKNOWN_MESSAGE: u64 = 10_008;
    pub(crate) const UNKNOWN_WEBHOOK: u64 = 10_015;
    pub(crate) const UNKNOWN_INTERACTION: u64 = 10_062;
    pub(crate) const MISSING_ACCESS: u64 = 50_001;
    pub(crate) const NOT_OURS: u64 = 50_005;
    pub(crate) const MISSING_PERMISSIONS: u64 = 50_013;
    pub(crate) const INVALID_WEBHOOK_TOKEN: u64 = 50_027;
    pub(crate) const THREAD_EXISTS: u64 = 160_004;
}

/// A call: what it is called in metrics and errors, and what is asked.
pub(super) struct Call<'a> {
    /// A word of ours.
    pub(super) name: &'static str,
    /// The HTTP method.
    pub(super) method: Method,
    /// Below `/api/v10`.
    pub(super) path: String,
    /// The reason to log in; calls by an interaction's token need none.
    pub(super) as_bot: bool,
    /// What another call of the same kind would do: `true` if it is known not to double anything.
    pub(super) repeatable: bool,
    /// The body as JSON.
    pub(super) body: Option<&'a [u8]>,
}

/// A call that Discord answered with an error, or that was not answered.
pub(super) struct Failed {
    /// Discord's code, 0 where it gave none.
    pub(super) code: u64,
    /// What it means.
    pub(super) error: ChatError,
}

/// Discord's REST API with one bot's token.
pub(super) struct Api {
    http: Client,
    url: String,
    token: SecretString,
}

impl Api {
    pub(super) fn new(http: Client, url: String, token: SecretString) -> Self {
        Self { http, url, token }
    }

    /// Makes a call and returns the answer's body, empty where Discord answers without.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<bytes::Bytes, Failed> {
        let mut request = self.http.request(call.method.clone(), format!("{}/api/v10{}", self.url, call.path)).header("user-agent", AGENT);
        if call.as_bot {
            request = request.header("authorization", format!("Bot {}", self.token.expose_secret()));
        }
        if let Some(body) = call.body {
            request = request.header("content-type", "application/json").body(body.to_vec());
        }
        let outcome = match http::send(request).await {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(answer.body),
            Ok(answer) => Err(refusal(&call, &answer)),
            Err(broken) => Err(Failed { code: 0, error: lost(&call, broken) }),
        };
        match &outcome {
            Ok(_) => count(PLATFORM, call.name, &Ok::<(), _>(())),
            Err(failed) => count(PLATFORM, call.name, &Err::<(), _>(failed.error.clone())),
        }
        outcome
    }
}

/// The body of a call.
pub(super) fn body(content: &impl Serialize) -> Result<Vec<u8>, ChatError> {
    serde_json::to_vec(content).map_err(|error| ChatError::Refused(format!("a message for Discord cannot be written: {error}")))
}

/// Discord's error, or its 429.
#[derive(Default, Deserialize)]
struct Error {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    retry_after: Option<f64>,
    #[serde(default)]
    errors: serde_json::Value,
}

fn refusal(call: &Call<'_>, answer: &Answer) -> Failed {
    let said: Error = serde_json::from_slice(&answer.body).unwrap_or_default();
    let name = call.name;
    let what = format!("Discord answers {} to {name} ({} {})", answer.status, said.code, domain::text::clean_line(&said.message, 200));
    let finer = said.retry_after.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let advise = |advice: &str| ChatError::Refused(format!("{what}: {advice}"));
    let error = match (answer.status, said.code) {
        (429, _) => ChatError::Wait { platform: PLATFORM, after: finer.or(answer.retry_after).unwrap_or(WAIT) },
        (500.., _) => ChatError::Retry(what),
        (_, code::UNKNOWN_MESSAGE | code::NOT_OURS) => ChatError::Gone(what),
        (_, code::UNKNOWN_WEBHOOK | code::UNKNOWN_INTERACTION | code::INVALID_WEBHOOK_TOKEN) => ChatError::Gone(format!("{what}: fifteen minutes are over")),
        (401, _) => advise("the bot token is not valid (any more): reset it and set `discord.bot_token`"),
        (_, code::UNKNOWN_CHANNEL) => advise("check the channel's id, and that the bot was invited into its server"),
        (_, code::UNKNOWN_GUILD) => advise("invite the bot into the server, and check `discord.guild_id`"),
        (403, code::MISSING_ACCESS) => advise("the bot cannot see the channel: let its role view it"),
        (403, code::MISSING_PERMISSIONS) => advise("its role lacks a permission: deploy/discord/README.md lists them"),
        (403, _) => advise("the bot may not do this: compare its role's permissions with deploy/discord/README.md"),
        (404, 0) => advise("check `discord.api_url`, this is not Discord's API"),
        _ => {
            // Ours to repair: the payload was refused.
            tracing::error!(call = name, status = answer.status, code = said.code, errors = %said.errors, "Discord refused a call");
            advise("this is a defect of Watchkeeper, its log has the details")
        }
    };
    Failed { code: said.code, error }
}

fn lost(call: &Call<'_>, broken: Broken) -> ChatError {
    match broken {
        Broken::NotSent(why) => ChatError::Retry(format!("Discord cannot be reached for {}: {why}", call.name)),
        Broken::Lost(why) if call.repeatable => ChatError::Retry(format!("no answer from Discord to {}: {why}", call.name)),
        Broken::Lost(why) => ChatError::Ambiguous(format!("no answer from Discord to {}: {why}", call.name)),
    }
}
