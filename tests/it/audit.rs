//! The audit log through the real program: sealed while it runs, verified beside it, offline and as evidence; and without it nothing happens.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::peers::Postgres;
use harness::world::{Alert, Plan, SOON, World, body};
use harness::{Cmd, Done, eventually};
use reqwest::Method;
use serde_json::{Value, json};

pub(crate) fn plan() -> anyhow::Result<Plan> {
    Ok(Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.with(json!({ "audit": { "checkpoint_every": "1s" } })))
}

pub(crate) async fn say(args: &[&str], paths: &[&Path]) -> anyhow::Result<Done> {
    let cmd = Cmd::new(env!("CARGO_BIN_EXE_watchkeeper")).args(args);
    paths.iter().fold(cmd, |cmd, path| cmd.arg(path)).run(SOON).await
}

/// An incident from its alert to its end, with an approval.
async fn live_through_an_incident(world: &World) -> anyhow::Result<()> {
    world.service_is(true).await?;
    world.kill_service()?;
    let alert = Alert::service_down();
    world.send(std::slice::from_ref(&alert)).await?;
    decide(world, "approve").await?;
    world.run_in("succeeded", SOON).await?;
    world.send(&[alert.resolved()]).await?;
    world.incident_in(1, "closed", SOON).await?;
    Ok(())
}

async fn decide(world: &World, decision: &str) -> anyhow::Result<u16> {
    let approval = eventually(SOON, async || {
        let waiting = world.get("/approvals").await?;
        waiting["items"][0]["id"].as_str().map(str::to_owned).context("nothing waits for approval")
    })
    .await?;
    let path = format!("/approvals/{approval}/decision");
    Ok(world.call("ben", Method::POST, &path, Some(&json!({ "decision": decision }))).await?.status.as_u16())
}

/// Once everything that was written is sealed and covered.
pub(crate) async fn settled(config: &Path) -> anyhow::Result<Value> {
    eventually(SOON, async || {
        let done = say(&["audit", "verify", "-o", "json", "--config"], &[config]).await?;
        ensure!(done.status.code() == Some(0), "{} {}", done.stdout, done.stderr);
        let report: Value = serde_json::from_str(&done.stdout)?;
        ensure!(report["unsealed"] == 0 && report["covered"] == report["rows"], "{report}");
        Ok(report)
    })
    .await
}

pub(crate) async fn unsound(args: &[&str], paths: &[&Path], why: &str) -> anyhow::Result<()> {
    let done = say(args, paths).await?;
    ensure!(done.status.code() == Some(1) && done.stdout.contains(why), "{args:?}: {why:?} is missing in {} {}", done.stdout, done.stderr);
    Ok(())
}

