//! What does not come any more: heartbeats and repeats.

use domain::alert::AlertState;
use domain::event::{Heartbeat, NewEvent, Status::Firing};
use domain::incident::IncidentState;

use super::world::World;
use crate::jobs::{Job, upkeep::Upkeep};

async fn beat(world: &World) {
    let heartbeat = Heartbeat { name: "Watchdog".to_owned(), within: "15m".parse().unwrap(), at: world.now() };
    world.accept(NewEvent::heartbeat("am", heartbeat, world.now().to_string().as_bytes())).await;
    world.worker.settle().await.unwrap();
}

async fn look(world: &World) {
    let row = domain::job::Job {
        id: domain::id::JobId::new(world.now()),
        kind: "upkeep".to_owned(),
        key: "upkeep".to_owned(),
        payload: serde_json::json!({}),
        attempts: 0,
        due_at: world.now(),
        claim: 1,
        revision: 1,
    };
    Upkeep.run(&world.cx, &row).await.unwrap();
    world.worker.settle().await.unwrap();
}

#[tokio::test]
async fn a_heartbeat_that_stops_is_an_incident_until_it_comes_back() {
    let world = World::new("observe").await;
    beat(&world).await;
    world.pass(14 * 60).await;
    look(&world).await;
    assert!(world.incidents().await.is_empty(), "not yet");
    world.pass(61).await;
    look(&world).await;
    look(&world).await;
    let incidents = world.incidents().await;
    assert_eq!((incidents.len(), incidents[0].source.as_str()), (1, "watchkeeper"));
    assert!(incidents[0].summary.contains("Watchdog"), "{}", incidents[0].summary);
    world.pass(60).await;
    beat(&world).await;
    world.pass(120).await;
    assert_eq!(world.incidents().await[0].state, IncidentState::Resolved);
}

#[tokio::test]
async fn an_alert_that_is_not_repeated_is_stale_and_never_resolved() {
    let world = World::new("observe").await;
    world.alert("api", Firing).await;
    world.pass(8 * 3600 - 1).await;
    look(&world).await;
    let id = world.incidents().await[0].id;
    let state = async || world.cx.store.read().await.unwrap().incident_alerts(id, 1).await.unwrap()[0].state;
    assert_eq!(state().await, AlertState::Firing);
    world.pass(2).await;
    look(&world).await;
    assert_eq!(state().await, AlertState::Stale);
    assert_eq!(world.incidents().await[0].state, IncidentState::Open);
}
