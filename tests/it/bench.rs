//! `watchkeeper bench`, short: it runs on both stores, measures something, and would say if anything were lost.

use std::time::Duration;

use anyhow::{Context, ensure};
use harness::Cmd;
use harness::peers::Postgres;
use serde_json::Value;

async fn bench(args: &[&str]) -> anyhow::Result<Value> {
    let done =
        Cmd::new(env!("CARGO_BIN_EXE_watchkeeper")).arg("bench").args(args).args(["-o", "json"]).run(Duration::from_secs(120)).await?;
    let text = done.ok()?;
    let report: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(report["wrong"] == serde_json::json!([]), "{report}");
    Ok(report)
}

#[tokio::test]
async fn both_stores_take_alerts_and_lose_none() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    let url = Postgres::shared().await?.create_database().await?;
    for store in [&[][..], &["--store", url.as_str()]] {
        let args = [&["ingest", "--seconds", "1", "--alerts", "3"], store].concat();
        let report = bench(&args).await?;
        ensure!(report["accepted_alerts_alerts_s"].as_f64().is_some_and(|rate| rate > 1.0), "{report}");
    }
    Ok(())
}

#[tokio::test]
async fn a_store_in_use_is_not_filled() -> anyhow::Result<()> {
    let dir = harness::temp_dir("bench")?;
    let store = format!("sqlite:{}", dir.path().join("store.db").display());
    bench(&["ingest", "--seconds", "1", "--store", &store]).await?;
    let again = bench(&["ingest", "--seconds", "1", "--store", &store]).await;
    ensure!(again.is_err_and(|error| format!("{error:#}").contains("the store holds incidents")), "it was filled again");
    Ok(())
}

#[tokio::test]
async fn storms_and_reactions_are_measured_and_nothing_is_lost() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    let report = bench(&["storm", "--body", "300", "--alerts", "500", "--groups", "100", "--seconds", "3"]).await?;
    ensure!(report["clicks"].as_f64().is_some_and(|clicks| clicks > 0.0) && report["incidents"] == 51.0, "{report}");
    let url = Postgres::shared().await?.create_database().await?;
    for store in [&[][..], &["--store", url.as_str()]] {
        let report = bench(&[&["reaction", "--seconds", "1"], store].concat()).await?;
        for figure in ["alert_to_chat_call_p50_ms", "alert_to_command_p50_ms", "commands_per_bare_spawn", "chat_calls_per_bare_log's"] {
            ensure!(report[figure].as_f64().is_some_and(|value| value > 0.0), "{figure} in {report}");
        }
    }
    Ok(())
}
