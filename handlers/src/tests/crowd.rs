//! More to do than there are hands: what has one goes on, whatever else waits for one.

use std::sync::Arc;
use std::time::Duration;

use domain::event::Status::Firing;
use harness::eventually;
use jiff::SignedDuration;
use store::HeartbeatRow;
use tokio::sync::Semaphore;

use super::world::{RULES, World};
use crate::Worker;

const SOON: Duration = Duration::from_secs(20);
/// Runs under way at once in one process.
const HANDS: usize = 32;

/// Long remedies take all hands for runs. The runs that wait for one stay in the database, where others may take them, and hold up nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_wait_for_a_hand_hold_up_nothing_else() {
    let world = World::new("auto").await;
    let names: Vec<String> = (0..140).map(|n| format!("s{n}")).collect();
    let targets = names.iter().map(|name| format!("{name}: {{ kind: process, program: /bin/true }}")).collect::<Vec<_>>().join(", ");
    world.reload(&RULES.replace("MODE", "auto").replace("api: { kind: process, program: /bin/true }", &targets));
    let gate = Arc::new(Semaphore::new(0));
    world.script.lock().unwrap().gate = Some(Arc::clone(&gate));
    for name in &names {
        world.store_only(world.sighting(name, Firing)).await;
    }
    let worker = tokio::spawn(Worker::new(world.cx.clone()).run());
    let changes = || world.script.lock().unwrap().changes as usize;
    let begun = eventually(SOON, async || {
        let (runs, changes) = (world.runs().await.len(), changes());
        anyhow::ensure!((runs, changes) == (names.len(), HANDS), "{runs} runs, {changes} changes");
        let claims = world.cx.store.claims().await?.len();
        anyhow::ensure!(claims == HANDS, "{claims} claims");
        Ok(())
    });
    begun.await.unwrap();

    let beat = HeartbeatRow {
        source: "am".to_owned(),
        name: "Watchdog".to_owned(),
        within: "15m".parse().unwrap(),
        last_seen: world.now(),
        alarmed: false,
    };
    let mut tx = world.cx.store.begin().await.unwrap();
    tx.put_heartbeat(&beat).await.unwrap();
    tx.commit().await.unwrap();
    world.clock.advance(SignedDuration::from_mins(16));
    let noticed = eventually(SOON, async || {
        anyhow::ensure!(world.incidents().await.iter().any(|incident| incident.source == "watchkeeper"), "its silence is not noticed");
        Ok(())
    });
    noticed.await.unwrap();

    gate.close();
    let done = eventually(SOON, async || {
        anyhow::ensure!(changes() == names.len(), "{} changes", changes());
        Ok(())
    });
    done.await.unwrap();
    world.cx.wake.stop();
    worker.await.unwrap();
}
