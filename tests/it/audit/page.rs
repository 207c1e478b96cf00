//! The console's page of the log, and who may see it.

use anyhow::ensure;
use harness::peers::Postgres;
use harness::world::{Alert, SOON};

use super::{plan, settled, unsound};

#[tokio::test]
async fn the_page_shows_what_is_sealed_and_what_was_changed_to_those_who_may_see_it() -> anyhow::Result<()> {
    let postgres = Postgres::shared().await?;
    let url = postgres.create_database().await?;
    let database = url.rsplit('/').next().unwrap_or_default().to_owned();
    let world = plan()?.postgres(&url)?.start().await?;
    world.send(&[Alert::new("Odd <b>name</b>")]).await?;
    world.incident_in(1, "open", SOON).await?;
    let console = world.console("ann").await?;
    let page = console.wait_for("/audit", "incident.open", SOON).await?;
    ensure!(page.contains("server.start") && page.contains("sign_in") && !page.contains("<b>name"), "{page}");
    console.wait_for("/audit", "Sealed up to row", SOON).await?;
    let page = console.page("/audit?actor=ann&action=sign&object=").await?;
    ensure!(page.contains("sign_in") && !page.contains("server.start"), "{page}");
    ensure!(!page.contains("are not what was written"), "{page}");
    // What is sealed while it is verified belongs to the next time.
    settled(&world.config()).await?;
    postgres.psql(&database, "update audit set actor = 'principal:eve' where action = 'incident.open'").await?;
    let page = console.page("/audit").await?;
    ensure!(page.contains("<b>1 rows on this page are not what was written"), "{page}");
    unsound(&["audit", "verify", "--config"], &[&world.config()], "does not fit its keyed hash").await?;

    let other = world.console("ben").await?;
    ensure!(!other.page("/incidents").await?.contains("href=\"/audit\""), "ben has no right to it");
    let refused = other.page("/audit").await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("403")), "ben has no right to it");
    let rows = world.audit().await?;
    ensure!(
        rows.iter().any(|row| row["actor"] == "principal:ben" && row["action"] == "GET /audit" && row["decision"] == "refused"),
        "{rows:?}"
    );
    Ok(())
}
