//! What follows a decision begins with its commit, and whatever breaks in between is done again without being done twice.

use std::sync::Arc;
use std::time::Duration;

use domain::event::Status::Firing;
use domain::event::{Event, NewEvent, Sighting};
use domain::id::{IncidentId, JobId};
use domain::inbox::{Inbox, Opener, Sealed};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use store::Take;

use super::world::{Broken, Script, World};
use crate::Worker;
use crate::batch::Batch;

const LEASE: SignedDuration = SignedDuration::from_secs(15);

impl World {
    fn script_now<T>(&self, read: impl Fn(&Script) -> T) -> T {
        read(&self.script.lock().unwrap())
    }

    async fn card_message(&self) -> Option<String> {
        let incident: IncidentId = self.incidents().await.first()?.id;
        self.cx.store.read().await.unwrap().card(incident, "ops").await.unwrap()?.message
    }

    async fn until(&self, what: &str, done: impl AsyncFn() -> bool) {
        let so = async || {
            anyhow::ensure!(done().await, "{what}");
            Ok(())
        };
        harness::eventually(Duration::from_secs(60), so).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_is_posted_by_whoever_decided() {
    let world = World::new("observe").await;
    let worker = tokio::spawn(Worker::new(world.cx.clone()).run());
    world.store_only(world.sighting("api", Firing)).await;
    world.until("the card is posted", async || world.card_message().await.is_some()).await;
    assert_eq!(world.script_now(|script| (script.posts.len(), script.looks)), (1, 0));
    world.until("its job is over", async || world.cx.store.claims().await.unwrap().is_empty()).await;
    world.cx.wake.stop();
    worker.await.unwrap();
    assert!(world.cx.wake.hands.take("chat.card").is_none(), "nothing is taken by a worker that stopped");
}

/// A card is drawn while its decision is on its way to the disk. If the commit fails, nobody hears of it, and nothing is left of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_is_not_stored_is_told_nobody() {
    let world = World::new("observe").await;
    let worker = tokio::spawn(Worker::new(world.cx.clone()).run());
    world.until("the worker takes jobs", async || world.cx.wake.hands.take("chat.card").is_some()).await;
    for n in 0..50 {
        let (sighting, at) = (world.sighting("api", Firing), world.now());
        let new = NewEvent::sighting("am", sighting.clone());
        let event = Event {
            seq: 1,
            key: new.key,
            source: "am".to_owned(),
            received_at: at,
            last_seen: at,
            seen: 1,
            attempts: 0,
            payload: new.payload,
        };
        let mut batch = Batch::begin(&world.cx).await.unwrap();
        crate::on_alert::handle(&mut batch, &event, &sighting, None).await.unwrap();
        // Found out by the commit.
        batch.tx.hold_claim(JobId::new(world.now()), 1).await.unwrap();
        assert!(matches!(batch.commit().await, Err(store::Error::Conflict)));
        world.until("it was drawn in vain", async || world.script_now(|script| script.drawn) == n + 1).await;
    }
    world.store_only(world.sighting("api", Firing)).await;
    world.until("the card is posted", async || world.card_message().await.is_some()).await;
    world.until("its job is over", async || world.cx.store.claims().await.unwrap().is_empty()).await;
    assert_eq!(world.script_now(|script| (script.drawn, script.posts.len(), script.looks)), (51, 1, 0));
    assert_eq!(world.cx.store.read().await.unwrap().depths().await.unwrap().jobs_dead, 0);
    world.cx.wake.stop();
    worker.await.unwrap();
}

#[tokio::test]
async fn a_post_whose_answer_was_lost_is_found_and_not_repeated() {
    let world = World::new("observe").await;
    world.script.lock().unwrap().answers_lost = 1;
    world.alert("api", Firing).await;
    assert_eq!((world.script_now(|script| script.posts.len()), world.card_message().await), (1, None));
    // Something newer to show, meanwhile: the job's attempts are counted afresh, and the post is looked for all the same.
    world.alert("api", domain::event::Status::Resolved).await;
    world.pass(10).await;
    assert_eq!(world.script_now(|script| (script.posts.len(), script.looks)), (1, 1));
    assert_eq!(world.card_message().await.as_deref(), Some("m1"));
}

/// As after a crash between the platform's answer and its storing: the claim alone says that it may have been tried.
#[tokio::test]
async fn a_job_that_was_interrupted_looks_for_its_post_first() {
    let world = World::new("observe").await;
    world.store_only(world.sighting("api", Firing)).await;
    assert_eq!(crate::deciding::decide(&world.cx).await.unwrap(), 1);
    let [job] = <[_; 1]>::try_from(world.cx.store.claim_jobs(1, LEASE).await.unwrap()).unwrap();
    assert_eq!(job.kind, "chat.card");
    world.script.lock().unwrap().posts.push(job.id.0.simple().to_string());
    world.cx.store.free_jobs(&[(job.id, job.claim)]).await.unwrap();
    world.worker.settle().await.unwrap();
    assert_eq!(world.script_now(|script| (script.posts.len(), script.looks)), (1, 1));
    assert_eq!(world.card_message().await.as_deref(), Some("m1"));
}

/// A commit whose answer was lost leaves claims that this process knows nothing of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_nobody_holds_are_found() {
    let world = World::new("observe").await;
    world.alert("api", Firing).await;
    let incident = world.incidents().await[0].id;
    let job = domain::job::NewJob {
        kind: "incident.look",
        key: "lost".to_owned(),
        due_at: world.now(),
        urgency: domain::job::Urgency::Action,
        payload: json!({ "incident": incident, "what": "quiet" }),
    };
    let mut tx = world.cx.store.begin().await.unwrap();
    assert_eq!(tx.enqueue_and_claim(&[job], LEASE, |_| Take::Unless).await.unwrap().len(), 1);
    tx.commit().await.unwrap();
    let worker = tokio::spawn(Worker::new(world.cx.clone()).run());
    world.until("it is carried out", async || world.cx.store.claims().await.unwrap().is_empty()).await;
    assert_eq!(world.cx.store.read().await.unwrap().depths().await.unwrap().jobs_dead, 0);
    world.cx.wake.stop();
    worker.await.unwrap();
}

