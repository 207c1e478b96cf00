//! Claims that are renewed for as long as the work takes, and are not trusted when they are not.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::fake::discord::{Config, FakeDiscord};
use harness::peers::Postgres;
use harness::world::{Alert, SOON};
use harness::{Proxy, eventually};
use serde_json::json;

use super::{lines, run_is, the_run, through, tried, with_remedy};
use crate::replicas::replica;

/// Two replicas with a command that takes longer than a lease, and the one socket that only one may hold: both stay where they are, because claims and
/// leases are renewed.
#[tokio::test]
async fn what_takes_longer_than_a_lease_is_renewed() -> anyhow::Result<()> {
    let seconds = if harness::long() { "70" } else { "22" };
    let postgres = Postgres::shared().await?;
    let database = postgres.create_database().await?;
    let discord = FakeDiscord::start(Config::default()).await?;
    let (mut a, mut b) = (replica("a", &database)?.discord(&discord, true)?, replica("b", &database)?.discord(&discord, true)?);
    let ledger = a.ledger()?;
    for plan in [&mut a, &mut b] {
        plan.merge(json!({ "programs": [ledger.program] }));
        let command = json!({ "program": ledger.program, "args": ["sleep", seconds] });
        with_remedy(plan, "slow", &json!([{ "id": "slow", "uses": "command", "with": command, "timeout": "2m" }]));
    }
    let (a, b) = (a.start().await?, b.start().await?);
    let socket = async || {
        let sql = "select instance, start_id, n, lease_until from leases where name = 'discord.gateway' and lease_until > 0";
        let held = postgres.psql(&database, sql).await?;
        let (holder, until) = held.rsplit_once('|').context("nobody holds the socket")?;
        anyhow::Ok((holder.to_owned(), until.to_owned()))
    };
    let (socket_of, _) = eventually(SOON, socket).await?;
    // Now, because it takes a while and the command is looked at from its beginning.
    a.token("ann").await?;
    a.send(&[Alert::new("slow")]).await?;
    lines(&ledger, 1).await?;
    let mut claims = BTreeSet::new();
    let (mut renewals, mut leases) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let sql = "select instance, start_id, claim, lease_until from jobs where kind = 'run.advance' and state = 'claimed'";
        let claim = postgres.psql(&database, sql).await?;
        let (holder, until) = socket().await?;
        // Asked afterwards: if it goes on now, somebody had it then.
        let run = the_run(&a).await?;
        if run["run"]["state"] != "running" {
            break;
        }
        let (owner, lease) = claim.rsplit_once('|').context("nobody has a run that goes on")?;
        claims.insert(owner.to_owned());
        renewals.insert(lease.to_owned());
        leases.insert(until);
        ensure!(claims.len() == 1 && holder == socket_of, "the run changed hands: {claims:?}, or the socket: {socket_of}, {holder}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let run = a.run_in("succeeded", SOON).await?;
    ensure!(tried(&run, "slow").len() == 1 && tried(&run, "slow")[0].1 == "succeeded", "{run}");
    assert_eq!(ledger.lines(), [format!("sleep {seconds}")]);
    ensure!(renewals.len() >= 3 && leases.len() >= 3, "not renewed: {renewals:?}, {leases:?}");
    assert_eq!(discord.sessions(), 1);
    for world in [&a, &b] {
        for never in ["watchkeeper_claims_lapsed_total", "watchkeeper_claims_lost_total"] {
            ensure!(world.count(never).await? == 0.0, "{never} was counted");
        }
    }
    Ok(())
}

/// A replica's renewals do not get through, everything else does. The intent of a command is stored while the claim is trusted, and the answer comes when
/// two thirds of the lease are over: nobody else can have the run yet, but the command may not begin. Under another claim it is done.
#[tokio::test]
async fn a_claim_that_is_not_renewed_is_not_trusted_to_its_end() -> anyhow::Result<()> {
    for _ in 0..3 {
        if not_trusted().await? {
            return Ok(());
        }
    }
    anyhow::bail!("this machine is too slow: what takes seconds takes a lease")
}

/// Whether it came to that; on a busy machine the moment may be missed.
async fn not_trusted() -> anyhow::Result<bool> {
    let postgres = Postgres::shared().await?;
    let database = postgres.create_database().await?;
    let wire = Proxy::start(postgres.port()).await?;
    let mut plan = replica("a", &through(&database, postgres, &wire))?;
    let (ledger, dir) = (plan.ledger()?, plan.dir().to_owned());
    let gate = plan.script("gate", "#!/bin/sh\ntouch waits\nwhile [ ! -e go ]; do sleep 0.1; done\n")?;
    let write = |word: &str| json!({ "id": word, "uses": "command", "with": { "program": ledger.program, "args": [word] } });
    let look = json!({ "id": "gate", "uses": "command", "with": { "program": gate, "cwd": dir }, "effect": "read_only", "timeout": "2m" });
    plan.merge(json!({ "programs": [gate, ledger.program] }));
    with_remedy(&mut plan, "unsure", &json!([write("one"), look, write("two")]));
    let world = plan.allow("the store").start().await?;
    world.send(&[Alert::new("unsure")]).await?;
    eventually(SOON, async || {
        ensure!(dir.join("waits").exists(), "it does not wait yet");
        Ok(())
    })
    .await?;
    wire.lose("update jobs set lease_until");
    // Since the last renewal, by the database.
    let age = async |seconds: f64| {
        eventually(SOON, async || {
            let sql = "select extract(epoch from clock_timestamp()) - lease_until / 1e6 + 15 from jobs where kind = 'run.advance'";
            let age: f64 = postgres.psql(&database, sql).await?.parse()?;
            ensure!(age >= seconds, "it was renewed {age} s ago");
            Ok(age)
        })
        .await
    };
    age(6.0).await?;
    wire.hold_the_answer(&["\"step\":\"two\"", "commit"]);
    std::fs::write(dir.join("go"), "")?;
    wire.answer_is_held(SOON).await?;
    if age(0.0).await? > 9.5 {
        return Ok(false);
    }
    let late = age(10.5).await?;
    wire.let_the_answer_go();
    if late > 13.0 {
        return Ok(false);
    }
    let run = run_is(&world, "unsure", "succeeded").await?;
    let (all, why) = (tried(&run, "two"), run["attempts"][2]["error"].as_str().unwrap_or_default());
    ensure!(all.iter().map(|(_, state)| state.as_str()).eq(["failed", "succeeded"]), "it began under a claim of {late} s: {run}");
    ensure!(why.contains("another server had the run before it began"), "{why}");
    assert_eq!(ledger.lines(), ["one", "two"]);
    Ok(true)
}
