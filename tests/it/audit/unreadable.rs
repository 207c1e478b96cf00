//! A row of the log that nobody can read: it keeps no other from being sealed, and people hear of it wherever they look.

use anyhow::{Context, ensure};
use harness::eventually;
use harness::peers::Postgres;
use harness::world::{Alert, SOON};

use super::{plan, say, unsound};

/// What is damaged is damaged before it is sealed.
const DAMAGE: &str = "create function damage() returns trigger language plpgsql as $$ begin new.detail := '{'; return new; end $$; \
                      create trigger damage before insert on audit for each row when (new.action = 'incident.open') execute function damage()";

#[tokio::test]
async fn a_row_that_cannot_be_read_is_told_and_the_log_goes_on_behind_it() -> anyhow::Result<()> {
    let postgres = Postgres::shared().await?;
    let url = postgres.create_database().await?;
    let database = url.rsplit('/').next().unwrap_or_default().to_owned();
    let world = plan()?.postgres(&url)?.allow("cannot be read").start().await?;
    postgres.psql(&database, DAMAGE).await?;
    world.send(&[Alert::new("Odd")]).await?;

    // Its own incident, whose opening is damaged, too: that is the same alert again.
    let told = eventually(SOON, async || {
        let incidents = world.incidents().await?;
        incidents.into_iter().find(|one| one.to_string().contains("AuditRowUnreadable")).context("no incident about it")
    })
    .await?;
    ensure!(told["source"] == "watchkeeper", "{told}");
    let rows = eventually(SOON, async || {
        let rows = world.audit().await?;
        let damaged = rows.iter().filter(|row| row["unreadable"].is_string()).count();
        ensure!(damaged == 2 && world.incidents().await?.len() == 2, "{rows:?}");
        Ok(rows)
    })
    .await?;
    let damaged: Vec<i64> = rows.iter().filter(|row| row["unreadable"].is_string()).filter_map(|row| row["seq"].as_i64()).collect();

    // Signing in leaves a row behind them, which is sealed.
    let console = world.console("ann").await?;
    let page = console.wait_for("/audit", "It cannot be read", SOON).await?;
    ensure!(page.contains("2 rows on this page are not what was written"), "{page}");
    let verify = ["audit", "verify", "-o", "json", "--config"];
    let report = eventually(SOON, async || {
        let report: serde_json::Value = serde_json::from_str(&say(&verify, &[&world.config()]).await?.stdout)?;
        ensure!(report["unsealed"] == 0 && report["covered"] == report["rows"], "{report}");
        Ok(report)
    })
    .await?;
    let faults = report["faults"].as_array().context("no faults")?;
    ensure!(faults.iter().all(|fault| fault["kind"] == "unreadable"), "{report}");
    ensure!(faults.iter().filter_map(|fault| fault["seq"].as_i64()).collect::<Vec<_>>() == damaged, "{report}");
    ensure!(world.count("watchkeeper_audit_rows_unreadable_total").await? == 2.0, "they are counted");
    ensure!(world.metric("watchkeeper_audit_unsealed_oldest_seconds").await? < 60.0, "rows wait");
    let ready = world.http().get(format!("{}/readyz", world.url())).send().await?.text().await?;
    ensure!(ready.contains("[+]audit: "), "{ready}");

    // So is an export, offline.
    let export = world.dir().join("all.jsonl");
    say(&["audit", "export", "--config"], &[&world.config(), std::path::Path::new("--to"), &export]).await?.ok()?;
    unsound(&["audit", "verify", "--file"], &[&export], "cannot be read, and could not be when it was sealed").await
}
