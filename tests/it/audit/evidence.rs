//! Evidence of one incident, for those who have nothing else.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{live_through_an_incident, plan, replace, say, settled, unsound};

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
