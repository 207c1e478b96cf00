//! A configuration that is read again and again under load, every second time a broken one: all of it or nothing is in force, and nobody is turned away.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use harness::world::{Alert, Plan, SOON, World};
use harness::{Signal, Tally, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::load::{Load, all_there};

/// How many ways there are to break a configuration.
const WAYS: u64 = 8;
/// Reloads of a round.
const RELOADS: u64 = 100;

/// The configuration of a generation. Its number stands in the title of every incident and decides how severe each is: by two sections of the file, so
/// that who mixes two generations shows it.
fn generation(base: &Value, name: &str, number: u64) -> Value {
    let mut config = base.clone();
    let red = |odd: bool| if (number % 2 == 1) == odd { json!(["red"]) } else { json!([]) };
    config["severities"] = json!([{ "name": "P1", "aliases": red(true) }, { "name": "P2", "aliases": red(false) }]);
    config["default_severity"] = json!("P2");
    config["routes"] = json!([{
        "name": "probe", "match": ["alertname=\"Probe\""],
        "incident": { "group_by": ["alertname", "n"], "title": format!("{name} {number} for {{{{ labels.n }}}}") },
    }]);
    config
}

/// Writes a configuration that cannot be loaded. All but the fault of it is a generation that must never be seen.
fn break_it(file: &Path, base: &Value, number: u64) -> anyhow::Result<()> {
    let mut config = generation(base, "broken", number);
    let route = &mut config["routes"][0];
    match number / 2 % WAYS {
        0 => {
            let whole = serde_json::to_string_pretty(&config)?;
            return put(file, &whole[..whole.len() / 2]);
        }
        1 => route["remady"] = json!({}),
        2 => route["match"] = json!(["alertname=~\"(\""]),
        3 => {
            config["sources"]["more"] = json!({ "kind": "generic", "auth": base["sources"]["am"]["auth"], "map": { "status": "body.state ==", "labels": { "alertname": "\"X\"" } } });
        }
        4 => config["sources"]["am"]["auth"]["bearer_file"] = json!("/nonexistent/token"),
        5 => route["remedy"] = json!({ "runbook": "nobody-wrote-it" }),
        6 => route["incident"]["title"] = json!("broken {{ labels.n"),
        _ => return fs::remove_file(file).context("the configuration"),
    }
    put(file, &config.to_string())
}

/// Moves it into place, as editors and configuration management do.
fn put(file: &Path, text: &str) -> anyhow::Result<()> {
    let new = file.parent().and_then(Path::parent).context("no folder")?.join("new.yaml");
    fs::write(&new, text)?;
    fs::rename(new, file).context("the configuration")
}

/// It is set before anything is served: what is counted that early is shown, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_never_told_to_reload_says_that_its_configuration_is_good() -> anyhow::Result<()> {
    let world = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.start().await?;
    let successful = world.metric("watchkeeper_config_last_reload_successful").await?;
    ensure!(successful > 0.5, "the metric of the last reload is {successful}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_reloads_under_load_half_are_broken_and_the_last_good_rules_stay() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    harness::rounds("reloads, half of them broken, under load", 1, async |tally| {
        let mut plan = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.allow("the configuration was not loaded");
        plan.merge(json!({ "targets": null, "runbooks": null }));
        let base = plan.config.clone();
        plan.config = generation(&base, "good", 0);
        let mut world = plan.start().await?;
        reloads(&mut world, &base, tally).await
    })
    .await
}

async fn reloads(world: &mut World, base: &Value, tally: &mut Tally) -> anyhow::Result<()> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(world.proc()?.pid())?).context("no process")?;
    let file = world.config().join("watchkeeper.yaml");
    let load = Load::start(&[world], 50);
    load.keeps(20, SOON).await?;
    let mut good = 0;
    for number in 1..=RELOADS {
        let (breaks, before) = (number % 2 == 0, in_force(world).await?);
        if breaks {
            break_it(&file, base, number)?;
            tally.faults += 1;
        } else {
            put(&file, &generation(base, "good", number).to_string())?;
        }
        // One alert comes while it is read.
        let during = format!("during-{number}");
        let (told, sent) = tokio::join!(ask(world, pid, number), probe(world, &during));
        told?;
        sent?;
        eventually(SOON, async || {
            let successful = world.metric("watchkeeper_config_last_reload_successful").await? > 0.5;
            ensure!(successful != breaks, "reload {number}: the metric says that the last was successful: {successful}");
            ensure!((in_force(world).await? == before) == breaks, "reload {number}: other rules are in force than should be");
            Ok(())
        })
        .await?;
        let allowed = if breaks { vec![good] } else { vec![good, number] };
        decided(world, &during, &allowed).await?;
        good = if breaks { good } else { number };
        let after = format!("after-{number}");
        probe(world, &after).await?;
        decided(world, &after, &[good]).await?;
    }
    let told = load.stop().await?;
    ensure!(told.failed.is_empty() && told.again.is_empty(), "{:?}, told to come again: {:?}", told.failed, told.again);
    all_there(world, &told.kept).await?;
    tally.lines += told.kept.len() as u64;
    let changes = world.audit().await?.iter().filter(|row| row["action"] == "config.reload").count() as u64;
    ensure!(changes == RELOADS.div_ceil(2), "{changes} changes of the rules are in the audit log");
    Ok(())
}

/// Asks for a reload in one of the ways that there are; the third, that somebody looks at the files, comes by itself.
async fn ask(world: &World, pid: rustix::process::Pid, number: u64) -> anyhow::Result<()> {
    if number.is_multiple_of(5) {
        return Ok(rustix::process::kill_process(pid, Signal::HUP)?);
    }
    let post = world.http().request(Method::POST, format!("{}/-/reload", world.url())).bearer_auth(world.token("ann").await?);
    let answer = post.send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success() == (number % 2 == 1), "reload {number} was answered with {status}: {text}");
    Ok(())
}

/// The digest of the rules in force.
async fn in_force(world: &World) -> anyhow::Result<Value> {
    Ok(world.get("/runbooks").await?["rule_set"].clone())
}

async fn probe(world: &World, name: &str) -> anyhow::Result<()> {
    world.send(&[Alert::new("Probe").label("n", name).label("severity", "red")]).await
}

/// Waits for the incident of a probe, which must be one of these generations throughout.
async fn decided(world: &World, name: &str, generations: &[u64]) -> anyhow::Result<()> {
    let ending = format!(" for {name}");
    let incident = eventually(SOON, async || {
        let newest = world.get("/incidents?limit=10").await?;
        let all = newest["items"].as_array().context("no list")?;
        let found = all.iter().find(|one| one["title"].as_str().is_some_and(|title| title.ends_with(&ending)));
        found.cloned().with_context(|| format!("nobody has decided about {name}: {newest}"))
    })
    .await?;
    let fits = |number: &u64| {
        let severity = if number % 2 == 1 { "P1" } else { "P2" };
        incident["title"] == format!("good {number}{ending}") && incident["severity_name"] == severity
    };
    ensure!(generations.iter().any(fits), "{name} was not decided by one of {generations:?}: {incident}");
    Ok(())
}
