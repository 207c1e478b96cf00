//! Several replicas: what one carries out is watched on another, through a restart of the one that carries it out.

use harness::peers::Postgres;
use harness::world::{Alert, Plan, SOON};
use serde_json::json;

use crate::live::{chatty, seen_everywhere, watched};
use crate::replicas::replica;

#[tokio::test]
async fn what_one_replica_carries_out_is_watched_on_another() -> anyhow::Result<()> {
    let database = Postgres::shared().await?.create_database().await?;
    let mut gateway = replica("gateway", &database)?.args(&["--only", "gateway"]);
    let mut worker = replica("worker", &database)?.args(&["--only", "worker"]);
    let ledger = worker.ledger()?;
    let release = chatty(&worker, &ledger)?;
    let with_run = |plan: &mut Plan| {
        plan.config["routes"][0]["remedy"] = json!({ "runbook": "restart-service", "mode": "auto" });
        let with = json!({ "program": ledger.program, "args": ["once"] });
        let step = json!({ "id": "write", "uses": "command", "with": with, "effect": "at_most_once", "timeout": "15m" });
        plan.merge(json!({
            "programs": [ledger.program],
            "runbooks": { "restart-service": { "params": null, "steps": [step], "verify": null } },
        }));
    };
    [&mut gateway, &mut worker].into_iter().for_each(with_run);
    let (gateway, mut worker) = (gateway.start().await?, worker.start().await?);
    gateway.send(&[Alert::service_down()]).await?;
    seen_everywhere(&gateway).await?;
    worker.kill9()?;
    worker.start().await?;
    let id = seen_everywhere(&gateway).await?;
    watched(&gateway, &id, &release).await?;
    gateway.run_in("succeeded", SOON).await?;
    assert_eq!(ledger.lines(), ["once"]);
    Ok(())
}
