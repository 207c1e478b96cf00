//! Alerts in, incidents and cards out.

use domain::act::Verb;
use domain::event::Status::{Firing, Resolved};
use domain::incident::IncidentState;

use super::world::{Broken, World};

#[tokio::test]
async fn an_alert_opens_an_incident_that_resolves_and_closes_by_itself() {
    let world = World::new("observe").await;
    world.alert("api", Firing).await;
    assert_eq!(world.incidents().await[0].state, IncidentState::Open);
    world.resolve_after(60, "api").await;
    world.pass(119).await;
    assert_eq!(world.incidents().await[0].state, IncidentState::Open, "it waits for two quiet minutes");
    world.pass(1).await;
    assert_eq!(world.incidents().await[0].state, IncidentState::Resolved);
    world.pass(24 * 3600).await;
    assert_eq!(world.incidents().await[0].state, IncidentState::Closed);
    world.pass(10).await;
    let script = world.script.lock().unwrap();
    assert_eq!(script.posts.len(), 1, "one card, edited in place");
    assert_eq!(script.cards.last().unwrap().state, IncidentState::Closed, "the final state arrives");
}

#[tokio::test]
async fn a_refire_soon_reopens_and_later_opens_another() {
    let world = World::new("observe").await;
    world.alert("api", Firing).await;
    world.resolve_after(10, "api").await;
    world.pass(120).await;
    world.pass(300).await;
    world.alert("api", Firing).await;
    let incidents = world.incidents().await;
    assert_eq!((incidents.len(), incidents[0].state, incidents[0].reopened), (1, IncidentState::Open, 1));
    world.resolve_after(10, "api").await;
    world.pass(120).await;
    world.pass(31 * 60).await;
    world.alert("api", Firing).await;
    assert_eq!(world.incidents().await.len(), 2);
}

#[tokio::test]
async fn repeats_and_copies_change_nothing_but_last_seen() {
    let world = World::new("observe").await;
    let sighting = world.sighting("api", Firing);
    world.hear(sighting.clone()).await;
    let before = world.incidents().await;
    world.pass(60).await;
    world.hear(sighting.clone()).await;
    world.hear(sighting).await;
    let after = world.incidents().await;
    assert_eq!(before[0].version, after[0].version);
    let alerts = world.cx.store.read().await.unwrap().incident_alerts(after[0].id, 10).await.unwrap();
    assert_eq!((alerts.len(), alerts[0].last_seen), (1, world.now()));
}

#[tokio::test]
async fn a_thousand_alerts_of_a_group_are_one_incident_and_one_edit() {
    let world = World::new("observe").await;
    for index in 0..1000 {
        let mut sighting = world.sighting("api", Firing);
        sighting.fingerprint = format!("f{index}");
        world.store_only(sighting).await;
    }
    world.worker.settle().await.unwrap();
    let incidents = world.incidents().await;
    assert_eq!((incidents.len(), incidents[0].alerts_total, incidents[0].alerts_active), (1, 1000, 1000));
    let cards = world.script.lock().unwrap().cards.len();
    assert!(cards <= 3, "{cards} chat calls");
    let told = world.timeline().await;
    assert!(told.iter().any(|line| line.contains("alerts firing")), "{told:?}");
    assert!(told.len() < 10, "{} entries: {:?}", told.len(), &told[..10]);
}

#[tokio::test]
async fn the_same_firing_after_a_resolve_is_looked_at_again_after_two_minutes() {
    let world = World::new("observe").await;
    let firing = world.sighting("api", Firing);
    world.hear(firing.clone()).await;
    world.resolve_after(30, "api").await;
    world.pass(5).await;
    world.hear(firing).await;
    assert_eq!(world.incidents().await[0].alerts_active, 0, "too soon to tell from a late copy");
    world.pass(120).await;
    assert_eq!(world.incidents().await[0].alerts_active, 1, "no resolve followed: it fires");
}

/// Annotations hold values that change: the refire is another event by its content, and the same episode by its start.
#[tokio::test]
async fn the_same_firing_with_another_text_after_a_resolve_is_looked_at_again_too() {
    let world = World::new("observe").await;
    let at = |value: &str, mut sighting: domain::event::Sighting| {
        sighting.annotations.insert("summary".to_owned(), format!("the disk is {value} full"));
        sighting
    };
    let firing = world.sighting("api", Firing);
    world.hear(at("91%", firing.clone())).await;
    world.resolve_after(30, "api").await;
    world.pass(5).await;
    world.hear(at("93%", firing)).await;
    assert_eq!(world.incidents().await[0].alerts_active, 0, "too soon to tell from a late copy");
    world.pass(120).await;
    assert_eq!(world.incidents().await[0].alerts_active, 1, "no resolve followed: it fires");
}

/// A firing that its resolve overtook on the way was never heard before it.
#[tokio::test]
async fn a_firing_that_its_resolve_overtook_stays_over() {
    let world = World::new("observe").await;
    let firing = world.sighting("api", Firing);
    world.pass(30).await;
    let mut resolved = world.sighting("api", Resolved);
    resolved.starts_at = firing.starts_at;
    world.hear(resolved).await;
    world.pass(5).await;
    world.hear(firing).await;
    world.pass(600).await;
    assert!(world.incidents().await.is_empty());
}

