//! What does not come any more: heartbeats and repeats.

use domain::alert::AlertState;
use domain::event::{Heartbeat, NewEvent, Status::Firing};
use domain::incident::IncidentState;

use super::world::{RULES, World};
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

/// The sign comes once and stops again, for less than the two minutes in which a firing may be a late copy.
#[tokio::test]
async fn every_silence_is_told_however_short_the_sign_between_two() {
    let world = World::new("observe").await;
    world.reload(&RULES.replace("MODE", "observe").replace("Watchdog: 15m", "Watchdog: 60s"));
    let beat = async || {
        let heartbeat = Heartbeat { name: "Watchdog".to_owned(), within: "60s".parse().unwrap(), at: world.now() };
        world.accept(NewEvent::heartbeat("am", heartbeat, world.now().to_string().as_bytes())).await;
        world.worker.settle().await.unwrap();
    };
    beat().await;
    for round in 1..4 {
        world.pass(61).await;
        look(&world).await;
        let incidents = world.incidents().await;
        assert_eq!((incidents.len(), incidents[0].alerts_active), (1, 1), "silence {round} is not told");
        beat().await;
        assert_eq!(world.incidents().await[0].alerts_active, 0);
    }
}

/// It was heard before its silence was noticed, and is decided after.
#[tokio::test]
async fn a_sign_that_waited_for_its_decision_ends_the_silence_all_the_same() {
    let world = World::new("observe").await;
    beat(&world).await;
    world.pass(14 * 60).await;
    let heartbeat = Heartbeat { name: "Watchdog".to_owned(), within: "15m".parse().unwrap(), at: world.now() };
    world.accept(NewEvent::heartbeat("am", heartbeat, b"waits")).await;
    world.clock.advance(jiff::SignedDuration::from_secs(90));
    look(&world).await;
    world.pass(120).await;
    assert_eq!(world.incidents().await[0].state, IncidentState::Resolved);
}

#[tokio::test]
async fn a_heartbeat_that_never_came_is_missed_and_one_that_nobody_waits_for_is_not() {
    let world = World::new("observe").await;
    look(&world).await;
    world.pass(16 * 60).await;
    look(&world).await;
    let incidents = world.incidents().await;
    assert_eq!((incidents.len(), incidents[0].state), (1, IncidentState::Open), "it is configured and never came");
    assert!(incidents[0].summary.contains("Watchdog of source am was not heard since"), "{}", incidents[0].summary);

    // The source gets another name: nobody waits for the old one, and the new one has its time to come.
    world.reload(&RULES.replace("MODE", "observe").replace("sources: { am:", "sources: { prod:"));
    look(&world).await;
    assert_eq!(world.incidents().await[0].alerts_active, 0);
    world.pass(120).await;
    assert_eq!(world.incidents().await[0].state, IncidentState::Resolved);
    world.pass(14 * 60).await;
    look(&world).await;
    assert_eq!(world.incidents().await.len(), 1, "nothing is late");
    world.pass(120).await;
    look(&world).await;
    let incident = &world.incidents().await[0];
    let alerts = world.cx.store.read().await.unwrap().incident_alerts(incident.id, 10).await.unwrap();
    let active: Vec<_> = alerts.iter().filter(|alert| alert.state.is_active()).map(|alert| alert.labels["source"].as_str()).collect();
    assert_eq!((incident.alerts_total, active), (2, vec!["prod"]));

    // Another time to come counts at once.
    world.reload(&RULES.replace("MODE", "observe"));
    look(&world).await;
    world.pass(10 * 60).await;
    world.reload(&RULES.replace("MODE", "observe").replace("Watchdog: 15m", "Watchdog: 20m"));
    look(&world).await;
    world.pass(6 * 60).await;
    look(&world).await;
    assert_eq!(world.incidents().await.iter().filter(|incident| incident.alerts_active > 0).count(), 0);
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
