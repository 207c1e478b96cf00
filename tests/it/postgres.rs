//! The main job over PostgreSQL, and what a database that goes away means: 503, alive, and back without a restart.

use anyhow::{Context, ensure};
use harness::eventually;
use harness::peers::{Postgres, Stop};
use harness::world::{Alert, Plan, SOON, body};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::replicas::replica;

#[tokio::test]
async fn an_alert_is_approved_remedied_verified_and_closed() -> anyhow::Result<()> {
    let database = Postgres::shared().await?.create_database().await?;
    let world = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.postgres(&database)?.start().await?;
    world.service_is(true).await?;
    world.kill_service()?;
    let alert = Alert::service_down();
    world.send(std::slice::from_ref(&alert)).await?;
    let approval = eventually(SOON, async || {
        let waiting = world.get("/approvals").await?;
        waiting["items"][0]["id"].as_str().map(str::to_owned).context("nothing waits for approval")
    })
    .await?;
    let decided = json!({ "decision": "approve" });
    let answer = world.call("ben", Method::POST, &format!("/approvals/{approval}/decision"), Some(&decided)).await?;
    ensure!(answer.status.is_success(), "{} {}", answer.status, answer.json);
    world.service_is(true).await?;
    world.run_in("succeeded", SOON).await?;
    world.send(&[alert.resolved()]).await?;
    world.incident_in(1, "closed", SOON).await?;
    Ok(())
}

/// A remedy that works makes its alerts resolve just when the check passes: both change the incident.
#[tokio::test]
async fn a_run_ends_whatever_happens_to_its_incident_at_that_moment() -> anyhow::Result<()> {
    const CHANGE: &str = "begin;
        update incidents set version = version + 1, doc = jsonb_set(doc::jsonb, '{version}', to_jsonb(version + 1))::text;
        do $$ begin
            for n in 1..1200 loop
                exit when exists (select 1 from pg_locks l where not l.granted and pg_backend_pid() = any(pg_blocking_pids(l.pid)));
                perform pg_sleep(0.05);
            end loop;
        end $$;
        commit;";
    let postgres = Postgres::shared().await?;
    let database = postgres.create_database().await?;
    let checked = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut plan = replica("a", &database)?;
    let ledger = plan.ledger()?;
    let step = json!({ "id": "write", "uses": "command", "with": { "program": ledger.program, "args": ["once"] } });
    let verify = json!({ "uses": "http.check", "with": { "url": format!("http://{}/", checked.local_addr()?) } });
    plan.config["routes"][0]["remedy"] = json!({ "runbook": "restart-service", "mode": "auto" });
    plan.config["runbooks"]["restart-service"] = json!({ "approval": { "roles": ["sre"] }, "steps": [step], "verify": verify });
    let world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    let (mut asks, _) = tokio::time::timeout(SOON, checked.accept()).await??;
    // Somebody has changed the incident, and commits that once the end of the run waits for it.
    let held = database.clone();
    let changes = tokio::spawn(async move { postgres.psql(&held, CHANGE).await });
    eventually(SOON, async || {
        let found = postgres.psql(&database, "select count(*) from pg_locks l join pg_class c on c.oid = l.relation where c.relname = 'incidents' and l.mode = 'RowExclusiveLock' and l.database = (select oid from pg_database where datname = current_database())").await?;
        ensure!(found == "1", "nobody has the incident: {found}");
        Ok(())
    })
    .await?;
    let mut request = [0; 4096];
    ensure!(asks.read(&mut request).await? > 0, "nothing was asked");
    asks.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await?;
    changes.await??;
    let run = world.run_in("succeeded", SOON).await?;
    let attempts: Vec<_> = run["attempts"].as_array().into_iter().flatten().map(|attempt| attempt["state"].as_str()).collect();
    assert_eq!((attempts, ledger.lines()), (vec![Some("succeeded"); 2], vec!["once".to_owned()]));
    world.incident_in(1, "mitigated", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn while_the_database_is_away_senders_are_told_to_come_again() -> anyhow::Result<()> {
    let mut postgres = Postgres::start().await?;
    let database = postgres.create_database().await?;
    let world = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.postgres(&database)?.allow("store").allow("after_connect").start().await?;
    world.send(&[Alert::new("Before")]).await?;
    postgres.stop(Stop::Immediate).await?;
    let answer = world.post(body(&[Alert::new("Meanwhile")]).to_string()).await?;
    assert_eq!(answer.status.as_u16(), 503, "{}", answer.json);
    let alive = world.http().get(format!("{}/livez", world.url())).send().await?;
    assert_eq!(alive.status().as_u16(), 200);
    postgres.resume().await?;
    eventually(SOON, async || world.send(&[Alert::new("After")]).await).await?;
    eventually(SOON, async || {
        let incidents = world.incidents().await?;
        ensure!(incidents.len() == 2, "{} incidents", incidents.len());
        Ok(())
    })
    .await
}
