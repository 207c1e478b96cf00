//! A holder that is cut off from the database.

use std::time::Duration;

use anyhow::ensure;
use harness::peers::Postgres;
use harness::world::{Alert, SOON};
use harness::{Proxy, eventually};
use serde_json::json;

use super::{lines, replicas, run_is, taken_over, through, tried, with_remedy};

/// Longer than a claim is trusted without renewal, and shorter than anybody else waits before they take it.
const PAST_TRUST: Duration = Duration::from_secs(11);

/// Who has two runs is cut off from PostgreSQL. It begins nothing new, neither while it is cut off nor when the wire is back, and what it then says of
/// its claims is refused. The other replica goes on without it.
#[tokio::test]
async fn a_holder_that_is_cut_off_begins_nothing_more() -> anyhow::Result<()> {
    harness::rounds("holder of a claim cut off from PostgreSQL", 1, async |tally| {
        let postgres = Postgres::start().await?;
        let database = postgres.create_database().await?;
        let wire = Proxy::start(postgres.port()).await?;
        let (mut a, mut b, ledger) = replicas(&through(&database, &postgres, &wire), &database)?;
        let dir = a.dir().to_owned();
        // Only the first one who asks waits.
        let text = "#!/bin/sh\nmkdir \"$1\" 2>/dev/null || exit 0\nwhile [ ! -e \"$1/go\" ]; do sleep 0.1; done\n";
        let gate = a.script("gate", text)?;
        for plan in [&mut a, &mut b] {
            plan.merge(json!({ "programs": [gate, ledger.program] }));
            for name in ["early", "late"] {
                let write = |step: &str| {
                    let with = json!({ "program": ledger.program, "args": [format!("{step} {name}")] });
                    json!({ "id": step, "uses": "command", "with": with })
                };
                let look = json!({
                    "id": "gate", "uses": "command", "with": { "program": gate, "args": [name], "cwd": dir }, "effect": "read_only", "timeout": "4m",
                });
                with_remedy(plan, name, &json!([write("1"), look, write("2")]));
            }
        }
        let a = a.allow("the store").allow("after_connect").start().await?;
        a.send(&[Alert::new("early"), Alert::new("late")]).await?;
        eventually(SOON, async || {
            ensure!(["early", "late"].iter().all(|name| dir.join(name).exists()), "they do not wait yet: {:?}", ledger.lines());
            Ok(())
        })
        .await?;
        let b = b.start().await?;
        wire.go_dead();
        tally.faults += 1;
        // One comes to its next step when its claim is not trusted any more, and nobody else has it yet.
        tokio::time::sleep(PAST_TRUST).await;
        std::fs::write(dir.join("early/go"), "")?;
        taken_over(&postgres, &database, 2).await?;
        // The steps that were begun are silent for long past their time. They change nothing, so they are repeated.
        postgres.turn_clock(Duration::from_secs(600)).await?;
        for name in ["early", "late"] {
            let run = run_is(&b, name, "succeeded").await?;
            ensure!(tried(&run, "2") == [("b".to_owned(), "succeeded".to_owned())], "{run}");
        }
        let wanted = ["1 early", "1 late", "2 early", "2 late"];
        assert_eq!(lines(&ledger, 4).await?, wanted);

        wire.come_back();
        eventually(SOON, async || {
            ensure!(a.count("watchkeeper_claims_lost_total").await? >= 1.0, "it has not noticed");
            Ok(())
        })
        .await?;
        std::fs::write(dir.join("late/go"), "")?;
        eventually(SOON, async || {
            ensure!(a.log().contains("that is not ours any more was refused"), "its late word is not heard");
            Ok(())
        })
        .await?;
        // Time in which it could begin the next step, if it did.
        tokio::time::sleep(Duration::from_secs(3)).await;
        for name in ["early", "late"] {
            let run = run_is(&a, name, "succeeded").await?;
            ensure!(tried(&run, "2") == [("b".to_owned(), "succeeded".to_owned())], "{run}");
        }
        let mut told = ledger.lines();
        told.sort();
        tally.ledger(&told, &wanted)
    })
    .await
}