/// While the worker keeps up, an alert is decided before its sender hears that it was accepted. What cannot be decided is accepted all the same, holds
/// up nothing else, and ends in the dead letters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_is_decided_where_it_is_stored_and_its_failure_is_not_the_senders() {
    let mut world = World::new("approve").await;
    world.cx.actions = Arc::new(Broken::default());
    let worker = tokio::spawn(Worker::new(world.cx.clone()).run());
    let heard = async |name: &str| {
        let key = ("am".to_owned(), name.to_owned());
        !world.cx.store.begin().await.unwrap().alerts(&[key]).await.unwrap().is_empty()
    };
    let harmless = async |n: usize| {
        let mut sighting = world.sighting(&format!("s{n}"), Firing);
        sighting.labels.insert("alertname".to_owned(), "Other".to_owned());
        world.store_only(sighting).await;
        heard(&format!("f-s{n}")).await
    };
    // The worker has to have looked once.
    let mut tried = 0;
    while !harmless(tried).await {
        tried += 1;
        assert!(tried < 1000, "nothing is decided where it is stored");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seq = world.accept(NewEvent::sighting("am", world.sighting("api", Firing))).await;
    world.until("what comes after it is decided", async || harmless(2000).await || heard("f-s2000").await).await;
    world
        .until("it is set aside", async || {
            world.clock.advance(SignedDuration::from_secs(20));
            world.cx.store.read().await.unwrap().dead_letters(10).await.unwrap().iter().any(|letter| letter.seq == seq)
        })
        .await;
    assert!(harmless(3000).await || heard("f-s3000").await, "and the worker lives");
    world.cx.wake.stop();
    worker.await.unwrap();
}

/// Reads bodies that are lists of sightings.
struct Lists;

impl Opener for Lists {
    fn open(&self, source: &str, _kind: &str, _id: &str, _at: Timestamp, raw: &[u8]) -> Result<Vec<NewEvent>, String> {
        let sightings: Vec<Sighting> = serde_json::from_slice(raw).map_err(|error| error.to_string())?;
        Ok(sightings.into_iter().map(|sighting| NewEvent::sighting(source, sighting)).collect())
    }
}

/// In a delivery that is opened when it is decided, one alert that cannot be decided fails alone.
#[tokio::test]
async fn a_poisonous_alert_in_an_unopened_delivery_is_set_aside_and_the_others_are_decided() {
    let mut world = World::new("approve").await;
    world.cx.actions = Arc::new(Broken::default());
    world.worker = Worker::new(world.cx.clone());
    world.cx.store.open_with(Arc::new(Lists));
    let other = |n: usize| {
        let mut sighting = world.sighting(&format!("s{n}"), Firing);
        sighting.labels.insert("alertname".to_owned(), "Other".to_owned());
        sighting
    };
    let mut sightings: Vec<Sighting> = (0..100).map(other).collect();
    sightings.insert(50, world.sighting("api", Firing));
    assert!(world.cx.store.wants_sealed(sightings.len()));
    let raw = serde_json::to_vec(&sightings).unwrap().into();
    let sealed = Sealed { source: "am".to_owned(), kind: "list", id: None, events: 101, raw, received_at: world.cx.clock.now() };
    world.cx.store.accept_sealed(sealed).await.unwrap();
    world.worker.settle().await.unwrap();
    let keys: Vec<_> = (0..100).map(|n| ("am".to_owned(), format!("f-s{n}"))).collect();
    assert_eq!(world.cx.store.begin().await.unwrap().alerts(&keys).await.unwrap().len(), 100);
    for attempt in 1.. {
        let letters = world.cx.store.read().await.unwrap().dead_letters(10).await.unwrap();
        if !letters.is_empty() {
            assert_eq!((letters.len(), attempt), (1, 5));
            break;
        }
        assert!(attempt < 10, "it is never set aside");
        world.clock.advance(SignedDuration::from_secs(70));
        world.worker.settle().await.unwrap();
    }
}
