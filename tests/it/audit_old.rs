//! The audit log grows old: what is older than it is kept goes, the rest verifies from the cut, and evidence says what is missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use domain::audit::{AuditDecision, NewAudit};
use domain::id::StartId;
use domain::time::{Clock, ManualClock, SystemClock};
use harness::eventually;
use harness::world::{Alert, SOON};
use serde_json::json;
use store::{Options, Store};

use crate::audit::{plan, say, settled, unsound};

#[tokio::test]
async fn what_is_old_goes_and_the_rest_still_verifies() -> anyhow::Result<()> {
    let plan = plan()?;
    long_ago(plan.dir(), 500).await?;
    let mut world = plan.start().await?;
    world.send(&[Alert::new("Today")]).await?;
    world.incident_in(1, "open", SOON).await?;
    let config = world.config();
    let report = eventually(SOON, async || {
        let report = settled(&config).await?;
        // What is sealed while it is verified is left to the next time.
        ensure!(report["pruned"]["rows"] == 12 && report["rows"].as_u64() > Some(1), "{report}");
        Ok(report)
    })
    .await?;
    ensure!(report["pruned"]["batch"] == 3, "{report}");
    let told = world.audit().await?.into_iter().find(|row| row["action"] == "audit.prune").context("its row is not there")?;
    ensure!(told["detail"]["rows"] == 12 && told["actor"] == "system", "{told}");
    let text = say(&["audit", "verify", "--config"], &[&config]).await?.ok()?;
    ensure!(text.contains("is sound") && text.contains("12 rows before it, sealed until"), "{text}");

    let key = say(&["audit", "public-key", "--config"], &[&config]).await?.ok()?.trim().to_owned();
    let all = world.dir().join("all.jsonl");
    say(&["audit", "export", "--config"], &[&config, Path::new("--to"), &all]).await?.ok()?;
    let offline = ["audit", "verify", "--public-key", &key, "--file"];
    let text = say(&offline, &[&all]).await?.ok()?;
    ensure!(text.contains("is sound") && text.contains("12 rows before it"), "{text}");
    let text = fs::read_to_string(&all)?;
    let forged = world.dir().join("forged.jsonl");
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("{\"cut\"")).collect();
    for (change, why) in [
        (text.replacen("\"rows\":12", "\"rows\":11", 1), "signature is wrong"),
        (without.join("\n") + "\n", "no cut says that their rows were let go of"),
    ] {
        fs::write(&forged, change)?;
        unsound(&offline, &[&forged], why).await?;
        unsound(&["audit", "verify", "--key-file"], &[&world.dir().join("data/keys/audit"), Path::new("--file"), &forged], "WRONG").await?;
    }

    let export = ["evidence", "export", "--incident", "1", "--config"];
    let [before, after] = ["before.tar", "after.tar"].map(|name| world.dir().join(name));
    let said = say(&export, &[&config, Path::new("--to"), &before]).await?.ok()?;
    ensure!(!said.contains("let go of"), "everything about it is there: {said}");
    world.stop().await?;
    opened_long_ago(world.dir(), 510).await?;
    for said in [
        say(&export, &[&config, Path::new("--to"), &after]).await?.ok()?,
        say(&["evidence", "verify", "--public-key", &key], &[&after]).await?.ok()?,
    ] {
        ensure!(said.contains("was let go of for its age: rows about this incident"), "{said}");
    }
    world.start().await?;
    settled(&config).await?;
    Ok(())
}

/// A store of long ago: three batches of four rows that the server did not write, with its key.
async fn long_ago(dir: &Path, days: i64) -> anyhow::Result<()> {
    let data = dir.join("data");
    fs::create_dir_all(data.join("keys"))?;
    fs::write(data.join("keys/audit"), "ab".repeat(32))?;
    fs::set_permissions(data.join("keys/audit"), fs::Permissions::from_mode(0o600))?;
    let then = SystemClock.now().checked_sub(jiff::SignedDuration::from_hours(24 * days))?;
    let options = Options {
        url: format!("sqlite:{}", data.join("watchkeeper.db").display()),
        clock: Arc::new(ManualClock::at(then)),
        instance: "earlier".to_owned(),
        start: StartId::new(then),
        audit_keys: vec![vec![0xab; 32].into()],
        max_waiting: 1,
    };
    let store = Store::open(options).await?;
    for n in 0..3 {
        let row = |m: i64| NewAudit {
            at: then,
            actor: "principal:ann".to_owned(),
            action: "note".to_owned(),
            object: format!("incident:{n}/{m}"),
            decision: AuditDecision::Allowed,
            reason: "long_ago".to_owned(),
            detail: json!({}),
        };
        let mut tx = store.begin().await?;
        tx.audit_all(&[row(1), row(2), row(3), row(4)]).await?;
        tx.commit().await?;
        ensure!(store.seal_audit(10).await?.rows == 4);
    }
    store.close().await;
    Ok(())
}

/// An incident that was there before the rows went, in the stopped server's store.
async fn opened_long_ago(dir: &Path, days: i64) -> anyhow::Result<()> {
    let store = crate::workers::open(&format!("sqlite:{}", dir.join("data/watchkeeper.db").display()), "editor").await?;
    let mut tx = store.begin().await?;
    let mut incident = tx.incident_by_number(1).await?.context("there is an incident")?;
    let expected = incident.version;
    incident.opened_at = incident.opened_at.checked_sub(jiff::SignedDuration::from_hours(24 * days))?;
    incident.version += 1;
    tx.put_incident(&incident, expected).await?;
    tx.commit().await?;
    store.close().await;
    Ok(())
}
