//! A hundred hostile label values travel through to a program's arguments, Slack, Discord, the console and the log: as plain data.

use anyhow::{Context, ensure};
use harness::eventually;
use harness::fake::discord::{Config as DiscordConfig, FakeDiscord};
use harness::fake::slack::{Config as SlackConfig, FakeSlack};
use harness::world::{Alert, Plan, SOON};
use serde_json::json;

/// Values that did harm somewhere: shells, options, templates, mentions, markup, SQL, terminals, sizes.
const SEEDS: [&str; 25] = [
    "$(touch /tmp/pwned)",
    "`id`",
    "; rm -rf / #",
    "a && b || c | d > e < f",
    "--help",
    "-rf",
    "{{ 7*7 }}",
    "{% for x in range(9) %}x{% endfor %}",
    "${PATH}",
    "%s%n%x",
    "<!channel> <!here> <@U0ANN0001>",
    "@everyone <@&1> <@1>",
    "<https://evil.example|click me>",
    "[click](https://evil.example)",
    "*bold* _it_ ~no~ `code` > quote",
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' or 1=1; drop table events; --",
    "../../../etc/passwd",
    "line one\nline two",
    "esc \u{1b}[31mred\u{7}",
    "nul \u{0} inside",
    "bidi \u{202e}txt.exe",
    "zero\u{200b}width",
    "\u{1F600} ünïcödé 日本語",
];

fn values() -> Vec<String> {
    let variants: [fn(&str) -> String; 4] =
        [str::to_owned, |s| format!("x {s}"), |s| format!("{s}{s}"), |s| format!("{s} {}", "A".repeat(100_000))];
    SEEDS.iter().flat_map(|seed| variants.map(|variant| variant(seed))).collect()
}

#[tokio::test]
async fn labels_are_data_wherever_they_arrive() -> anyhow::Result<()> {
    let (slack, discord) = (FakeSlack::start(SlackConfig::default()).await?, FakeDiscord::start(DiscordConfig::default()).await?);
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.slack(&slack)?.discord(&discord, false)?;
    let dump = plan.dir().join("dumped");
    let script = format!("#!/bin/sh\nfor arg in \"$@\"; do printf '%s\\0' \"$arg\" >> '{}'; done\n", dump.display());
    let program = plan.script("dump", &script)?;
    plan.merge(json!({
        "programs": [program],
        "routes": [{
            "match": ["alertname=\"Hostile\""],
            "incident": { "group_by": ["part"], "channels": ["ops", "ops-discord"], "title": "{{ labels.value }}" },
            "remedy": { "runbook": "dump", "with": { "value": "{{ labels.value }}" }, "mode": "auto" },
        }],
        "runbooks": { "dump": {
            "params": { "value": { "type": "text", "max": 8192 } },
            "steps": [{ "id": "dump", "uses": "command", "with": { "program": program, "args": ["{{ params.value }}"] } }],
        } },
    }));
    let world = plan.start().await?;
    let values = values();
    assert_eq!(values.len(), 100);
    // Each in an incident of its own, so that each asks for a run of its own.
    for (index, value) in values.iter().enumerate() {
        let alert = Alert::new("Hostile").label("part", &index.to_string()).label("value", value).label("service", value);
        world.send(&[alert.annotation("summary", value).annotation("runbook_url", value)]).await?;
    }

    let runs = eventually(SOON * 4, async || {
        let (incidents, runs) = (world.incidents().await?, world.runs().await?);
        ensure!(incidents.len() == 100, "{} incidents", incidents.len());
        let open = runs.iter().filter(|run| run["state"] != "succeeded").count();
        ensure!(open == 0 && !runs.is_empty(), "{open} of {} runs have not succeeded", runs.len());
        Ok(runs)
    })
    .await?;
    let refused = world.audit().await?.iter().filter(|row| row["action"] == "run.ask" && row["decision"] == "refused").count();
    assert_eq!(runs.len() + refused, 100, "each value was an argument or was refused");
    let arrived = std::fs::read_to_string(&dump)?;
    let arrived: Vec<&str> = arrived.split_terminator('\0').collect();
    assert_eq!(arrived.len(), runs.len());
    // What a sender may change on the way: NUL becomes visible, and a long value is cut with a mark at its end.
    let sent: Vec<String> = values.iter().map(|value| value.replace('\0', "␀")).collect();
    for arg in &arrived {
        let known = |value: &String| arg == value || value.starts_with(arg.trim_end_matches(|c| c != 'A'));
        ensure!(sent.iter().any(known), "{arg:.200?} was never sent");
        ensure!(!arg.starts_with('-') && !arg.chars().any(char::is_control), "{arg:?} should have been refused");
    }
    assert!(!std::path::Path::new("/tmp/pwned").exists());

    for message in slack.channel("ops").messages() {
        ensure!(message.mentions().is_empty(), "a mention in {}", message.visible_text());
        ensure!(message.links().is_empty(), "links {:?}", message.links());
    }
    for message in discord.channel("ops").messages() {
        ensure!(message.mentions().is_empty(), "a mention in {}", message.visible_text());
    }
    // A thread that is not there yet is found out by asking.
    let discord_refused: Vec<_> = discord.refused().into_iter().filter(|seen| seen.status != 404).collect();
    ensure!(slack.refused().is_empty() && discord_refused.is_empty(), "{:#?} {discord_refused:#?}", slack.refused());
    ensure!(!slack.channel("ops").messages().is_empty() && !discord.channel("ops").messages().is_empty(), "cards were posted");

    let console = world.console("ann").await?;
    for number in [16, 61, 62, 65, 66] {
        let page = console.page(&format!("/incidents/{number}")).await?;
        ensure!(!page.contains("<script>alert") && !page.contains("<img src=x"), "markup came through on #{number}");
        ensure!(!page.contains('\u{202e}') && !page.contains('\u{1b}'), "control characters came through on #{number}");
    }
    let log = world.log();
    let lines = log.lines().filter(|line| line.starts_with('{')).count();
    assert_eq!(world.log_lines().len(), lines, "every line of the log is one JSON document");
    ensure!(!log.contains('\u{1b}'), "an escape reached the log");
    world.get("/incidents?limit=1").await.context("the API still answers")?;
    Ok(())
}
