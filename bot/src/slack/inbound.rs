//! Slack, inbound: signed HTTP requests become stored acts before Slack is answered.

use async_trait::async_trait;
use domain::act::{Act, Barred, Identity, ReplyTo};
use domain::button;
use domain::inbox::{HttpInbound, HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::modal::{Carried, REASON, WHY};
use super::outbound::Whisper;
use super::payload::{Interaction, User};
use super::{PLATFORM, Slack, sign};
use crate::answer::{self, Step};
use crate::command::{self, Asked};
use crate::edge::{self, LOOKUP_WITHIN, NO_BUTTON, NOT_A_MEMBER, NOT_RECORDED, count_rejected};
use crate::form;

const INTERACTIONS: &str = "/slack/interactions";
const EVENTS: &str = "/slack/events";
const COMMANDS: &str = "/slack/commands";

/// Told when `users.info` does not answer: see [`Slack::standing`].
const UNCONFIRMED: &str = "Slack could not confirm that you are a full member of this workspace. Nothing was recorded: try again.";

/// How Slack is answered.
enum Ack {
    /// Heard; nothing to show.
    Empty,
    /// Heard; Slack shows this.
    Show(Value),
    /// Not stored: Slack marks the button as failed, and the person is told why.
    Failed,
}

#[async_trait]
impl HttpInbound for Slack {
    fn paths(&self) -> Vec<&'static str> {
        vec![INTERACTIONS, EVENTS, COMMANDS]
    }

    async fn handle(&self, request: HttpRequest) -> HttpResponse {
        let (timestamp, signature) = (request.header("x-slack-request-timestamp"), request.header("x-slack-signature"));
        if let Err(forged) = sign::check(&self.secrets, timestamp, signature, &request.body, self.edge.clock.now()) {
            count_rejected(PLATFORM, forged.word());
            return HttpResponse::text(401, "not signed by Slack, or too long ago");
        }
        let ack = match request.path.as_str() {
            INTERACTIONS => match interaction(&request.body) {
                Some(interaction) => self.interaction(interaction).await,
                None => return unreadable(),
            },
            COMMANDS => match form::decode(&request.body) {
                Some(fields) => self.command(&fields).await,
                None => return unreadable(),
            },
            EVENTS => match serde_json::from_slice(&request.body) {
                Ok(event) => greeting(&event),
                Err(_) => return unreadable(),
            },
            _ => return HttpResponse::empty(404),
        };
        match ack {
            Ack::Empty => HttpResponse::empty(200),
            Ack::Show(body) => HttpResponse::json(200, &body),
            Ack::Failed => HttpResponse::empty(503),
        }
    }
}

impl Slack {
    async fn interaction(&self, interaction: Interaction) -> Ack {
        match interaction.kind.as_str() {
            "block_actions" => self.pressed(&interaction).await,
            "view_submission" => self.submitted(&interaction).await,
            _ => Ack::Empty,
        }
    }

    /// A pressed button: an act, or first the question why.
    async fn pressed(&self, interaction: &Interaction) -> Ack {
        // Link buttons say that they were followed; they carry nothing.
        let Some(action) = interaction.actions.iter().find(|action| !action.value.is_empty()) else { return Ack::Empty };
        let Some(pressed) = button::read(&action.value) else {
            count_rejected(PLATFORM, "unknown_button");
            self.whisper(interaction.response_url.as_deref(), NO_BUTTON);
            return Ack::Empty;
        };
        let trigger = interaction.trigger_id.as_deref().unwrap_or_default();
        if pressed.kind.asks_reason() {
            let carried = Carried { token: action.value.clone(), place: interaction.place(), answer: interaction.response_url.clone() };
            if let Err(error) = self.ask_reason(trigger, pressed.kind, &carried).await {
                tracing::warn!(%error, "a dialog was not opened");
                self.whisper(interaction.response_url.as_deref(), "Slack could not open the dialog. Nothing was recorded: press again.");
            }
            return Ack::Empty;
        }
        let act = Act {
            actor: self.identity(interaction),
            verb: edge::verb(pressed, String::new()),
            button: Some(action.value.clone()),
            place: interaction.place(),
            reply: interaction.response_url.as_deref().map(reply_to),
        };
        match self.take(&format!("{trigger}/{}", action.action_ts), act).await {
            Ok(()) => Ack::Empty,
            Err(why) => {
                self.whisper(interaction.response_url.as_deref(), why);
                Ack::Failed
            }
        }
    }

