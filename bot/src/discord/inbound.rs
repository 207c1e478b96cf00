//! Discord, inbound: an interaction becomes a stored act before it is answered. HTTP and the gateway meet in [`Discord::answer`].

use async_trait::async_trait;
use domain::act::{Act, Barred, Identity, Place, ReplyTo};
use domain::button::{self, Pressed};
use domain::inbox::{Choice, HttpInbound, HttpRequest, HttpResponse};
use domain::text::clean_line;
use serde_json::{Value, json};
use serenity::builder::{AutocompleteChoice, CreateAutocompleteResponse, CreateInteractionResponse as Answer, CreateInteractionResponseMessage};

use super::payload::{Interaction, kind};
use super::{Discord, PLATFORM, commands, render};
use crate::answer::{self, Step};
use crate::command::{self, Arg, Asked};
use crate::edge::{self, LOOKUP_WITHIN, NO_BUTTON, NOT_A_MEMBER, NOT_RECORDED, count_rejected};

const INTERACTIONS: &str = "/discord/interactions";
/// Discord's limits of an option list.
const CHOICES: usize = 25;
const CHOICE: usize = 100;

#[async_trait]
impl HttpInbound for Discord {
    fn paths(&self) -> Vec<&'static str> {
        vec![INTERACTIONS]
    }

    async fn handle(&self, request: HttpRequest) -> HttpResponse {
        let (timestamp, signature) = (request.header("x-signature-timestamp"), request.header("x-signature-ed25519"));
        if !self.key.signed(timestamp, signature, &request.body, self.edge.clock.now()) {
            count_rejected(PLATFORM, "bad_signature");
            return HttpResponse::text(401, "not signed by Discord, or too long ago");
        }
        let interaction = serde_json::from_slice::<Interaction>(&request.body);
        let answer = match &interaction {
            Ok(interaction) => self.answer(interaction).await,
            Err(_) => None,
        };
        match answer.and_then(|answer| serde_json::to_value(answer).ok()) {
            Some(answer) => HttpResponse::json(200, &answer),
            None => {
                count_rejected(PLATFORM, "unparsable");
                HttpResponse::text(400, "not an interaction that Watchkeeper knows")
            }
        }
    }
}

impl Discord {
    /// Answers an interaction: stores the act that it is, or says what is asked. `None` for kinds that nothing of ours leads to.
    pub(super) async fn answer(&self, interaction: &Interaction) -> Option<Answer> {
        let answer = match interaction.kind {
            kind::PING => Answer::Pong,
            kind::COMMAND => self.commanded(interaction).await,
            kind::COMPONENT => self.pressed(interaction).await,
            kind::AUTOCOMPLETE => self.complete(interaction).await,
            kind::MODAL => self.submitted(interaction).await,
            _ => return None,
        };
        Some(answer)
    }

    /// A pressed button: an act, a question first, or a dialog.
    async fn pressed(&self, interaction: &Interaction) -> Answer {
        let id = interaction.data.custom_id.as_str();
        if id == render::CANCELS {
            return Answer::UpdateMessage(render::answered("Cancelled: nothing was done."));
        }
        let card = interaction.message.as_ref().map_or("", |message| message.id.as_str());
        if let Some(token) = id.strip_prefix(render::ASKS_FIRST) {
            return match button::read(token) {
                Some(pressed) => Answer::Message(render::question(pressed.kind, card, token)),
                None => unknown(),
            };
        }
        let confirmed = id.strip_prefix(render::CONFIRMS).and_then(|rest| rest.split_once(':'));
        let (card, token) = confirmed.unwrap_or((card, id));
        let Some(pressed) = button::read(token) else { return unknown() };
        if pressed.kind.asks_reason() {
            return Answer::Modal(render::dialog(pressed.kind, token));
        }
        let done = if confirmed.is_some() { Answer::UpdateMessage(render::answered("Confirmed.")) } else { Answer::Acknowledge };
        self.act(interaction, pressed, String::new(), (card, token), done).await
    }

    /// A submitted dialog: the act that its button had begun.
    async fn submitted(&self, interaction: &Interaction) -> Answer {
        let token = interaction.data.custom_id.as_str();
        let Some(pressed) = button::read(token) else { return unknown() };
        let reason = interaction.data.typed(render::REASON);
        if reason.is_empty() {
            return aside("Say why, for those who asked. Nothing was recorded: press the button again.");
        }
        let card = interaction.message.as_ref().map_or("", |message| message.id.as_str());
        self.act(interaction, pressed, reason.to_owned(), (card, token), Answer::Acknowledge).await
    }

