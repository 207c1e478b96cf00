//! `response_url`: five answers within thirty minutes, without a token (docs.slack.dev, "Handling user interaction").

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::super::wire::{Answer, Call};
use super::args::{Args, Refusal};
use super::content::Content;
use super::state::{Seen, State};
use super::{Core, Message};

const USES: usize = 5;
const LIVES: Duration = Duration::from_secs(30 * 60);

/// What an answer URL stands for.
pub(super) struct ResponseUrl {
    user: String,
    channel: String,
    /// The timestamp of the message that was acted on.
    original: Option<String>,
    made: Timestamp,
    uses: usize,
}

/// Whether a path is of this kind.
pub(super) fn is(path: &str) -> bool {
    path.starts_with("/actions/") || path.starts_with("/commands/")
}

/// A fresh answer URL of a `kind` (`actions` or `commands`).
pub(super) fn make(core: &Core, state: &mut State, kind: &str, user: &str, channel: &str, original: Option<&str>) -> String {
    let path = format!("/{kind}/{}/{}/fake{:020x}", core.config.team_id, state.next_id(), state.next_id());
    let url = ResponseUrl {
        user: user.to_owned(),
        channel: channel.to_owned(),
        original: original.map(str::to_owned),
        made: core.time.now(),
        uses: 0,
    };
    state.response_urls.insert(path.clone(), url);
    let addr = state.http.map(|addr| addr.to_string()).unwrap_or_default();
    format!("http://{addr}{path}")
}

/// Takes an answer.
pub(super) fn post(core: &Core, call: &Call) -> Answer {
    let args = Args::of(call);
    let kept = args.clone().unwrap_or_default();
    core.state.change(|state| {
        let outcome = args.and_then(|args| respond(core, state, &call.path, &args));
        let (answer, error) = match outcome {
            Ok(()) => (Answer::text(200, "ok"), None),
            Err(refusal) => {
                let status = if matches!(refusal.error.as_str(), "used_url" | "expired_url" | "no_service") { 404 } else { 400 };
                (Answer::text(status, &refusal.error), Some(format!("{} {}", refusal.error, refusal.details.join("; "))))
            }
        };
        let at = core.time.now();
        state.calls.push(Seen { method: "response_url".to_owned(), args: Value::Object(kept.0), status: answer.status, error, at });
        answer
    })
}

fn respond(core: &Core, state: &mut State, path: &str, args: &Args) -> Result<(), Refusal> {
    let now = core.time.now();
    let url = state.response_urls.get_mut(path).ok_or_else(|| Refusal::new("no_service"))?;
    if Duration::try_from(now.duration_since(url.made)).unwrap_or_default() > LIVES {
        return Err(Refusal::new("expired_url"));
    }
    if url.uses >= USES {
        return Err(Refusal::new("used_url"));
    }
    url.uses += 1;
    let (user, channel, original) = (url.user.clone(), url.channel.clone(), url.original.clone());
    let there = original
        .and_then(|ts| state.messages.iter().position(|message| message.channel == channel && message.ts == ts && !message.deleted));
    if args.flag("delete_original") {
        let index = there.ok_or_else(|| Refusal::new("message_not_found"))?;
        state.messages[index].deleted = true;
        return Ok(());
    }
    let content = Content::read(state, args)?.with_text()?;
    match there.filter(|_| args.flag("replace_original")) {
        Some(index) => state.messages[index].edit(content, now),
        None => show(core, state, args, &user, &channel, content),
    }
    Ok(())
}

/// Shows a new message: to everybody for `in_channel`, else to the person alone.
pub(super) fn show(core: &Core, state: &mut State, args: &Args, user: &str, channel: &str, content: Content) {
    let ts = state.next_ts(core.time.now());
    let mut message = Message::by_bot(core, channel, ts, content);
    message.only_for = (args.text("response_type") != Some("in_channel")).then(|| user.to_owned());
    message.thread_ts = args.text("thread_ts").map(str::to_owned);
    state.messages.push(message);
}
