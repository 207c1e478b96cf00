//! The slash commands as Discord has them: typed options made from the one grammar, and put back into its words.

use domain::chat::ChatError;
use reqwest::Method;
use serenity::builder::{CreateCommand, CreateCommandOption};
use serenity::model::application::CommandOptionType;

use super::Discord;
use super::api::{Call, body};
use super::payload::{Data, Given};
use crate::command::{Arg, COMMANDS, Sub};

impl Discord {
    /// Makes the commands known on the server; at once, and again at every start without harm.
    ///
    /// # Errors
    /// See `ChatError`; the bot needs the scope `applications.commands`.
    pub async fn register_commands(&self) -> Result<(), ChatError> {
        let body = body(&definitions())?;
        let path = format!("/applications/{}/guilds/{}/commands", self.application_id, self.guild_id);
        let call = Call { name: "register_commands", method: Method::PUT, path, as_bot: true, repeatable: true, body: Some(&body) };
        self.api.call(call).await.map(drop).map_err(|failed| failed.error)
    }
}

/// The words that the person would have typed: `ack 142`.
pub(super) fn words(data: &Data) -> String {
    let Some(verb) = data.options.first() else { return String::new() };
    let args = sub(data).map(|sub| sub.args).unwrap_or_default();
    let given = args.iter().filter_map(|arg| Some((arg, verb.options.iter().find(|given| given.name == arg.option())?.text())));
    let word = |(arg, text): (&Arg, String)| match arg {
        Arg::For => format!("#{}", text.trim_start_matches('#')),
        _ => text,
    };
    std::iter::once(verb.name.clone()).chain(given.map(word)).collect::<Vec<_>>().join(" ")
}

/// The option that is being typed, and what it is.
pub(super) fn focused(data: &Data) -> Option<(Arg, String)> {
    let given: &Given = data.options.first()?.options.iter().find(|given| given.focused)?;
    let arg = sub(data)?.args.iter().find(|arg| arg.option() == given.name)?;
    Some((*arg, given.text()))
}

fn sub(data: &Data) -> Option<&'static Sub> {
    let verb = &data.options.first()?.name;
    let command = COMMANDS.iter().find(|command| command.name == data.name)?;
    command.verbs.iter().find(|sub| sub.name == verb)
}

fn definitions() -> Vec<CreateCommand> {
    let option = |sub: &Sub| {
        let verb = CreateCommandOption::new(CommandOptionType::SubCommand, sub.name, sub.about);
        sub.args.iter().fold(verb, |verb, arg| verb.add_sub_option(arg.define()))
    };
    let command = |command: &crate::command::Command| {
        let made = CreateCommand::new(command.name).description(command.about);
        command.verbs.iter().fold(made, |made, sub| made.add_option(option(sub)))
    };
    COMMANDS.iter().map(command).collect()
}

impl Arg {
    fn option(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Text => "text",
            Self::Runbook => "name",
            Self::For => "incident",
            Self::Params => "params",
            Self::Reason => "reason",
        }
    }

    fn define(self) -> CreateCommandOption {
        let (kind, about, required, completed) = match self {
            Self::Number => (CommandOptionType::Integer, "The incident's number", true, true),
            Self::Text => (CommandOptionType::String, "What to write", true, false),
            Self::Runbook => (CommandOptionType::String, "The runbook", true, true),
            Self::For => (CommandOptionType::Integer, "The incident that it is for", false, true),
            Self::Params => (CommandOptionType::String, "Its parameters: key=value key=\"two words\"", false, false),
            Self::Reason => (CommandOptionType::String, "Why", false, false),
        };
        let made = CreateCommandOption::new(kind, self.option(), about).required(required).set_autocomplete(completed);
        if matches!(kind, CommandOptionType::Integer) { made.min_int_value(1) } else { made }
    }
}
