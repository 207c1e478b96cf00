//! What became of a step that nobody knows of is said by the buttons of its card, in Slack and in Discord: by who may, and only with a reason.

use anyhow::{Context, ensure};
use harness::eventually;
use harness::fake::discord::{self, FakeDiscord};
use harness::fake::slack::{self, FakeSlack};
use harness::world::{Alert, BEN, CLEO, Ledger, Plan, SOON, World};
use serde_json::json;

use crate::unknown::{states, with_work};

/// Every answer: what the run comes to, how its attempts stand, and what was done in the end.
const ANSWERS: [(&str, &str, &[&str], &[&str]); 4] = [
    ("It ran", "succeeded", &["succeeded", "succeeded"], &["tried", "after"]),
    ("It did not run", "failed", &["failed"], &["tried"]),
    ("Run it again", "succeeded", &["failed", "succeeded", "succeeded"], &["tried", "tried", "after"]),
    ("Abort", "failed", &["unknown"], &["tried"]),
];
/// What the dialog asks.
const ASKS: &str = "How do you know?";

/// Where people press.
trait Room {
    /// Somebody presses this button of the card that has it, writes into the dialog and sends it off. What they are told.
    async fn answer(&self, name: &str, button: &str, reason: &str) -> anyhow::Result<String>;
}

struct InSlack {
    slack: FakeSlack,
    door: String,
}

impl Room for InSlack {
    async fn answer(&self, name: &str, button: &str, reason: &str) -> anyhow::Result<String> {
        let (slack, user) = (&self.slack, if name == "ben" { BEN } else { CLEO });
        let card = crate::slack::card_with(slack, button).await?;
        slack.click(user, &card, button, &self.door).await?;
        let dialog = slack.wait_for_view(user, SOON).await?;
        let told = slack.ephemerals(user).len();
        slack.submit_view(user, &dialog.id, &[(ASKS, reason)], &self.door).await?;
        if let Some(dialog) = slack.view(&dialog.id).filter(|dialog| dialog.open) {
            return Ok(dialog.errors.into_values().collect());
        }
        eventually(SOON, async || {
            let all = slack.ephemerals(user);
            all.get(told).map(slack::Message::visible_text).with_context(|| format!("{name} is told nothing"))
        })
        .await
    }
}

struct InDiscord {
    discord: FakeDiscord,
    door: String,
}

impl Room for InDiscord {
    async fn answer(&self, name: &str, button: &str, reason: &str) -> anyhow::Result<String> {
        let discord = &self.discord;
        let user = discord.config().users.iter().find(|user| user.name == name).context("nobody is called so")?.id.clone();
        let card = crate::discord::card_with(discord, button).await?;
        let pressed = discord.click(&user, &card, button, &self.door).await?;
        let dialog = pressed.interaction.modal().context("no dialog opened")?;
        let sent = discord.submit_modal(&user, &dialog, &[(ASKS, reason)], &self.door).await?;
        Ok(sent.interaction.wait_for_followup(|_| true, SOON).await?.visible_text())
    }
}

/// A step that is killed in its middle when it is tried first, and one that follows it.
fn with_unknown(plan: &mut Plan) -> anyhow::Result<Ledger> {
    let work = "echo tried >> $LEDGER; [ $(grep -c tried $LEDGER) -gt 1 ] || kill -KILL $$";
    let ledger = with_work(plan, work, json!({ "timeout": "20s", "retry": { "attempts": 1 } }))?;
    let after = json!({ "id": "after", "uses": "command", "with": { "program": ledger.program, "args": ["after"] } });
    plan.config["runbooks"]["restart-service"]["steps"].as_array_mut().context("no steps")?.push(after);
    Ok(ledger)
}

/// One unknown run after the other, and an answer to each.
async fn answers(world: &World, ledger: &Ledger, room: &impl Room) -> anyhow::Result<()> {
    for (number, (button, state, attempts, wanted)) in (1..).zip(ANSWERS) {
        ledger.clear()?;
        let alert = Alert::service_down().label("answer", button);
        world.send(std::slice::from_ref(&alert)).await?;
        let run = eventually(SOON, async || {
            let runs = world.runs().await?;
            runs.into_iter().find(|run| run["state"] == "unknown").context("nothing is unknown")
        })
        .await?;
        let path = format!("/runs/{}", run["id"].as_str().unwrap_or_default());
        let gauges = async || {
            anyhow::Ok((world.metric("watchkeeper_runs_unknown").await?, world.metric("watchkeeper_runs_unknown_oldest_seconds").await?))
        };
        let (unknown, waits) = gauges().await?;
        ensure!(unknown == 1.0 && waits > 0.0, "{button}: {unknown} runs are unknown, for {waits} s");

        for (name, reason, why) in [("cleo", "I saw it", "it takes one of the roles"), ("ben", "  ", "Say why")] {
            let told = room.answer(name, button, reason).await?;
            ensure!(told.contains(why), "{button}: {name} is told {told:?}");
            let run = world.get(&path).await?;
            ensure!(run["run"]["state"] == "unknown" && states(&run) == ["unknown"], "{button} by {name}: {run}");
            assert_eq!(ledger.lines(), ["tried"]);
        }

        let told = room.answer("ben", button, "the box says so").await?;
        ensure!(told.contains(if button == "Abort" { "ended" } else { "goes on" }), "{button}: {told:?}");
        let run = eventually(SOON, async || {
            let run = world.get(&path).await?;
            ensure!(run["run"]["state"] == state, "{button}: {}", run["run"]);
            Ok(run)
        })
        .await?;
        assert_eq!((gauges().await?, states(&run).as_slice()), ((0.0, 0.0), attempts), "{button}");
        assert_eq!(ledger.lines(), wanted, "{button}");
        let said = format!("ben says: {} (the box says so)", button.to_lowercase());
        let story = world.timeline(number).await?;
        ensure!(story.iter().any(|line| line.contains(&said)), "{said:?} is not told: {story:?}");
        world.send(&[alert.resolved()]).await?;
        world.incident_in(number, "closed", SOON).await?;
    }
    let audit = world.audit().await?;
    let settled = |decision: &str| audit.iter().filter(|row| row["action"] == "settle" && row["decision"] == decision).count();
    assert_eq!((settled("allowed"), settled("refused")), (4, 4), "what cleo tried is written down");
    Ok(())
}

#[tokio::test]
async fn in_slack() -> anyhow::Result<()> {
    let slack = FakeSlack::start(slack::Config::default()).await?;
    let mut plan = crate::slack::plan(&slack)?;
    let ledger = with_unknown(&mut plan)?;
    let world = plan.start().await?;
    let door = crate::slack::door(&world);
    answers(&world, &ledger, &InSlack { slack, door }).await
}

#[tokio::test]
async fn in_discord() -> anyhow::Result<()> {
    let discord = FakeDiscord::start(discord::Config::default()).await?;
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.discord(&discord, false)?;
    let ledger = with_unknown(&mut plan)?;
    let world = plan.start().await?;
    let door = format!("{}/discord/interactions", world.url());
    answers(&world, &ledger, &InDiscord { discord, door }).await
}
