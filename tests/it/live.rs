//! What a step prints is seen while it runs: over the API, in the console, by `run watch` and as a hint on the stream; on this host and from an agent,
//! through restarts of either, and without the secrets in it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::order::{Output, SERVER};
use domain::printed::Source;
use futures::StreamExt;
use harness::eventually;
use harness::fantoccini::Locator;
use harness::peers::{Chromium, Nats};
use harness::world::{Alert, Ledger, Plan, SOON, World};
use serde_json::{Value, json};

use crate::agents::{plan_over, signed};

/// The token of the source, which the server knows for a secret, in two halves.
const HALVES: [&str; 2] = ["test-only-source-to", "ken-0123456789abcdef"];

/// Makes the ledger's program print, with the secret in two pieces, until the file that is returned is there.
pub(crate) fn chatty(plan: &Plan, ledger: &Ledger) -> anyhow::Result<PathBuf> {
    let (lines, release) = (plan.dir().join("ledger"), plan.dir().join("release"));
    let text = format!(
        "#!/bin/sh\necho \"$*\" >> '{}'\necho begin\nprintf 'token {}'\nsleep 1\nprintf '{} end\\n'\necho oops >&2\n\
         until [ -e '{}' ]; do echo tick; sleep 0.2; done\necho bye\n",
        lines.display(),
        HALVES[0],
        HALVES[1],
        release.display()
    );
    let script = plan.script("to-ledger", &text)?;
    ensure!(script == ledger.program, "it is another program");
    Ok(release)
}

/// What the one run that there is prints now, once it is like this.
async fn live(world: &World, is: impl Fn(&Value) -> bool) -> anyhow::Result<(String, Value)> {
    eventually(SOON, async || {
        let runs = world.runs().await?;
        let id = runs.first().and_then(|run| run["id"].as_str()).context("there is no run")?.to_owned();
        let live = world.get(&format!("/runs/{id}")).await?["live"].clone();
        ensure!(is(&live[0]), "{live}");
        Ok((id, live[0].clone()))
    })
    .await
}

fn prints(live: &Value, text: &str) -> bool {
    live["stdout"]["text"].as_str().is_some_and(|stdout| stdout.contains(text))
}

fn no_secret(text: &str) -> anyhow::Result<()> {
    let (first, second) = (&HALVES[0][..12], &HALVES[1][4..]);
    ensure!(!text.contains(first) && !text.contains(second), "half a secret is seen: {text}");
    Ok(())
}

/// Everything that watches sees the step; the secret is whole to the redactor, though it came in two pieces.
pub(crate) async fn seen_everywhere(world: &World) -> anyhow::Result<String> {
    live(world, |live| prints(live, "begin")).await?;
    let (id, seen) = live(world, |live| prints(live, "tick") && !live["stderr"]["text"].as_str().unwrap_or_default().is_empty()).await?;
    no_secret(&seen.to_string())?;
    ensure!(prints(&seen, "begin\ntoken [redacted] end\ntick\n"), "{seen}");
    assert_eq!((&seen["step"], &seen["stderr"]["text"]), (&json!("write"), &json!("oops\n")));
    let console = world.console("ann").await?;
    for path in [format!("/runs/{id}"), "/incidents/1".to_owned()] {
        let page = console.wait_for(&path, "tick", SOON).await?;
        ensure!(page.contains("token [redacted] end") && page.contains(&format!("data-run=\"{id}\"")), "{page}");
        no_secret(&page)?;
    }
    let stream = world.http().get(format!("{}/api/v1/stream", world.url())).bearer_auth(world.token("ann").await?).send().await?;
    let mut events = stream.bytes_stream();
    let told = async {
        let mut text = String::new();
        while !text.contains("event: printed") {
            text.push_str(&String::from_utf8_lossy(&events.next().await.context("the stream ended")??));
        }
        ensure!(text.contains(&format!("{{\"run\":\"{id}\"}}")), "{text}");
        Ok(())
    };
    tokio::time::timeout(SOON, told).await.context("nothing was told on the stream")??;
    Ok(id)
}

