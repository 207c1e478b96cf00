//! Replicas that race for jobs and for runs.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use domain::job::{Job, NewJob, Urgency};
use harness::peers::Postgres;
use harness::world::{Alert, SOON};
use harness::{eventually, temp_dir};
use jiff::SignedDuration;
use serde_json::{Value, json};
use store::Store;

use super::{replicas, with_remedy};
use crate::workers::open;

/// How long a claim of the race holds.
const RACE: SignedDuration = SignedDuration::from_secs(6);
/// How old it may be when something begins under it. What is left is for the commit that follows, beside other tests on one disk.
const TRUSTED: Duration = Duration::from_secs(2);
/// Jobs that are claimed at once in it.
const HANDFUL: i64 = 16;

/// A thousand jobs and two replicas that grab for them. Two more do so as well and are gone in the middle, again and again: what they had claimed
/// and not carried out is taken over when their claims run out. Each job is carried out once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_race_carry_every_job_out_once() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    let postgres = Postgres::shared().await?;
    let url = postgres.create_database().await?;
    let dir = temp_dir("race")?;
    let stores = [open(&url, "a").await?, open(&url, "b").await?];
    harness::rounds("two replicas race for 1,000 jobs", if harness::long() { 50 } else { 2 }, async |tally| {
        let round = tally.rounds;
        let path = dir.path().join(format!("ledger-{round}"));
        let ledger = Arc::new(OpenOptions::new().create(true).append(true).open(&path)?);
        let jobs: Vec<NewJob> = (0..1_000).map(|n| job(&format!("{round}/{n}"))).collect();
        let mut tx = stores[0].begin().await?;
        tx.enqueue(&jobs).await?;
        tx.commit().await?;
        let quitters = [open(&url, "c").await?, open(&url, "d").await?];
        let quitters = quitters.map(|store| tokio::spawn(quit(store, Arc::clone(&ledger))));
        let workers = stores.iter().chain(&stores).cloned().map(|store| tokio::spawn(work(store, Arc::clone(&ledger))));
        for worker in futures::future::join_all(workers).await {
            worker??;
        }
        let mut left = 0;
        for quitter in quitters {
            left += quitter.await??;
        }
        ensure!(left > 0, "nobody was interrupted");
        tally.faults += left;
        let mut lines: HashMap<String, usize> = HashMap::new();
        for line in std::fs::read_to_string(&path)?.lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
        let odd: Vec<_> = lines.iter().filter(|(_, times)| **times != 1).collect();
        ensure!(lines.len() == 1_000 && odd.is_empty(), "round {round}: {} jobs, not once: {odd:?}", lines.len());
        tally.lines += lines.len() as u64;
        Ok(())
    })
    .await
}

/// Claims and carries out until nothing is left. The effect is a line in a file that no database knows of, so it begins only while the claim is trusted.
async fn work(store: Store, ledger: Arc<std::fs::File>) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        ensure!(began.elapsed() < SOON, "jobs are left that nobody gets");
        let asked = Instant::now();
        let claimed = store.claim_jobs(HANDFUL, RACE).await?;
        if claimed.is_empty() {
            if store.read().await?.depths().await?.jobs_waiting == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for job in claimed {
            if asked.elapsed() < TRUSTED {
                carry_out(&store, &ledger, &job).await?;
            }
        }
    }
}

/// Claims three handfuls, carries out a half of each, and is gone without a word in the middle of the next: between the claim and the effect, with a
/// transaction open. How many jobs it leaves behind.
async fn quit(store: Store, ledger: Arc<std::fs::File>) -> anyhow::Result<u64> {
    let mut left = 0;
    for _ in 0..3 {
        let asked = Instant::now();
        let claimed = store.claim_jobs(HANDFUL, RACE).await?;
        let (done, rest) = claimed.split_at(claimed.len() / 2);
        for job in done {
            if asked.elapsed() < TRUSTED {
                carry_out(&store, &ledger, job).await?;
            }
        }
        if let Some(job) = rest.first() {
            let mut tx = store.begin().await?;
            tx.hold_claim(job.id, job.claim).await?;
        }
        left += rest.len() as u64;
    }
    Ok(left)
}

async fn carry_out(store: &Store, mut ledger: &std::fs::File, job: &Job) -> anyhow::Result<()> {
    // In one call, so that no other line gets into it.
    ledger.write_all(format!("{}\n", job.key).as_bytes())?;
    Ok(store.end_job(job, None).await?)
}

fn job(key: &str) -> NewJob {
    NewJob { kind: "race", key: key.to_owned(), due_at: jiff::Timestamp::UNIX_EPOCH, urgency: Urgency::Tell, payload: Value::Null }
}

/// Runs that two servers race for.
const RUNS: usize = 200;

/// Two servers and some hundred runs that go by themselves. One is killed in the middle of it and started again: each command is carried out once, and
/// nobody has to be asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_race_carry_every_run_out_once() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    harness::rounds("two servers race for runs, one is killed", 1, async |tally| {
        let postgres = Postgres::shared().await?;
        let database = postgres.create_database().await?;
        let (mut a, mut b, ledger) = replicas(&database, &database)?;
        for plan in [&mut a, &mut b] {
            let write = json!({ "id": "write", "uses": "command", "with": { "program": ledger.program, "args": ["{{ params.n }}"] } });
            with_remedy(plan, "each", &json!([write]));
            plan.merge(json!({ "programs": [ledger.program], "runbooks": { "each": { "params": { "n": { "type": "text" } } } } }));
            let route = plan.config["routes"].as_array_mut().unwrap().last_mut().unwrap();
            route["incident"] = json!({ "group_by": ["n"] });
            route["remedy"]["with"] = json!({ "n": "{{ labels.n }}" });
        }
        let (mut a, b) = (a.allow("the store").start().await?, b.allow("the store").start().await?);
        let names: Vec<String> = (0..RUNS).map(|n| format!("{n:03}")).collect();
        let alerts: Vec<Alert> = names.iter().map(|name| Alert::new("each").label("n", name)).collect();
        for (n, part) in alerts.chunks(20).enumerate() {
            if n % 2 == 0 { &a } else { &b }.send(part).await?;
        }
        eventually(SOON, async || {
            ensure!(ledger.lines().len() >= RUNS / 4, "{} commands", ledger.lines().len());
            Ok(())
        })
        .await?;
        a.kill9()?;
        tally.faults += 1;
        ensure!(ledger.lines().len() < RUNS, "all was over before it was killed");
        a.start().await?;
        eventually(SOON, async || {
            let runs = b.runs().await?;
            let open: Vec<&Value> = runs.iter().filter(|run| run["state"] != "succeeded").collect();
            ensure!(runs.len() == RUNS && open.is_empty(), "{} runs, {} not over: {:?}", runs.len(), open.len(), open.first());
            Ok(())
        })
        .await?;
        let mut told = ledger.lines();
        told.sort();
        tally.ledger(&told, &names)?;
        let hosts = "select count(distinct cast(doc as json) -> 'place' ->> 'instance') from attempts";
        assert_eq!(postgres.psql(&database, hosts).await?, "2", "both carry out");
        Ok(())
    })
    .await
}