/// Its source tells no resolves, so the alert is stale by then; or it was refreshed all the time.
#[tokio::test]
async fn what_fires_anew_after_a_close_opens_another_incident() {
    let world = World::new("observe").await;
    let first = world.sighting("api", Firing);
    world.hear(first.clone()).await;
    let incident = world.incidents().await[0].id;
    assert!(world.act("ann", Verb::Close { incident }).await.done);
    world.pass(600).await;
    world.hear(first.clone()).await;
    assert_eq!(world.incidents().await.len(), 1, "a plain repeat: whoever closed it knew that it fires");
    world.pass(24 * 3600).await;
    world.alert("api", Firing).await;
    let incidents = world.incidents().await;
    assert_eq!((incidents.len(), incidents[1].state, incidents[1].alerts_active), (2, IncidentState::Open, 1));
    assert_eq!((incidents[0].state, incidents[0].alerts_active), (IncidentState::Closed, 0), "it left the closed one");
    let id = incidents[1].id;
    assert!(world.act("ann", Verb::Acknowledge { incident: id }).await.done);
    world.pass(3600).await;
    world.alert("api", Firing).await;
    assert_eq!(world.incidents().await.len(), 2, "while its incident is open, a later start is a refresh");
    world.alert("api", Resolved).await;
    world.pass(120).await;
    assert_eq!(world.incidents().await[1].state, IncidentState::Resolved);
}

/// Alerts about ourselves only ever fire.
#[tokio::test]
async fn a_second_dead_letter_after_a_close_is_a_second_incident() {
    let mut world = World::new("approve").await;
    world.cx.actions = std::sync::Arc::new(Broken::default());
    world.worker = crate::Worker::new(world.cx.clone());
    let fail = async |fingerprint: &str| {
        let mut sighting = world.sighting("api", Firing);
        sighting.fingerprint = fingerprint.to_owned();
        world.store_only(sighting).await;
        for _ in 0..10 {
            world.pass(70).await;
        }
    };
    fail("one").await;
    let incidents = world.incidents().await;
    assert_eq!((incidents.len(), incidents[0].source.as_str()), (1, "watchkeeper"));
    fail("two").await;
    assert_eq!(world.incidents().await.len(), 1, "it is open: nothing more to tell");
    assert!(world.act("ann", Verb::Close { incident: incidents[0].id }).await.done);
    fail("three").await;
    let incidents = world.incidents().await;
    assert_eq!((incidents.len(), incidents[1].state), (2, IncidentState::Open));
}

/// Two alerts of one group: a person resolves the incident of the first while it fires, and the second opens another before it is time to ask again.
#[tokio::test]
async fn what_still_fires_an_hour_after_a_persons_resolve_joins_the_incident_that_is_open() {
    let world = World::new("observe").await;
    world.alert("api", Firing).await;
    let first = world.incidents().await[0].id;
    assert!(world.act("ann", Verb::Resolve { incident: first }).await.done);
    world.pass(35 * 60).await;
    let mut other = world.sighting("api", Firing);
    other.fingerprint = "f-other".to_owned();
    world.hear(other.clone()).await;
    assert_eq!(world.incidents().await[1].state, IncidentState::Open);
    let again = world.act("ann", Verb::Reopen { incident: first }).await;
    assert!(!again.done && again.text.contains("#2"), "{}", again.text);
    world.pass(25 * 60).await;
    let incidents = world.incidents().await;
    assert_eq!((incidents[0].state, incidents[0].alerts_active), (IncidentState::Resolved, 0));
    assert_eq!((incidents[1].state, incidents[1].alerts_active, incidents[1].alerts_total), (IncidentState::Open, 2, 2));
    let told = async |id| {
        let entries = world.cx.store.read().await.unwrap().timeline(id, 500).await.unwrap();
        entries.into_iter().map(|(_, entry)| entry.text).collect::<Vec<_>>().join("\n")
    };
    assert!(told(first).await.contains("told with #2"), "{}", told(first).await);
    assert!(told(incidents[1].id).await.contains("from #1"), "{}", told(incidents[1].id).await);
    other.status = Resolved;
    other.ends_at = Some(world.now());
    world.hear(other).await;
    world.pass(130).await;
    assert_eq!(world.incidents().await[1].state, IncidentState::Open, "the first alert still fires");
    world.alert("api", Resolved).await;
    world.pass(130).await;
    assert_eq!(world.incidents().await[1].state, IncidentState::Resolved);
    world.pass(24 * 3600).await;
    assert!(world.incidents().await.iter().all(|incident| incident.state == IncidentState::Closed));
    assert_eq!(world.cx.store.read().await.unwrap().depths().await.unwrap().jobs_dead, 0);
}

/// More alerts than one transaction moves.
#[tokio::test]
async fn very_many_alerts_join_the_open_incident_too() {
    let world = World::new("observe").await;
    for index in 0..1100 {
        let mut sighting = world.sighting("api", Firing);
        sighting.fingerprint = format!("f{index}");
        world.store_only(sighting).await;
    }
    world.worker.settle().await.unwrap();
    let incident = world.incidents().await[0].id;
    assert!(world.act("ann", Verb::Resolve { incident }).await.done);
    world.pass(35 * 60).await;
    world.alert("api", Firing).await;
    world.pass(25 * 60).await;
    let incidents = world.incidents().await;
    assert_eq!((incidents.len(), incidents[0].state, incidents[0].alerts_active), (2, IncidentState::Resolved, 0));
    assert_eq!((incidents[1].alerts_active, incidents[1].alerts_total), (1101, 1101));
}

#[tokio::test]
async fn what_no_route_takes_opens_an_incident_all_the_same() {
    let world = World::new("observe").await;
    let mut sighting = world.sighting("api", Firing);
    sighting.labels.insert("alertname".to_owned(), "Unheard".to_owned());
    world.hear(sighting).await;
    assert_eq!(world.incidents().await[0].route, "catch-all");
}
