//! Who has a job: claims that are renewed for as long as the work takes, processes that are stopped, cut off or gone past their lease, and replicas that
//! race.

mod cut_off;
mod gone;
mod races;
mod renewal;

use anyhow::ensure;
use harness::peers::Postgres;
use harness::world::{Alert, Ledger, Plan, SOON, World};
use harness::{Proxy, eventually};
use serde_json::{Value, json};

use crate::replicas::replica;

/// A run that writes `one`, waits, and writes `two`, by itself.
fn with_run(plan: &mut Plan, ledger: &Ledger, wait: &str) {
    let write = |word: &str| json!({ "id": word, "uses": "command", "with": { "program": ledger.program, "args": [word] } });
    let pause = json!({ "id": "pause", "uses": "wait", "with": { "for": wait }, "timeout": "60s" });
    plan.config["routes"][0]["remedy"]["mode"] = json!("auto");
    plan.config["routes"][0]["remedy"]["with"] = json!({});
    plan.merge(json!({
        "programs": [ledger.program],
        "runbooks": { "restart-service": { "params": null, "steps": [write("one"), pause, write("two")], "verify": null } },
    }));
}

/// Two replicas, `a` and `b`, each by its address of the database, and one ledger.
fn replicas(of_a: &str, of_b: &str) -> anyhow::Result<(Plan, Plan, Ledger)> {
    let (mut a, b) = (replica("a", of_a)?, replica("b", of_b)?);
    let ledger = a.ledger()?;
    Ok((a, b, ledger))
}

/// Two replicas with the same rules and one ledger, over a database of their own, whose address comes last.
pub(crate) async fn pair(postgres: &Postgres, wait: &str) -> anyhow::Result<(Plan, Plan, Ledger, String)> {
    let database = postgres.create_database().await?;
    let (mut a, mut b, ledger) = replicas(&database, &database)?;
    with_run(&mut a, &ledger, wait);
    with_run(&mut b, &ledger, wait);
    Ok((a, b, ledger, database))
}

/// Starts the pair and its run. Gives both and the name of who carries the run out.
pub(crate) async fn under_way(a: Plan, b: Plan, postgres: &Postgres, database: &str) -> anyhow::Result<(World, World, String)> {
    let (a, b) = (a.allow("the store").start().await?, b.allow("the store").start().await?);
    // Now, because it takes a while and the run waits for seconds only.
    a.token("ann").await?;
    a.send(&[Alert::service_down()]).await?;
    let name = holder(&a, postgres, database).await?;
    Ok((a, b, name))
}

/// Who carries the run out, once its second step is under way.
async fn holder(world: &World, postgres: &Postgres, database: &str) -> anyhow::Result<String> {
    eventually(SOON, async || {
        let run = the_run(world).await?;
        ensure!(run["attempts"].as_array().is_some_and(|all| all.iter().any(|one| one["step"] == "pause")), "it does not wait yet: {run}");
        let name = postgres.psql(database, "select instance from jobs where kind = 'run.advance' and state = 'claimed'").await?;
        ensure!(!name.is_empty(), "nobody has it");
        Ok(name)
    })
    .await
}

async fn the_run(world: &World) -> anyhow::Result<Value> {
    let runs = world.runs().await?;
    ensure!(runs.len() == 1, "there are {} runs", runs.len());
    world.get(&format!("/runs/{}", runs[0]["id"].as_str().unwrap_or_default())).await
}

/// A remedy that is carried out by itself, for the alerts of its name.
pub(crate) fn with_remedy(plan: &mut Plan, name: &str, steps: &Value) {
    let route = json!({
        "name": name, "match": [format!("alertname={name:?}")], "incident": {}, "remedy": { "runbook": name, "mode": "auto" },
    });
    plan.config["routes"].as_array_mut().unwrap().push(route);
    plan.merge(json!({ "runbooks": { name: { "approval": { "roles": ["sre"] }, "steps": steps } } }));
}

/// The only run of a runbook, with its attempts.
pub(crate) async fn run_of(world: &World, runbook: &str) -> anyhow::Result<Value> {
    let runs = world.runs().await?;
    let mut all = runs.iter().filter(|run| run["runbook"] == runbook);
    let (Some(run), None) = (all.next(), all.next()) else { anyhow::bail!("there is not one run of {runbook}: {runs:#?}") };
    world.get(&format!("/runs/{}", run["id"].as_str().unwrap_or_default())).await
}

/// The same, once it is in this state.
pub(crate) async fn run_is(world: &World, runbook: &str, state: &str) -> anyhow::Result<Value> {
    eventually(SOON, async || {
        let run = run_of(world, runbook).await?;
        ensure!(run["run"]["state"] == state, "{runbook} is {}", run["run"]);
        Ok(run)
    })
    .await
}

/// The attempts of a step: who made each, and what came of it.
pub(crate) fn tried(run: &Value, step: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of_step = run["attempts"].as_array().into_iter().flatten().filter(|one| one["step"] == step);
    of_step.map(|one| (text(&one["place"]["instance"]), text(&one["state"]))).collect()
}

/// Waits until so many lines are in the ledger; gives them sorted.
pub(crate) async fn lines(ledger: &Ledger, count: usize) -> anyhow::Result<Vec<String>> {
    eventually(SOON, async || {
        let mut lines = ledger.lines();
        ensure!(lines.len() == count, "{lines:?}");
        lines.sort();
        Ok(lines)
    })
    .await
}

/// Waits until so many runs are no longer in the hands of who had them first.
async fn taken_over(postgres: &Postgres, database: &str, count: usize) -> anyhow::Result<()> {
    eventually(SOON, async || {
        let taken = postgres.psql(database, "select count(*) from jobs where kind = 'run.advance' and claim > 1").await?;
        ensure!(taken == count.to_string(), "{taken} of {count} runs were taken over");
        Ok(())
    })
    .await
}

/// The address of a database by another port.
fn through(database: &str, postgres: &Postgres, wire: &Proxy) -> String {
    database.replace(&format!(":{}/", postgres.port()), &format!(":{}/", wire.port()))
}
