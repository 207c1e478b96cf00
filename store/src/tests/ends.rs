//! The ends of jobs, which share transactions.

use std::sync::Arc;

use domain::id::IncidentId;
use domain::job::Job;
use jiff::SignedDuration;

use super::make::job;
use super::{World, on_both};
use crate::{CardPost, Did, Error, Store, Take};

const LEASE: SignedDuration = SignedDuration::from_secs(15);

async fn taken(world: &World, store: &Store, keys: &[String]) -> Vec<Job> {
    let jobs: Vec<_> = keys.iter().map(|key| job("card", key, world.now())).collect();
    let mut tx = store.begin().await.unwrap();
    let taken = tx.enqueue_and_claim(&jobs, LEASE, |_| Take::First).await.unwrap();
    tx.commit().await.unwrap();
    taken
}

fn card(incident: IncidentId, version: i64) -> CardPost {
    CardPost {
        incident,
        channel: "ops".to_owned(),
        platform: "slack".to_owned(),
        channel_id: "C1".to_owned(),
        message: Some("1.2".to_owned()),
        posted_version: version,
        delivery: "d".to_owned(),
        told: 0,
    }
}

on_both! {
    async fn many_end_together_and_each_hears_its_own_end(world) {
        let store = Arc::new(world.open("a").await);
        let keys: Vec<String> = (0..200).map(|n| format!("k{n:03}")).collect();
        let jobs = taken(world, &store, &keys).await;
        assert_eq!(jobs.len(), 200);
        let incidents: Vec<IncidentId> = keys.iter().map(|_| IncidentId::new(world.now())).collect();
        let mut ends = tokio::task::JoinSet::new();
        for (n, (job, incident)) in jobs.iter().cloned().zip(incidents.clone()).enumerate() {
            let store = Arc::clone(&store);
            ends.spawn(async move {
                match n % 4 {
                    // Somebody else has it by now.
                    1 => {
                        store.free_jobs(&[(job.id, job.claim)]).await.unwrap();
                        assert!(matches!(store.end_job(&job, Some(Did::Card(card(incident, 3)))).await, Err(Error::Conflict)));
                    }
                    // It goes away before it hears of it.
                    2 => drop(tokio::time::timeout(std::time::Duration::ZERO, store.end_job(&job, Some(Did::Card(card(incident, 3))))).await),
                    _ => store.end_job(&job, Some(Did::Card(card(incident, 3)))).await.unwrap(),
                }
            });
        }
        while let Some(end) = ends.join_next().await {
            end.unwrap();
        }
        // Of those who went away some were in line and some were not: what they did is stored with their end, or neither is. Somebody stores it still.
        drop(store.end_job(&jobs[0], None).await);
        let mut tx = store.read().await.unwrap();
        let claims = store.claims().await.unwrap();
        for (n, (job, incident)) in jobs.iter().zip(&incidents).enumerate() {
            let shown = tx.card(*incident, "ops").await.unwrap().is_some_and(|card| card.posted_version == 3);
            let ours = claims.contains(&(job.id, job.claim));
            assert_eq!(shown, !ours, "{n}");
            assert!(shown || n % 4 == 2, "{n} was told that it is stored");
        }
        assert_eq!(tx.depths().await.unwrap().jobs_waiting, 50 + claims.len() as i64, "what others have is theirs");
    }

    async fn what_follows_a_post_is_stored_with_it(world) {
        let store = world.open("a").await;
        let (thread, incident) = (job("thread", "k", world.now()), IncidentId::new(world.now()));
        let [card_job] = <[Job; 1]>::try_from(taken(world, &store, &["k".to_owned()]).await).unwrap();
        let posted = || Did::Posted(card(incident, 1), Box::new(thread.clone()));
        store.end_job(&card_job, Some(posted())).await.unwrap();
        let [mine] = <[Job; 1]>::try_from(store.claim_jobs(10, LEASE).await.unwrap()).unwrap();
        assert_eq!((mine.kind.as_str(), mine.key.as_str()), ("thread", "k"));
        // It is posted while the thread is looked at: that has not seen it, and looks again.
        store.did(posted()).await.unwrap();
        store.end_job(&mine, None).await.unwrap();
        assert_eq!(store.claim_jobs(10, LEASE).await.unwrap().len(), 1);
        assert_eq!(store.read().await.unwrap().card(incident, "ops").await.unwrap().map(|card| card.posted_version), Some(1));
    }

    async fn a_newer_job_follows_one_that_ends(world) {
        let store = world.open("a").await;
        let [mine] = <[Job; 1]>::try_from(taken(world, &store, &["k".to_owned()]).await).unwrap();
        let mut tx = store.begin().await.unwrap();
        tx.enqueue(&[job("card", "k", world.now())]).await.unwrap();
        tx.commit().await.unwrap();
        store.end_job(&mine, None).await.unwrap();
        let again = store.claim_jobs(10, LEASE).await.unwrap();
        assert_eq!((again.len(), again[0].id), (1, mine.id));
        assert!(matches!(store.end_job(&mine, None).await, Err(Error::Conflict)), "an old claim ends nothing");
    }

    async fn a_job_that_cannot_be_the_first_fails_with_its_decision(world) {
        let store = world.open("a").await;
        drop(taken(world, &store, &["k".to_owned()]).await);
        let mut tx = store.begin().await.unwrap();
        let wrong = async {
            tx.set_flag("decision", &serde_json::json!(1)).await?;
            tx.enqueue_and_claim(&[job("card", "k", world.now())], LEASE, |_| Take::First).await?;
            tx.commit().await
        };
        assert!(matches!(wrong.await, Err(Error::Conflict)));
        assert!(store.read().await.unwrap().flag("decision").await.unwrap().is_none());
    }
}