    async fn act(&self, interaction: &Interaction, pressed: Pressed, reason: String, (card, token): (&str, &str), done: Answer) -> Answer {
        let place = interaction.channel_id.clone().map(|channel| Place { channel, message: card.to_owned() });
        let Some(actor) = self.identity(interaction) else { return aside(NOT_A_MEMBER) };
        let verb = edge::verb(pressed, reason);
        let act = Act { actor, verb, button: Some(token.to_owned()), place, reply: Some(self.reply_to(interaction)) };
        match self.edge.store(PLATFORM, &interaction.id, act).await {
            Ok(()) => done,
            Err(why) => aside(why),
        }
    }

    async fn commanded(&self, interaction: &Interaction) -> Answer {
        let asked = command::parse(&interaction.data.name, &commands::words(&interaction.data));
        if let Asked::Say(text) = asked {
            return aside(&text);
        }
        let Some(actor) = self.identity(interaction) else { return aside(NOT_A_MEMBER) };
        let step = tokio::time::timeout(LOOKUP_WITHIN, answer::step(self.edge.lookup.as_ref(), asked)).await;
        match step {
            Ok(Ok(Step::Say(_))) if actor.barred.is_some() => aside(NOT_A_MEMBER),
            Ok(Ok(Step::Say(text))) => aside(&text),
            Ok(Ok(Step::Store(verb))) => {
                let act = Act { actor, verb, button: None, place: None, reply: Some(self.reply_to(interaction)) };
                match self.edge.store(PLATFORM, &interaction.id, act).await {
                    Ok(()) => Answer::Defer(CreateInteractionResponseMessage::new().ephemeral(true)),
                    Err(why) => aside(why),
                }
            }
            _ => aside(NOT_RECORDED),
        }
    }

    /// The option list of a half-typed command; empty for strangers and while the store cannot be asked.
    async fn complete(&self, interaction: &Interaction) -> Answer {
        let member = self.identity(interaction).is_some_and(|actor| actor.barred.is_none());
        let choices = match commands::focused(&interaction.data).filter(|_| member) {
            Some((Arg::Number | Arg::For, typed)) => {
                let found = tokio::time::timeout(LOOKUP_WITHIN, self.edge.lookup.incidents(typed.trim_start_matches('#'), CHOICES)).await;
                let found = found.ok().and_then(Result::ok).unwrap_or_default();
                found.into_iter().filter_map(|choice| Some((choice.label, json!(choice.value.parse::<i64>().ok()?)))).collect()
            }
            Some((Arg::Runbook, typed)) => {
                let found = self.edge.lookup.runbooks(&typed, CHOICES).into_iter();
                found.map(|Choice { label, value }| (label, Value::String(value))).collect()
            }
            _ => Vec::new(),
        };
        let choice = |(label, value): (String, Value)| AutocompleteChoice::new(clean_line(&label, CHOICE), value);
        Answer::Autocomplete(CreateAutocompleteResponse::new().set_choices(choices.into_iter().take(CHOICES).map(choice).collect()))
    }

    /// The person, and what bars them: Discord's payloads say everything. `None` if nobody is named.
    fn identity(&self, interaction: &Interaction) -> Option<Identity> {
        let user = interaction.person()?;
        let ours = interaction.guild_id.as_deref() == Some(self.guild_id.as_str());
        Some(Identity {
            platform: PLATFORM.to_owned(),
            workspace: interaction.guild_id.clone().unwrap_or_default(),
            user: user.id.clone(),
            display: user.username.clone(),
            barred: user.bot.then_some(Barred::Bot).or((!ours).then_some(Barred::Stranger)),
        })
    }

    fn reply_to(&self, interaction: &Interaction) -> ReplyTo {
        ReplyTo { platform: PLATFORM.to_owned(), token: format!("{}/{}", self.application_id, interaction.token) }
    }
}

fn aside(text: &str) -> Answer {
    Answer::Message(render::aside(text))
}

fn unknown() -> Answer {
    count_rejected(PLATFORM, "unknown_button");
    aside(NO_BUTTON)
}
