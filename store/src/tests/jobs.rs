//! Jobs.

use std::collections::HashMap;

use domain::job::{Job, Urgency};
use jiff::SignedDuration;
use serde_json::json;

use super::make::{NASTY, job};
use super::{MOMENT, World, on_both};
use crate::{Backend, Change, Error, Store, Take};

pub(super) const LEASE: SignedDuration = SignedDuration::from_secs(15);
const MINUTE: SignedDuration = SignedDuration::from_secs(60);

on_both! {
    async fn a_job_is_claimed_when_due_and_finished_once(world) {
        let store = world.open("a").await;
        let mut changes = store.changes();
        enqueue(&store, &[job("card", NASTY, world.now() + MINUTE)]).await;
        assert!(changes.try_recv().is_err(), "nobody is woken for what is due later");
        assert!(store.claim_jobs(10, LEASE).await.unwrap().is_empty());
        assert_eq!(store.read().await.unwrap().next_due().await.unwrap(), Some(world.now() + MINUTE));
        world.clock.advance(MINUTE);
        let [mine] = claim(&store).await;
        assert_eq!((mine.kind.as_str(), mine.key, mine.attempts), ("card", NASTY.replace('\0', "\u{2400}"), 0));
        assert_eq!((mine.payload, mine.due_at), (json!({ "key": NASTY }), world.now()));
        assert!(store.claim_jobs(10, LEASE).await.unwrap().is_empty());
        assert_eq!(store.read().await.unwrap().next_due().await.unwrap(), None);
        enqueue(&store, &[job("other", "k", world.now())]).await;
        assert_eq!(changes.try_recv().unwrap(), Change::Jobs);
        let [other] = claim(&store).await;
        store.end_job(&other, None).await.unwrap();
        assert!(matches!(store.end_job(&other, None).await, Err(Error::Conflict)));
        assert_eq!(store.read().await.unwrap().depths().await.unwrap().jobs_waiting, 1);
    }

    async fn jobs_of_one_key_are_one(world) {
        let store = world.open("a").await;
        let (now, mut later) = (world.now(), job("card", "k", world.now() + MINUTE));
        enqueue(&store, &[job("card", "k", now), later.clone(), job("card", "other", now)]).await;
        later.payload = json!("newest");
        later.urgency = Urgency::Person;
        enqueue(&store, &[later]).await;
        let [first, second] = claim(&store).await;
        assert_eq!((first.key.as_str(), first.payload, first.due_at), ("k", json!("newest"), now), "the sooner time, the newer payload");
        assert_eq!(second.key, "other");
    }

    async fn what_was_given_up_gets_another_chance_once_per_key(world) {
        let store = world.open("a").await;
        for key in ["a", "b", "b", "c"] {
            enqueue(&store, &[job("card", key, world.now())]).await;
            let [mine] = claim(&store).await;
            store.bury_job(&mine, "refused").await.unwrap();
            world.clock.advance(MINUTE);
        }
        enqueue(&store, &[job("card", "c", world.now() + MINUTE), job("other", "d", world.now() + MINUTE)]).await;
        assert_eq!((store.revive_jobs("card").await.unwrap(), store.revive_jobs("card").await.unwrap()), (2, 0));
        let [first, second] = claim(&store).await;
        assert_eq!(((first.key.as_str(), first.attempts), (second.key.as_str(), second.attempts)), (("a", 1), ("b", 1)));
        assert_eq!(store.read().await.unwrap().depths().await.unwrap().jobs_dead, 2, "an older one, and one that waits anew");
    }

    async fn the_urgent_come_first_then_the_longest_due(world) {
        let store = world.open("a").await;
        let mut jobs = Vec::new();
        for (key, urgency, late) in
            [("d", Urgency::Upkeep, 9), ("c", Urgency::Tell, 1), ("b", Urgency::Tell, 2), ("a", Urgency::Person, 0), ("x", Urgency::Person, -1)]
        {
            let due = world.now() - SignedDuration::from_secs(late);
            jobs.push(domain::job::NewJob { urgency, ..job("card", key, due) });
        }
        enqueue(&store, &jobs).await;
        let keys = |jobs: Vec<Job>| jobs.into_iter().map(|job| job.key).collect::<String>();
        assert_eq!(keys(store.claim_jobs(3, LEASE).await.unwrap()), "abc");
        assert_eq!(keys(store.claim_jobs(3, LEASE).await.unwrap()), "d");
        let age = store.read().await.unwrap().depths().await.unwrap();
        assert_eq!((age.jobs_waiting, age.oldest_job_age), (5, None));
    }

    async fn a_newer_job_of_the_key_follows_the_one_that_is_under_way(world) {
        let store = world.open("a").await;
        enqueue(&store, &[job("card", "k", world.now())]).await;
        let [mine] = claim(&store).await;
        let soon = world.now() + MINUTE;
        let mut newer = job("card", "k", soon);
        newer.payload = json!("newer");
        enqueue(&store, &[newer.clone()]).await;
        newer.due_at = soon + MINUTE;
        enqueue(&store, &[newer]).await;
        assert!(store.claim_jobs(10, LEASE).await.unwrap().is_empty(), "never two at once");
        store.end_job(&mine, None).await.unwrap();
        assert_eq!(store.read().await.unwrap().next_due().await.unwrap(), Some(soon));
        world.clock.advance(MINUTE);
        let [again] = claim(&store).await;
        assert_eq!((again.id, again.payload, again.attempts), (mine.id, json!("newer"), 0));
        assert!(again.claim > mine.claim);
    }

    async fn a_newer_job_that_is_being_stored_while_the_one_before_ends_is_not_lost(world) {
        let store = world.open("a").await;
        enqueue(&store, &[job("card", "k", world.now())]).await;
        let [mine] = claim(&store).await;
        let mut newer = store.begin().await.unwrap();
        newer.enqueue(&[job("card", "k", world.now())]).await.unwrap();
        let end = tokio::spawn({
            let (store, mine) = (store.clone(), mine.clone());
            async move { store.end_job(&mine, None).await }
        });
        tokio::time::sleep(MOMENT).await;
        newer.commit().await.unwrap();
        end.await.unwrap().unwrap();
        let [again] = claim(&store).await;
        assert_eq!((again.id, again.attempts, again.revision), (mine.id, 0, 2));
    }

    async fn no_more_are_claimed_of_a_kind_than_are_wanted(world) {
        let store = world.open("a").await;
        let late = |seconds| world.now() - SignedDuration::from_secs(seconds);
        let runs: Vec<_> = (0..100).map(|n| job("run", &format!("{n:03}"), late(500 - n))).collect();
        enqueue(&store, &runs).await;
        enqueue(&store, &[job("card", "a", late(9)), job("card", "b", late(8)), job("card", "c", late(7)), job("other", "x", late(6))]).await;
        enqueue(&store, &[domain::job::NewJob { urgency: Urgency::Upkeep, ..job("upkeep", "u", late(5)) }]).await;
        let some = async |limit, most: &[(&str, i64)]| {
            let jobs = store.claim_some_jobs(limit, LEASE, most).await.unwrap();
            jobs.into_iter().map(|job| format!("{} {}", job.kind, job.key)).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(some(10, &[("run", 2), ("card", 1), ("upkeep", 1)]).await, "run 000, run 001, upkeep u", "the longest due are all of one kind");
        assert_eq!(some(10, &[("run", 0), ("card", 2), ("upkeep", 0)]).await, "card a, card b, other x", "one that nobody counts is taken");
        assert_eq!(some(10, &[("run", 0), ("card", 0)]).await, "");
        assert_eq!(some(10, &[("run", 1), ("card", 0)]).await, "run 002");
        assert_eq!(some(2, &[("run", 9), ("card", 9)]).await, "run 003, run 004");
        assert_eq!(some(200, &[]).await.split(", ").count(), 96);
    }

    async fn an_old_claim_ends_nothing_beside_the_present_one(world) {
        let store = world.open("a").await;
        for _ in 0..20 {
            enqueue(&store, &[job("card", "k", world.now())]).await;
            let [old] = claim(&store).await;
            store.free_jobs(&[(old.id, old.claim)]).await.unwrap();
            let [present] = claim(&store).await;
            let ends = tokio::join!(store.end_job(&old, None), store.end_job(&present, None));
            assert!(matches!(ends, (Err(Error::Conflict), Ok(()))), "{ends:?}");
        }
    }

    async fn a_decision_may_enqueue_the_next_one_of_its_own_key(world) {
        let store = world.open("a").await;
        enqueue(&store, &[job("timer", "k", world.now())]).await;
        let [mine] = claim(&store).await;
        let mut tx = store.begin().await.unwrap();
        tx.enqueue(&[job("timer", "k", world.now() + MINUTE)]).await.unwrap();
        tx.commit().await.unwrap();
        store.end_job(&mine, None).await.unwrap();
        assert!(store.claim_jobs(10, LEASE).await.unwrap().is_empty());
        assert_eq!(store.read().await.unwrap().next_due().await.unwrap(), Some(world.now() + MINUTE));
    }

    async fn a_failed_job_waits_and_counts(world) {
        let store = world.open("a").await;
        enqueue(&store, &[job("card", "k", world.now())]).await;
        let [mine] = claim(&store).await;
        store.retry_job(&mine, world.now() + MINUTE, NASTY).await.unwrap();
        assert!(matches!(store.retry_job(&mine, world.now(), "late").await, Err(Error::Conflict)));
        assert!(store.claim_jobs(10, LEASE).await.unwrap().is_empty());
        world.clock.advance(MINUTE);
        let [again] = claim(&store).await;
        assert_eq!(again.attempts, 1);
        assert!(matches!(store.end_job(&mine, None).await, Err(Error::Conflict)), "an old claim finishes nothing");
        store.wait_job(&again, world.now() + MINUTE).await.unwrap();
        world.clock.advance(MINUTE);
        let [third] = claim(&store).await;
        assert_eq!(third.attempts, 1, "waiting is no failure");
        store.bury_job(&third, NASTY).await.unwrap();
        let depths = store.read().await.unwrap().depths().await.unwrap();
        assert_eq!((depths.jobs_waiting, depths.jobs_dead), (0, 1));
        enqueue(&store, &[job("card", "k", world.now())]).await;
        let [fresh] = claim(&store).await;
        assert_ne!(fresh.id, third.id, "the dead do not stand in the way of the living");
    }

    async fn a_newer_job_gets_its_chance_where_the_old_one_is_buried(world) {
        let store = world.open("a").await;
        enqueue(&store, &[job("card", "k", world.now())]).await;
        let [mine] = claim(&store).await;
        enqueue(&store, &[job("card", "k", world.now())]).await;
        store.bury_job(&mine, "no such channel").await.unwrap();
        let [newer] = claim(&store).await;
        assert_eq!((newer.attempts, store.read().await.unwrap().depths().await.unwrap().jobs_dead), (1, 0), "that it was tried is not forgotten");
        enqueue(&store, &[job("card", "k", world.now() + MINUTE)]).await;
        store.retry_job(&newer, world.now() + MINUTE + MINUTE, "later").await.unwrap();
        assert_eq!(store.read().await.unwrap().next_due().await.unwrap(), Some(world.now() + MINUTE), "the sooner of both");
    }

    async fn a_restart_frees_what_was_under_way(world) {
        let store = world.open("a").await;
        enqueue(&store, &[job("card", "k", world.now())]).await;
        let [mine] = claim(&store).await;
        enqueue(&store, &[job("card", "k", world.now() + MINUTE)]).await;
        store.close().await;
        drop(store);
        let store = world.open("a").await;
        let [again] = claim(&store).await;
        assert_eq!((again.id, again.attempts, again.due_at), (mine.id, 1, world.now()), "interrupted is due at once");
    }

    async fn a_job_can_be_ours_from_its_birth(world) {
        let store = world.open("a").await;
        enqueue(&store, &[job("card", "old", world.now())]).await;
        let jobs = [job("card", "new", world.now()), job("card", "old", world.now()), job("card", "left", world.now())];
        let mut tx = store.begin().await.unwrap();
        drop(tx.enqueue_and_claim(&jobs, LEASE, |_| Take::Unless).await.unwrap());
        drop(tx);
        let mut tx = store.begin().await.unwrap();
        let [new]: [Job; 1] = tx.enqueue_and_claim(&jobs, LEASE, |job| if job.key == "left" { Take::Leave } else { Take::Unless }).await.unwrap().try_into().unwrap();
        tx.commit().await.unwrap();
        assert_eq!((new.key.as_str(), &new.payload, new.due_at, new.attempts), ("new", &json!({ "key": "new" }), world.now(), 0));
        assert_eq!(store.renew_jobs(&[(new.id, new.claim)], LEASE).await.unwrap(), [new.id]);
        let mut keys: Vec<String> = claim::<2>(&store).await.map(|job| job.key).into();
        keys.sort();
        assert_eq!(keys, ["left", "old"], "one that waited before goes to whoever claims it");
        enqueue(&store, &[job("card", "new", world.now())]).await;
        assert!(store.claim_jobs(10, LEASE).await.unwrap().is_empty(), "never two at once");
        let mut tx = store.begin().await.unwrap();
        tx.hold_claim(new.id, new.claim).await.unwrap();
        drop(tx);
        store.end_job(&new, None).await.unwrap();
        let [again] = claim(&store).await;
        assert_eq!((again.id, again.attempts, again.claim), (new.id, 0, 2));
    }

    async fn claims_that_nobody_holds_are_freed_and_the_attempt_counts(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        let [mine]: [Job; 1] = tx.enqueue_and_claim(&[job("card", "k", world.now())], LEASE, |_| Take::Unless).await.unwrap().try_into().unwrap();
        tx.commit().await.unwrap();
        assert_eq!(store.claims().await.unwrap(), [(mine.id, mine.claim)]);
        store.free_jobs(&[(mine.id, mine.claim + 1)]).await.unwrap();
        assert!(store.claim_jobs(10, LEASE).await.unwrap().is_empty());
        enqueue(&store, &[job("card", "k", world.now())]).await;
        store.free_jobs(&[(mine.id, mine.claim)]).await.unwrap();
        let [again] = claim(&store).await;
        assert_eq!((again.id, again.attempts), (mine.id, 1), "a newer one of its key changes nothing about that");
        store.free_jobs(&[(mine.id, mine.claim)]).await.unwrap();
        assert_eq!(store.claims().await.unwrap(), [(again.id, again.claim)]);
    }

    async fn a_job_is_born_with_its_decision_or_not_at_all(world) {
        let store = world.open("a").await;
        let mut changes = store.changes();
        let mut tx = store.begin().await.unwrap();
        tx.enqueue(&[job("card", "k", world.now())]).await.unwrap();
        drop(tx);
        assert!(store.claim_jobs(10, LEASE).await.unwrap().is_empty());
        assert!(changes.try_recv().is_err());
    }
}

/// On SQLite there is one process, and what it holds no other will take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_clock_that_is_set_forward_frees_nothing() {
    let world = World::new(Backend::Sqlite).await;
    let store = world.open("a").await;
    enqueue(&store, &[job("card", "k", world.now())]).await;
    let [mine] = claim(&store).await;
    world.clock.advance(MINUTE * 60);
    assert!(store.claim_jobs(10, LEASE).await.unwrap().is_empty());
    assert_eq!(store.renew_jobs(&[(mine.id, mine.claim)], LEASE).await.unwrap(), [mine.id]);
    store.end_job(&mine, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lapsed_lease_frees_the_job_for_others_and_stops_its_holder() {
    let world = World::new(Backend::Postgres).await;
    let [a, b] = [world.open("a").await, world.open("b").await];
    enqueue(&a, &[job("card", "k", world.now()), job("card", "l", world.now())]).await;
    let [k, l] = claim(&a).await;
    world.clock.advance(SignedDuration::from_secs(10));
    assert_eq!(a.renew_jobs(&[(l.id, l.claim), (k.id, k.claim + 1)], LEASE).await.unwrap(), [l.id]);
    world.clock.advance(SignedDuration::from_secs(10));
    assert!(a.claim_jobs(10, LEASE).await.unwrap().is_empty(), "its own it gives back itself");
    let [again] = claim(&b).await;
    assert_eq!((again.id, again.attempts), (k.id, 1));
    let mut tx = a.begin().await.unwrap();
    assert!(matches!(tx.hold_claim(k.id, k.claim).await, Err(Error::Conflict)));
    drop(tx);
    assert!(matches!(a.end_job(&k, None).await, Err(Error::Conflict)));
    assert!(matches!(a.retry_job(&k, world.now(), "late").await, Err(Error::Conflict)));
    let mut tx = a.begin().await.unwrap();
    tx.hold_claim(l.id, l.claim).await.unwrap();
    drop(tx);
    a.end_job(&l, None).await.unwrap();
    b.end_job(&again, None).await.unwrap();
    assert!(a.renew_jobs(&[(k.id, k.claim), (l.id, l.claim)], LEASE).await.unwrap().is_empty());
}

/// Replicas keep what is theirs when one of them restarts, and share what is free without a job done twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_the_jobs() {
    let world = World::new(Backend::Postgres).await;
    let [a, b] = [world.open("a").await, world.open("b").await];
    enqueue(&a, &[job("card", "of b", world.now())]).await;
    let [of_b] = claim(&b).await;
    drop(a);
    let a = world.open("a").await;
    assert!(a.claim_jobs(10, LEASE).await.unwrap().is_empty());
    b.end_job(&of_b, None).await.unwrap();

    let jobs: Vec<_> = (0..1000).map(|n| job("card", &n.to_string(), world.now())).collect();
    enqueue(&a, &jobs).await;
    let mut workers = Vec::new();
    for store in [&a, &b, &a, &b] {
        let store = store.clone();
        workers.push(tokio::spawn(async move {
            let mut done = Vec::new();
            loop {
                let mine = store.claim_jobs(10, LEASE).await.unwrap();
                if mine.is_empty() {
                    return done;
                }
                for job in mine {
                    store.end_job(&job, None).await.unwrap();
                    done.push(job.key);
                }
            }
        }));
    }
    let mut times: HashMap<String, usize> = HashMap::new();
    for worker in workers {
        for key in worker.await.unwrap() {
            *times.entry(key).or_default() += 1;
        }
    }
    assert!(times.len() == 1000 && times.values().all(|n| *n == 1));
}

pub(super) async fn enqueue(store: &Store, jobs: &[domain::job::NewJob]) {
    let mut tx = store.begin().await.unwrap();
    tx.enqueue(jobs).await.unwrap();
    tx.commit().await.unwrap();
}

pub(super) async fn claim<const N: usize>(store: &Store) -> [Job; N] {
    let jobs = store.claim_jobs(10, LEASE).await.unwrap();
    jobs.try_into().unwrap_or_else(|jobs: Vec<Job>| panic!("{} jobs: {jobs:?}", jobs.len()))
}
