//! Lifecycle events reach the bus in order, once each, whatever the bus does meanwhile.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use domain::event::Status;
use domain::lifecycle::{Bus, Lifecycle};

use super::world::World;

/// A bus that can be away.
#[derive(Default)]
struct Line {
    away: Mutex<bool>,
    heard: Mutex<Vec<Lifecycle>>,
}

#[async_trait]
impl Bus for Line {
    async fn publish(&self, event: &Lifecycle) -> Result<(), String> {
        if *self.away.lock().unwrap() {
            return Err("away".to_owned());
        }
        self.heard.lock().unwrap().push(event.clone());
        Ok(())
    }
}

impl Line {
    fn kinds(&self) -> Vec<String> {
        self.heard.lock().unwrap().iter().map(|event| event.kind.clone()).collect()
    }
}

async fn world() -> (World, Arc<Line>) {
    let line = Arc::new(Line::default());
    let mut world = World::new("auto").await;
    world.connect(line.clone());
    (world, line)
}

#[tokio::test]
async fn a_whole_life_is_told_in_order() {
    let (world, line) = world().await;
    world.alert("api", Status::Firing).await;
    world.pass(60).await;
    world.alert("api", Status::Resolved).await;
    world.pass(600).await;
    let kinds = line.kinds();
    let wanted =
        ["incident.opened", "run.queued", "run.running", "run.verifying", "run.succeeded", "incident.mitigated", "incident.resolved"];
    let places: Vec<_> = wanted.iter().map(|kind| kinds.iter().position(|heard| heard == kind)).collect();
    assert!(places.iter().all(Option::is_some), "{kinds:?}");
    assert!(places[0] < places[1] && places[1] < places[2] && places[2] < places[3] && places[3] < places[4], "{kinds:?}");
    assert!(places[5] < places[6], "{kinds:?}");
    assert_eq!(kinds.len(), 7, "each once: {kinds:?}");
    let heard = line.heard.lock().unwrap();
    assert_eq!(heard[0].subject, "incident/1");
    assert_eq!((&heard[0].data["version"], &heard[0].data["state"], &heard[0].data["previous"]), (&1.into(), &"open".into(), &().into()));
    assert!(heard.iter().all(|event| event.partition == heard[0].partition));
}

#[tokio::test]
async fn what_happened_while_the_bus_was_away_goes_out_later_in_order() {
    let (world, line) = world().await;
    *line.away.lock().unwrap() = true;
    world.alert("api", Status::Firing).await;
    world.pass(60).await;
    assert!(line.kinds().is_empty());
    assert!(world.cx.store.read().await.unwrap().count_unpublished().await.unwrap() >= 5);
    *line.away.lock().unwrap() = false;
    // As many failures as would bury other jobs, and more, were no failures.
    world.pass(60).await;
    let kinds = line.kinds();
    assert_eq!(kinds[..4], ["incident.opened", "run.queued", "run.running", "run.verifying"], "{kinds:?}");
    assert_eq!(world.cx.store.read().await.unwrap().count_unpublished().await.unwrap(), 0);
}

#[tokio::test]
async fn nothing_is_kept_for_a_bus_that_is_not_configured() {
    let world = World::new("observe").await;
    world.alert("api", Status::Firing).await;
    assert_eq!(world.cx.store.read().await.unwrap().count_unpublished().await.unwrap(), 0);
}