/// `run watch` shows it, and how it ends.
pub(crate) async fn watched(world: &World, id: &str, release: &PathBuf) -> anyhow::Result<()> {
    let token = world.dir().join("token");
    fs::write(&token, world.token("ann").await?)?;
    let mut watch = world.command(&["run", "watch", id, "--server", &world.url(), "--token-file"]).arg(&token).spawn()?;
    // It ends only when it is watched.
    eventually(SOON, async || {
        ensure!(watch.log().contains("tick\ntick\n"), "{}", watch.log());
        Ok(())
    })
    .await?;
    fs::write(release, "")?;
    let ended = watch.wait(SOON).await?;
    let said = watch.log();
    ensure!(ended.success(), "{ended}: {said}");
    ensure!(said.starts_with("begin\ntoken [redacted] end\n") && said.contains("oops\n") && said.contains("tick\ntick\n"), "{said}");
    ensure!(said.contains("tick\nbye\nwrite: succeeded: ") && said.contains("\nrestart-service succeeded: "), "{said}");
    no_secret(&said)
}

#[tokio::test]
async fn what_a_command_on_this_host_prints_is_seen_while_it_runs_and_after_a_restart() -> anyhow::Result<()> {
    let (mut world, ledger, release) = chatting("at_most_once").await?;
    seen_everywhere(&world).await?;
    // The shim wrote it down, so the next start shows it from the beginning.
    world.kill9()?;
    world.start().await?;
    let id = seen_everywhere(&world).await?;
    watched(&world, &id, &release).await?;
    let run = world.run_in("succeeded", SOON).await?;
    assert_eq!(run["live"], json!([]), "what is over is in the journal");
    assert_eq!(ledger.lines(), ["once"]);
    Ok(())
}

/// A server whose default runbook runs the chatty program by itself, and what ends that.
async fn chatting(effect: &str) -> anyhow::Result<(World, Ledger, PathBuf)> {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?;
    let ledger = plan.ledger()?;
    let release = chatty(&plan, &ledger)?;
    plan.config["routes"][0]["remedy"]["mode"] = json!("auto");
    let with = json!({ "program": ledger.program, "args": ["once"] });
    let step = json!({ "id": "write", "uses": "command", "with": with, "effect": effect, "timeout": "15m" });
    plan.merge(json!({ "runbooks": { "restart-service": { "steps": [step], "verify": null } } }));
    let world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    Ok((world, ledger, release))
}

#[tokio::test]
async fn an_open_page_follows_by_itself() -> anyhow::Result<()> {
    let (world, _, release) = chatting("at_most_once").await?;
    let (id, _) = live(&world, |live| prints(live, "tick")).await?;
    let browser = Chromium::start().await?;
    let page = browser.page();
    page.goto(&world.login_link("ann").await?).await?;
    page.find(Locator::Css("button.primary")).await?.click().await?;
    page.wait().at_most(SOON).for_element(Locator::Css("#live[data-state=on]")).await?;
    page.goto(&format!("{}/runs/{id}", world.url())).await?;
    let shown = async || anyhow::Ok(page.find(Locator::Css("pre.live")).await?.text().await?);
    page.wait().at_most(SOON).for_element(Locator::Css("pre.live")).await?;
    // Gone if anybody loads the page again.
    page.execute("window.kept = true", vec![]).await?;
    let before = shown().await?;
    ensure!(before.starts_with("begin\ntoken [redacted] end\ntick"), "{before}");
    eventually(SOON, async || {
        let now = shown().await?;
        ensure!(now.len() > before.len() + 20, "it stays {now:?}");
        Ok(())
    })
    .await?;
    browser.screenshot(world.dir().join("live.png")).await?;
    fs::write(release, "")?;
    page.wait().at_most(SOON).for_element(Locator::Css(".badge.succeeded")).await?;
    assert_eq!(page.execute("return window.kept", vec![]).await?, json!(true));
    let violations = browser.csp_violations().await?;
    ensure!(violations.is_empty(), "the page broke its own policy: {violations:#?}");
    Ok(())
}

