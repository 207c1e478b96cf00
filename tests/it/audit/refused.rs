//! A database that takes no audit row: nothing happens without one.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::eventually;
use harness::peers::Postgres;
use harness::world::{Alert, SOON, World, body};
use reqwest::Method;
use serde_json::{Value, json};

use super::{decide, plan, settled};

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