    /// A submitted dialog: the act that its button had begun. A refusal is shown in it, and it stays open.
    async fn submitted(&self, interaction: &Interaction) -> Ack {
        let Some(view) = interaction.view.as_ref().filter(|view| view.callback_id == WHY) else { return Ack::Empty };
        let refused = |why: &str| Ack::Show(json!({"response_action": "errors", "errors": {REASON: why}}));
        let reason = view.typed(REASON);
        if reason.is_empty() {
            return refused("Say why, for those who asked.");
        }
        let carried: Option<Carried> = serde_json::from_str(&view.private_metadata).ok();
        let Some((carried, pressed)) = carried.and_then(|carried| button::read(&carried.token).map(|pressed| (carried, pressed))) else {
            return refused(NO_BUTTON);
        };
        let act = Act {
            actor: self.identity(interaction),
            verb: edge::verb(pressed, reason.to_owned()),
            button: Some(carried.token),
            place: carried.place,
            reply: carried.answer.as_deref().map(reply_to),
        };
        match self.take(&view.id, act).await {
            Ok(()) => Ack::Empty,
            Err(why) => refused(why),
        }
    }

    async fn command(&self, fields: &[(String, String)]) -> Ack {
        let field = |name: &str| fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
        if field("ssl_check") == "1" {
            return Ack::Empty;
        }
        let say = |text: &str| Ack::Show(json!(Whisper::new(text)));
        let asked = command::parse(field("command"), field("text"));
        if let Asked::Say(text) = asked {
            return say(&text);
        }
        let user = User { id: field("user_id").to_owned(), username: Some(field("user_name").to_owned()), team_id: None };
        let mut actor = self.who(&user, &[field("team_id")]);
        let find = tokio::time::timeout(LOOKUP_WITHIN, answer::step(self.edge.lookup.as_ref(), asked));
        let (standing, step) = tokio::join!(self.standing(&user.id), find);
        let Ok(Ok(step)) = step else { return say(NOT_RECORDED) };
        let Ok(standing) = standing else { return say(UNCONFIRMED) };
        actor.barred = actor.barred.or(standing);
        match step {
            Step::Say(_) if actor.barred.is_some() => say(NOT_A_MEMBER),
            Step::Say(text) => say(&text),
            Step::Store(verb) => {
                let act = Act { actor, verb, button: None, place: None, reply: Some(reply_to(field("response_url"))) };
                match self.take(field("trigger_id"), act).await {
                    Ok(()) => Ack::Empty,
                    Err(why) => say(why),
                }
            }
        }
    }

    /// Stores an act once it is known what bars the person, as far as that matters.
    async fn take(&self, identity: &str, mut act: Act) -> Result<(), &'static str> {
        if act.actor.barred.is_none() {
            act.actor.barred = if edge::is_grave(&act.verb) {
                let standing = self.standing(&act.actor.user).await;
                standing.map_err(|error| {
                    tracing::warn!(%error, "the standing of a person is unknown: refused");
                    UNCONFIRMED
                })?
            } else {
                self.known(&act.actor.user).flatten()
            };
        }
        self.edge.store(PLATFORM, identity, act).await
    }

    fn identity(&self, interaction: &Interaction) -> Identity {
        let team = interaction.team.as_ref().map_or("", |team| team.id.as_str());
        self.who(&interaction.user, &[interaction.user.team_id.as_deref().unwrap_or_default(), team])
    }

    /// A person; of `teams`, those that the request names, each must be ours.
    fn who(&self, user: &User, teams: &[&str]) -> Identity {
        let mut named = teams.iter().filter(|team| !team.is_empty()).peekable();
        let workspace = named.peek().map_or(String::new(), |team| (**team).to_string());
        let ours = named.peek().is_some() && named.all(|team| *team == self.team_id);
        Identity {
            platform: PLATFORM.to_owned(),
            workspace,
            user: user.id.clone(),
            display: user.username.clone().unwrap_or_default(),
            barred: (!ours).then_some(Barred::Stranger).or((user.id == "USLACKBOT").then_some(Barred::Bot)),
        }
    }

    /// Tells a person something, later than the answer to Slack.
    fn whisper(&self, address: Option<&str>, text: &'static str) {
        let (Some(address), api) = (address.map(str::to_owned), self.api.clone()) else { return };
        tokio::spawn(async move {
            if let Err(error) = api.answer(&address, &Whisper::new(text)).await {
                tracing::warn!(%error, "a person could not be answered");
            }
        });
    }
}

/// The payload of an interaction is JSON in a form field.
fn interaction(body: &[u8]) -> Option<Interaction> {
    let (_, payload) = form::decode(body)?.into_iter().find(|(name, _)| name == "payload")?;
    serde_json::from_str(&payload).ok()
}

/// Slack asks a new address to prove itself; nothing else is subscribed to.
fn greeting(event: &Value) -> Ack {
    match event["type"].as_str() {
        Some("url_verification") => Ack::Show(json!({"challenge": event["challenge"]})),
        _ => Ack::Empty,
    }
}

fn unreadable() -> HttpResponse {
    count_rejected(PLATFORM, "unparsable");
    HttpResponse::text(400, "not a payload of Slack's")
}

fn reply_to(address: &str) -> ReplyTo {
    ReplyTo { platform: PLATFORM.to_owned(), token: address.to_owned() }
}