#[tokio::test]
async fn what_was_done_is_sealed_and_verifies_beside_the_server_and_offline() -> anyhow::Result<()> {
    let mut world = plan()?.start().await?;
    live_through_an_incident(&world).await?;
    let rows = world.audit().await?;
    for action in
        ["server.start", "sign_in", "token.create", "incident.open", "approval.ask", "approve", "run.start", "step.start", "run.end"]
    {
        ensure!(rows.iter().any(|row| row["action"] == action), "{action} is not in the log");
    }
    let report = settled(&world.config()).await?;
    ensure!(report["rows"].as_u64() >= Some(rows.len() as u64) && report["keyed"] == true, "{report}");

    let config = world.config();
    let key = say(&["audit", "public-key", "--config"], &[&config]).await?.ok()?.trim().to_owned();
    let [all, some] = ["all.jsonl", "some.jsonl"].map(|name| world.dir().join(name));
    say(&["audit", "export", "--config"], &[&config, Path::new("--to"), &all]).await?.ok()?;
    say(&["audit", "export", "--actor", "ben", "--config"], &[&config, Path::new("--to"), &some]).await?.ok()?;
    let offline = ["audit", "verify", "--public-key", &key, "--file"];
    for file in [&all, &some] {
        let text = say(&offline, &[file]).await?.ok()?;
        ensure!(text.contains("is sound") && text.contains("keyed hashes were not checked"), "{text}");
        let keyed = say(&offline, &[file, Path::new("--key-file"), &world.dir().join("data/keys/audit")]).await?.ok()?;
        ensure!(keyed.contains("is sound") && !keyed.contains("not checked"), "{keyed}");
    }
    let text = fs::read_to_string(&some)?;
    ensure!(text.contains("principal:ben") && !text.contains("server.start"), "only what was asked for is there in full");

    let text = fs::read_to_string(&all)?;
    let forged = world.dir().join("forged.jsonl");
    let lines: Vec<&str> = text.lines().collect();
    let link = lines.iter().position(|line| line.contains("\"approve\"")).context("the approval is in the log")?;
    let without = |n: usize| lines.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, line)| *line).collect::<Vec<_>>().join("\n");
    for (change, why) in [
        (text.replace("principal:ben", "principal:eve"), "is not what was sealed"),
        // What else is wrong depends on where its batch ends.
        (without(link), "up to batch"),
        (lines[..lines.len() - 3].join("\n"), "something was cut off"),
        (text.replace("\"rows\":", "\"rows\":1"), "checkpoint"),
    ] {
        fs::write(&forged, change)?;
        unsound(&offline, &[&forged], why).await?;
    }
    unsound(&["audit", "verify", "--public-key", &"0".repeat(64), "--file"], &[&all], "not among the trusted").await?;
    // The first batch is taken away, and the first line, which nobody signs, says that this is how it should be.
    let of_first = |line: &str| line.contains("\"batch\":1,") && !line.starts_with("{\"checkpoint\"");
    let rest: Vec<&str> = lines.iter().copied().filter(|line| !of_first(line)).collect();
    ensure!(rest.len() < lines.len(), "{text}");
    let count = format!("\"lines\":{}", rest.len() - 1);
    let shorter = rest.join("\n").replace("\"part\":false", "\"part\":true").replace(&format!("\"lines\":{}", lines.len() - 1), &count);
    fs::write(&forged, shorter)?;
    unsound(&offline, &[&forged], "begins in the middle").await?;

    // What lies in the data folder of a server that does not run, or in a copy of it.
    let copy = world.dir().join("copy");
    world.stop().await?;
    copy_data(&world, &copy)?;
    world.start().await?;
    world.send(&[Alert::new("Later")]).await?;
    world.incident_in(2, "open", SOON).await?;
    settled(&config).await?;
    world.stop().await?;
    for data in [&copy, &world.dir().join("data")] {
        let text = say(&["audit", "verify", "--data"], &[data]).await?.ok()?;
        ensure!(text.contains("is sound"), "{text}");
    }
    let later = world.dir().join("data/audit-checkpoints.jsonl");
    unsound(&["audit", "verify", "--data"], &[&copy, Path::new("--checkpoints"), &later], "the chain ends with batch").await?;
    let database = copy.join("watchkeeper.db");
    let bytes = fs::read(&database)?;
    fs::write(&database, replace(&bytes, b"principal:ben", b"principal:eve"))?;
    unsound(&["audit", "verify", "--data"], &[&copy], "does not fit its keyed hash").await?;
    fs::write(&database, &bytes)?;
    fs::write(copy.join("keys/audit"), "ab".repeat(32))?;
    unsound(&["audit", "verify", "--data"], &[&copy], "this is not the key").await
}