#[tokio::test]
async fn a_flood_is_cut_and_holds_nobody_up() -> anyhow::Result<()> {
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?;
    let ledger = plan.ledger()?;
    let release = plan.dir().join("release");
    // As fast as it can, and on one line without an end too.
    let text = format!(
        "#!/bin/sh\nyes 'line of a flood' | head -c 40000000\nyes xyz | tr -d '\\n' | head -c 5000000 >&2\nfor i in 1 2 3; do echo last; done\n\
         until [ -e '{}' ]; do sleep 0.1; done\n",
        release.display()
    );
    plan.script("to-ledger", &text)?;
    plan.config["routes"][0]["remedy"]["mode"] = json!("auto");
    let step = json!({ "id": "write", "uses": "command", "with": { "program": ledger.program, "args": [] }, "timeout": "15m" });
    plan.merge(json!({ "runbooks": { "restart-service": { "steps": [step], "verify": null } } }));
    let world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    let (id, seen) = live(&world, |live| prints(live, "last\nlast\nlast\n")).await?;
    let shown = seen["stdout"]["text"].as_str().unwrap_or_default();
    ensure!(shown.len() <= domain::printed::SHOWN && shown.lines().all(|line| matches!(line, "line of a flood" | "last")), "{shown}");
    ensure!(seen["stderr"]["text"].as_str().is_some_and(|text| text.len() <= domain::printed::SHOWN), "too much is kept");
    let folder = world.dir().join("data/executions").join(format!("{id}-0-1"));
    let kept: u64 = fs::read_dir(&folder)?.flatten().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum();
    ensure!(kept < 1024 * 1024, "{kept} bytes are kept in {}", folder.display());
    fs::write(release, "")?;
    world.run_in("succeeded", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn what_only_looks_is_seen_too() -> anyhow::Result<()> {
    let (world, _, release) = chatting("read_only").await?;
    seen_everywhere(&world).await?;
    fs::write(release, "")?;
    world.run_in("succeeded", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn what_an_agent_does_is_seen_through_restarts_of_either_side() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let link = json!({ "url": nats.url() });
    let (plan, mut edge, ledger) = plan_over(&link, &link, &["once"], "15m").await?;
    let release = chatty(&plan, &ledger)?;
    edge.start()?;
    let mut world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    let id = seen_everywhere(&world).await?;
    // What others say that it prints is not believed; if the agent itself says it, it is.
    let client = async_nats::connect(nats.url()).await?;
    let forged = Output {
        iss: "edge".to_owned(),
        aud: SERVER.to_owned(),
        jti: format!("{id}-0-1"),
        iat: 0,
        source: Source::Stdout,
        offset: 1_000_000,
        oldest: true,
        text: STANDARD.encode("forged\n".repeat(1000)),
    };
    let say = async |key: &str| {
        client.publish("watchkeeper.agent.edge.output", signed(&forged, &world.dir().join(key))?.into()).await?;
        client.flush().await?;
        anyhow::Ok(())
    };
    say("stranger.pem").await?;
    // Time in which it could be believed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (_, seen) = live(&world, |_| true).await?;
    ensure!(!prints(&seen, "forged"), "{seen}");
    say("edge.pem").await?;
    live(&world, |live| prints(live, "forged")).await?;
    // A server that has missed the beginning asks for it.
    world.kill9()?;
    world.start().await?;
    seen_everywhere(&world).await?;
    edge.kill9()?;
    let (_, before) = live(&world, |_| true).await?;
    edge.start()?;
    let more = |live: &Value| live["stdout"]["lines"].as_u64() > before["stdout"]["lines"].as_u64().map(|lines| lines + 10);
    let (id, _) = live(&world, more).await?;
    watched(&world, &id, &release).await?;
    world.run_in("succeeded", SOON).await?;
    assert_eq!(ledger.lines(), ["once"]);
    Ok(())
}