/// What is promised is measured by the store's own times: the row's, and that of the seal of its batch.
#[tokio::test]
async fn rows_are_sealed_within_a_second() -> anyhow::Result<()> {
    let url = Postgres::shared().await?.create_database().await?;
    for plan in [plan()?, plan()?.postgres(&url)?] {
        let world = plan.start().await?;
        // At other moments between two looks of the sealer, and never so many at once that the writer is what is measured.
        for n in 0..60 {
            world.send(&[Alert::new(&format!("N{n}"))]).await?;
            tokio::time::sleep(Duration::from_millis(53)).await;
        }
        settled(&world.config()).await?;
        let waits = waits(&world).await?;
        ensure!(waits.len() >= 60, "{waits:?}");
        let (median, slowest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
        ensure!(median < Duration::from_secs(1), "half of the rows waited longer than {median:?}: {waits:?}");
        // Each of them on a machine of its own. Here the disk and two cores are shared with other tests, whose syncs a seal may have to wait for.
        ensure!(slowest < Duration::from_secs(3), "the last row waited for {slowest:?}: {waits:?}");
    }
    Ok(())
}

/// How long each row waited for its seal, from the shortest.
async fn waits(world: &World) -> anyhow::Result<Vec<Duration>> {
    let text = say(&["audit", "export", "--config"], &[&world.config()]).await?.ok()?;
    let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let at = |value: &Value| value["at"].as_str().context("no time")?.parse::<jiff::Timestamp>().context("no time");
    let seals = lines.iter().filter_map(|line| line.get("seal"));
    let sealed = seals.map(|seal| Ok((seal["batch"].as_i64(), at(seal)?))).collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    let links = lines.iter().filter_map(|line| line.get("link"));
    let wait = |link: &Value| {
        let sealed = sealed.get(&link["batch"].as_i64()).context("a batch has no seal")?;
        Ok(sealed.duration_since(at(&link["row"])?).unsigned_abs())
    };
    let mut waits = links.map(wait).collect::<anyhow::Result<Vec<_>>>()?;
    waits.sort();
    Ok(waits)
}

/// Where the data folder is not to be had, or not to be believed, what the log sink kept is enough: the log as it is.
#[tokio::test]
async fn a_checkpoint_that_only_the_log_sink_kept_verifies() -> anyhow::Result<()> {
    for format in ["json", "text"] {
        let mut world = plan()?.with(json!({ "log": { "format": format } })).start().await?;
        live_through_an_incident(&world).await?;
        settled(&world.config()).await?;
        let copy = world.dir().join("copy");
        world.stop().await?;
        let early = world.log();
        copy_data(&world, &copy)?;
        fs::remove_file(copy.join("audit-checkpoints.jsonl"))?;
        let log = world.dir().join("kept.log");
        fs::write(&log, &early)?;
        let verify = ["audit", "verify", "-o", "json", "--data"];
        let covered = async |more: &[&Path]| -> anyhow::Result<(Value, Value)> {
            let report: Value = serde_json::from_str(&say(&verify, &[&[copy.as_path()][..], more].concat()).await?.ok()?)?;
            Ok((report["covered"].clone(), report["rows"].clone()))
        };
        let (none, rows) = covered(&[]).await?;
        ensure!(none == 0 && rows.as_u64() > Some(5), "{format}: {none} of {rows} are covered without any");
        assert_eq!(covered(&[Path::new("--checkpoints"), &log]).await?, (rows.clone(), rows), "{format}");

        // It sees that the end was cut off, by itself.
        world.start().await?;
        world.send(&[Alert::new("Later")]).await?;
        world.incident_in(2, "open", SOON).await?;
        world.stop().await?;
        let with_log = async |text: &str, why: &str| {
            fs::write(&log, text)?;
            unsound(&["audit", "verify", "--data"], &[&copy, Path::new("--checkpoints"), &log], why).await
        };
        with_log(&world.log(), "the chain ends with batch").await?;
        // Who writes another into it has not the key.
        with_log(&early.replace("\"rows\":", "\"rows\":1").replace("\\\"rows\\\":", "\\\"rows\\\":1"), "its signature is wrong").await?;
        fs::write(&log, "nothing of the kind\n")?;
        let none = say(&["audit", "verify", "--data"], &[&copy, Path::new("--checkpoints"), &log]).await?;
        ensure!(!none.status.success() && none.stderr.contains("there is no checkpoint in"), "{format}: {}", none.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn evidence_proves_itself_and_shows_what_was_done_to_it() -> anyhow::Result<()> {
    let world = plan()?.start().await?;
    live_through_an_incident(&world).await?;
    let told = world.get("/incidents/1/timeline").await?.to_string();
    assert_eq!(told.matches("== host ==").count(), 1, "evidence is told once");
    let config = world.config();
    settled(&config).await?;
    let key = say(&["audit", "public-key", "--config"], &[&config]).await?.ok()?.trim().to_owned();
    let tar = world.dir().join("evidence.tar");
    let export = ["evidence", "export", "--incident", "1", "--config"];
    say(&export, &[&config, Path::new("--to"), &tar]).await?.ok()?;
    let again = say(&export, &[&config, Path::new("--to"), &tar]).await?;
    ensure!(again.status.code() == Some(1), "nothing is written over: {}", again.stdout);
    let verify = ["evidence", "verify", "--public-key", &key];
    let text = say(&verify, &[&tar]).await?.ok()?;
    ensure!(text.contains("about incident 1") && text.contains("is sound"), "{text}");
    let report = say(&["evidence", "verify", "-o", "json", "--public-key", &key], &[&tar]).await?.ok()?;
    let report: Value = serde_json::from_str(&report)?;
    let paths: Vec<&str> = report["manifest"]["files"].as_array().into_iter().flatten().filter_map(|file| file["path"].as_str()).collect();
    for part in
        ["incident.json", "alerts.json", "timeline.json", "run.json", "attempts.json", "approvals.json", "watchkeeper.yaml", "audit.jsonl"]
    {
        ensure!(paths.iter().any(|path| path.ends_with(part)), "{part} is not in {paths:?}");
    }
    ensure!(report["audit"]["rows"].as_u64() > Some(5) && report["audit"]["covered"] == report["audit"]["rows"], "{}", report["audit"]);

    let bytes = fs::read(&tar)?;
    let forged = world.dir().join("forged.tar");
    for (from, to, why) in [
        ("\"requester\"", "\"requested\"", "run.json was changed"),
        ("ServiceDown", "ServiceGone", "was changed"),
        ("principal:ben", "principal:eve", "is not what was sealed"),
        ("\"incident\": 1,", "\"incident\": 2,", "manifest.json: its signature is wrong"),
    ] {
        fs::write(&forged, replace(&bytes, from.as_bytes(), to.as_bytes()))?;
        unsound(&verify, &[&forged], why).await.with_context(|| from.to_owned())?;
    }
    unsound(&["evidence", "verify", "--public-key", &"0".repeat(64)], &[&tar], "not among the trusted").await?;
    fs::write(&forged, &bytes[..bytes.len() / 2])?;
    ensure!(say(&verify, &[&forged]).await?.status.code() == Some(1), "half a tar is none");
    let none = say(&["evidence", "export", "--incident", "77", "--config"], &[&config, Path::new("--to"), &world.dir().join("x")]).await?;
    ensure!(none.status.code() == Some(1) && none.stderr.contains("there is no incident 77"), "{}", none.stderr);
    Ok(())
}

#[tokio::test]
async fn the_page_shows_what_is_sealed_and_what_was_changed_to_those_who_may_see_it() -> anyhow::Result<()> {
    let postgres = Postgres::shared().await?;
    let url = postgres.create_database().await?;
    let database = url.rsplit('/').next().unwrap_or_default().to_owned();
    let world = plan()?.postgres(&url)?.start().await?;
    world.send(&[Alert::new("Odd <b>name</b>")]).await?;
    world.incident_in(1, "open", SOON).await?;
    let console = world.console("ann").await?;
    let page = console.wait_for("/audit", "incident.open", SOON).await?;
    ensure!(page.contains("server.start") && page.contains("sign_in") && !page.contains("<b>name"), "{page}");
    console.wait_for("/audit", "Sealed up to row", SOON).await?;
    let page = console.page("/audit?actor=ann&action=sign&object=").await?;
    ensure!(page.contains("sign_in") && !page.contains("server.start"), "{page}");
    ensure!(!page.contains("are not what was written"), "{page}");
    // What is sealed while it is verified belongs to the next time.
    settled(&world.config()).await?;
    postgres.psql(&database, "update audit set actor = 'principal:eve' where action = 'incident.open'").await?;
    let page = console.page("/audit").await?;
    ensure!(page.contains("1</b> rows on this page") || page.contains("1 rows on this page"), "{page}");
    unsound(&["audit", "verify", "--config"], &[&world.config()], "does not fit its keyed hash").await?;

    let other = world.console("ben").await?;
    ensure!(!other.page("/incidents").await?.contains("href=\"/audit\""), "ben has no right to it");
    let refused = other.page("/audit").await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("403")), "ben has no right to it");
    let rows = world.audit().await?;
    ensure!(
        rows.iter().any(|row| row["actor"] == "principal:ben" && row["action"] == "GET /audit" && row["decision"] == "refused"),
        "{rows:?}"
    );
    Ok(())
}

const BREAK: &str = "create function no_audit() returns trigger language plpgsql as $$ begin raise exception 'no audit today'; end $$; \
                     create trigger no_audit before insert on audit for each row execute function no_audit()";

#[tokio::test]
async fn without_its_audit_row_nothing_happens() -> anyhow::Result<()> {
    let postgres = Postgres::shared().await?;
    let url = postgres.create_database().await?;
    let database = url.rsplit('/').next().unwrap_or_default().to_owned();
    let mut world = plan()?.postgres(&url)?.allow("audit").allow("configuration was not loaded").start().await?;
    for name in ["ann", "ben"] {
        world.token(name).await?;
    }
    let link = world.login_link("cleo").await?;
    world.service_is(true).await?;
    world.kill_service()?;
    world.send(&[Alert::service_down()]).await?;
    world.run_in("awaiting_approval", SOON).await?;
    let before = world.audit().await?.len();
    postgres.psql(&database, BREAK).await?;

    let refused = |what: &str, status: u16| {
        let ok = status >= 400 || status == 202;
        ensure!(ok, "{what} was answered with {status}");
        Ok(())
    };
    refused("an approval", decide(&world, "approve").await?)?;
    refused("an acknowledgement", ask(&world, "ben", "/incidents/1/ack", json!({})).await?)?;
    refused("a pause", ask(&world, "ann", "/automation", json!({ "paused": true, "reason": "x" })).await?)?;
    refused("a token", ask(&world, "ann", "/tokens", json!({ "name": "x", "rights": ["view"] })).await?)?;
    let (_, token) = link.split_once("token=").context("a link has a token")?;
    let post = world.http().post(format!("{}/login/link", world.url())).form(&[("token", token)]);
    let sign_in = post.header("origin", world.url()).send().await?;
    ensure!(sign_in.headers().get("set-cookie").is_none(), "cleo signed in: {}", sign_in.status());
    let stored = world.post(body(&[Alert::new("Meanwhile")]).to_string()).await?;
    assert_eq!(stored.status.as_u16(), 200, "what comes in is no action: it is stored, and waits");
    let file = world.config().join("watchkeeper.yaml");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replace("Restarts a service", "Begins a service anew"))?;
    world.proc()?.signal(harness::Signal::HUP)?;

    // Time in which it could happen all the same.
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.run_in("awaiting_approval", SOON).await?;
    ensure!(world.service_pids().is_empty() && !world.service_answers().await, "something was restarted");
    let incidents = world.incidents().await?;
    ensure!(incidents.len() == 1 && incidents[0]["state"] == "open", "{incidents:?}");
    ensure!(world.get("/tokens").await?["items"].as_array().map_or(0, Vec::len) == 2, "a token was made");
    ensure!(!is_paused(&world).await?, "automation was paused");
    ensure!(!world.get("/runbooks").await?.to_string().contains("anew"), "the changed rules are in force");
    assert_eq!(world.audit().await?.len(), before, "nothing was written");

    postgres.psql(&database, "drop trigger no_audit on audit").await?;
    eventually(SOON, async || {
        let incidents = world.incidents().await?;
        ensure!(incidents.len() == 2, "what waited was not decided: {incidents:?}");
        Ok(())
    })
    .await?;
    // What people asked for meanwhile was stored and waited: the approval, and the pause, which is taken back.
    eventually(SOON, async || {
        ensure!(is_paused(&world).await?, "the pause was lost");
        Ok(())
    })
    .await?;
    ensure!(ask(&world, "ann", "/automation", json!({ "paused": false, "reason": "over" })).await? == 200, "automation goes on");
    world.service_is(true).await?;
    world.run_in("succeeded", SOON).await?;
    settled(&world.config()).await?;
    Ok(())
}

async fn ask(world: &World, name: &str, path: &str, body: Value) -> anyhow::Result<u16> {
    Ok(world.call(name, Method::POST, path, Some(&body)).await?.status.as_u16())
}

async fn is_paused(world: &World) -> anyhow::Result<bool> {
    let flag = world.get("/automation").await?["automation"].clone();
    Ok(flag["paused"] == true || flag == true)
}

fn copy_data(world: &World, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to.join("keys"))?;
    for name in ["watchkeeper.db", "audit-checkpoints.jsonl", "keys/audit", "keys/checkpoint"] {
        fs::copy(world.dir().join("data").join(name), to.join(name)).with_context(|| name.to_owned())?;
    }
    Ok(())
}

/// All places of the same length replaced.
fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let mut found = 0;
    for at in 0..=bytes.len().saturating_sub(from.len()) {
        if bytes[at..].starts_with(from) {
            out[at..at + to.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0, "{:?} is not there", String::from_utf8_lossy(from));
    out
}
