//! What grows old goes, what is open or waits stays, and a new epoch lets nothing go on by itself.

use domain::alert::AlertState;
use domain::approval::ApprovalState;
use domain::event::Status::Firing;
use domain::id::IncidentId;
use domain::inbox::Inbox;
use domain::incident::{Incident, IncidentState};
use domain::run::{Attempt, AttemptState, Run, RunState};
use domain::timeline::{Entry, EntryKind};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::make::{alert, approval, attempt, delivery, incident, job, note, run, sighting, told};
use super::{MOMENT, World, commit, on_both};
use crate::{Aging, Backend, Store, Tx};

const DAY: SignedDuration = SignedDuration::from_hours(24);

on_both! {
    async fn what_was_heard_goes_when_it_is_old_and_handled(world) {
        let store = world.open("a").await;
        let first = world.now();
        for name in ["handled", "waits"] {
            store.accept(delivery("am", vec![sighting(name, Firing, first)], world.now())).await.unwrap();
        }
        handle(&store, 1).await;
        world.clock.advance(DAY * 10);
        store.accept(delivery("am", vec![sighting("young", Firing, first)], world.now())).await.unwrap();
        assert_eq!(rounds(&store, Aging::Events, world.now() - DAY).await, 1, "what waits stays, however old");
        assert_eq!(rounds(&store, Aging::Deliveries, world.now() - DAY).await, 2);
        assert_eq!((left(&store, Aging::Events).await, left(&store, Aging::Deliveries).await), (2, 1));
        // A repeat of what is gone is heard afresh, one of what is still there is not.
        let again = delivery("am", vec![sighting("handled", Firing, first), sighting("young", Firing, first)], world.now());
        let accepted = store.accept(again).await.unwrap();
        assert_eq!((accepted.repeats, left(&store, Aging::Events).await), (Some(1), 3));
        handle(&store, 10).await;
        assert_eq!(rounds(&store, Aging::Events, world.now() - DAY).await, 1);
    }

    async fn a_clock_that_is_set_ahead_makes_nothing_old_until_it_has_been_there_for_a_day(world) {
        let store = world.open("a").await;
        store.accept(delivery("am", vec![sighting("x", Firing, world.now())], world.now())).await.unwrap();
        handle(&store, 1).await;
        let right = world.now();
        let round = async |store: &Store| {
            let now = store.look_at_age().await.unwrap();
            assert_eq!(store.read().await.unwrap().old_by().await.unwrap(), Some(now));
            rounds(store, Aging::Events, now - DAY * 30).await
        };
        assert_eq!((store.read().await.unwrap().old_by().await.unwrap(), round(&store).await), (None, 0));
        world.clock.advance(DAY * 400);
        assert_eq!(round(&store).await, 0);
        // It is set back, and nothing was lost by it.
        world.clock.advance(-DAY * 400);
        assert_eq!((round(&store).await, store.look_at_age().await.unwrap()), (0, right));

        // It stays there. A start in between, or a look by another replica, changes nothing.
        world.clock.advance(DAY * 400);
        assert_eq!(round(&store).await, 0);
        store.close().await;
        drop(store);
        let store = world.open("b").await;
        for _ in 0..143 {
            world.clock.advance(SignedDuration::from_mins(10));
            assert_eq!(round(&store).await, 0);
        }
        world.clock.advance(SignedDuration::from_mins(10));
        assert_eq!((round(&store).await, left(&store, Aging::Events).await), (1, 0));
    }

    async fn a_store_from_before_begins_with_what_was_heard_last(world) {
        let store = world.open("a").await;
        let heard = world.now();
        store.accept(delivery("am", vec![sighting("x", Firing, heard)], heard)).await.unwrap();
        world.clock.advance(DAY * 400);
        assert_eq!(store.look_at_age().await.unwrap(), heard);
        // One that cannot be read is as none.
        commit(&store, async |tx| tx.set_flag("retention.clock", &json!("noon")).await).await.unwrap();
        assert_eq!(store.look_at_age().await.unwrap(), heard);
    }

    async fn closed_incidents_go_with_everything_of_theirs(world) {
        let store = world.open("a").await;
        let at = world.now();
        let gone = put(&store, incident(1, "gone", IncidentState::Closed, at), RunState::Succeeded, AlertState::Resolved).await;
        let unknown = put(&store, incident(2, "unknown", IncidentState::Closed, at), RunState::Unknown, AlertState::Resolved).await;
        let firing = put(&store, incident(3, "firing", IncidentState::Closed, at), RunState::Failed, AlertState::Firing).await;
        let open = put(&store, incident(4, "open", IncidentState::Open, at), RunState::Failed, AlertState::Resolved).await;
        world.clock.advance(DAY * 10);
        let young = put(&store, incident(5, "young", IncidentState::Closed, world.now()), RunState::Failed, AlertState::Resolved).await;
        let mut tx = store.begin().await.unwrap();
        tx.insert_run(&ended(None, RunState::Succeeded, at)).await.unwrap();
        tx.insert_run(&ended(None, RunState::Unknown, at)).await.unwrap();
        tx.put_alerts(&[alert("am", "alone", AlertState::Stale, None, at), alert("am", "fires", AlertState::Firing, None, at)]).await.unwrap();
        tx.commit().await.unwrap();

        let before = world.now() - DAY;
        assert_eq!(rounds(&store, Aging::Incidents, before).await, 1);
        assert_eq!((rounds(&store, Aging::Runs, before).await, rounds(&store, Aging::Alerts, before).await), (1, 1));
        let mut tx = store.read().await.unwrap();
        for (id, there) in [(gone, false), (unknown, true), (firing, true), (open, true), (young, true)] {
            assert_eq!(tx.incident(id).await.unwrap().is_some(), there);
            assert_eq!(tx.timeline(id, 10).await.unwrap().len(), usize::from(there));
            assert_eq!(tx.runs_of(id).await.unwrap().len(), usize::from(there));
            assert_eq!(tx.incident_alerts(id, 10).await.unwrap().len(), usize::from(there));
        }
        assert_eq!(tx.number("select count(*) from attempts").await.unwrap(), 4);
        assert_eq!(tx.number("select count(*) from run_targets").await.unwrap(), 5);
        drop(tx);
        assert_eq!(rounds(&store, Aging::Incidents, before).await, 0, "a second round finds nothing");
    }

    async fn an_alert_that_fires_again_at_the_moment_stays(world) {
        let store = world.open("a").await;
        let at = world.now();
        let put = async |tx: &mut Tx, state, at| tx.put_alerts(&[alert("am", "x", state, None, at)]).await;
        commit(&store, async |tx| put(tx, AlertState::Resolved, at).await).await.unwrap();
        world.clock.advance(DAY * 10);
        let mut fires = store.begin().await.unwrap();
        put(&mut fires, AlertState::Firing, world.now()).await.unwrap();
        let before = world.now() - DAY;
        let prune = tokio::spawn({
            let store = store.clone();
            async move { store.prune(Aging::Alerts, before, 0, 10).await }
        });
        tokio::time::sleep(MOMENT).await;
        fires.commit().await.unwrap();
        assert_eq!((prune.await.unwrap().unwrap().rows, left(&store, Aging::Alerts).await), (0, 1));
    }

    async fn what_failed_for_good_goes_too(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        tx.keep_sample("am", world.now(), b"{", "cut off").await.unwrap();
        tx.enqueue(&[job("card", "dead", world.now()), job("card", "waits", world.now())]).await.unwrap();
        tx.commit().await.unwrap();
        let jobs = store.claim_jobs(10, DAY).await.unwrap();
        let dead = jobs.iter().find(|job| job.key == "dead").unwrap();
        store.bury_job(dead, "no such channel").await.unwrap();
        for (what, count) in [(Aging::DeadJobs, 1), (Aging::Samples, 1), (Aging::DeadLetters, 0)] {
            assert_eq!(rounds(&store, what, world.now() - DAY).await, 0, "{what:?}");
            assert_eq!(rounds(&store, what, world.now() + DAY).await, count, "{what:?}");
        }
        assert_eq!(store.read().await.unwrap().depths().await.unwrap().jobs_waiting, 1);
    }

    async fn a_new_epoch_is_above_the_fences_of_what_is_locked_and_leaves_a_question_for_every_run(world) {
        let store = world.open("a").await;
        let at = world.now();
        let started = |state| Run { state, started_at: Some(at), ..run(None, &["web", "db"], at) };
        // Under way in its first step, between its steps, before its first one, after its last one; and one that nobody knew of before.
        let runs = [RunState::Running, RunState::Running, RunState::Running, RunState::Running, RunState::Unknown].map(started);
        let made: [&[AttemptState]; 5] = [
            &[AttemptState::Started],
            &[AttemptState::Succeeded],
            &[],
            &[AttemptState::Succeeded, AttemptState::Succeeded],
            &[AttemptState::Succeeded, AttemptState::Unknown],
        ];
        let mut tx = store.begin().await.unwrap();
        for (run, made) in runs.iter().zip(made) {
            tx.insert_run(run).await.unwrap();
            for (index, state) in (0..).zip(made) {
                tx.start_attempt(&Attempt { state: *state, ..attempt(run.id, index, 1, at) }, json!({})).await.unwrap();
            }
        }
        assert!(tx.lock_targets(runs[0].id, &["web", "db"]).await.unwrap());
        let before = tx.fences_of(runs[0].id).await.unwrap();
        tx.commit().await.unwrap();

        let new = store.begin_epoch(0).await.unwrap();
        assert_eq!(new.unknown, 4);
        let mut tx = store.read().await.unwrap();
        for (target, fence) in tx.fences_of(runs[0].id).await.unwrap() {
            assert!(fence.epoch == new.epoch && fence > before[&target] && fence.n == before[&target].n + 1, "{target}: {fence}");
        }
        for (run, (index, step)) in runs.iter().zip([(0, "restart"), (1, "restart-db"), (0, "restart-web"), (2, "end"), (1, "restart")]) {
            let attempts = tx.attempts(run.id).await.unwrap();
            let asked: Vec<_> = attempts.iter().filter(|attempt| attempt.state == AttemptState::Unknown).collect();
            assert_eq!(asked.len(), 1, "{attempts:#?}");
            assert_eq!((asked[0].index, asked[0].step.as_str(), asked[0].restored), (index, step, true));
            let now = tx.run(run.id).await.unwrap().unwrap();
            assert!(now.state == RunState::Unknown && now.reason.unwrap().contains("restored from a backup"));
        }
        drop(tx);
        // Once more says nothing that was not said.
        let said = async || store.read().await.unwrap().run(runs[4].id).await.unwrap().unwrap().reason;
        let first = said().await;
        store.begin_epoch(0).await.unwrap();
        assert_eq!(said().await, first);
    }

    async fn a_run_that_a_person_let_go_on_after_one_restore_is_asked_about_after_the_next(world) {
        let store = world.open("a").await;
        let at = world.now();
        // The first step was open at an earlier restore and nobody said what became of it; the run went on past it: between two steps, and in one.
        let runs = [AttemptState::Succeeded, AttemptState::Started].map(|last| {
            (Run { state: RunState::Running, started_at: Some(at), ..run(None, &["web", "db"], at) }, last)
        });
        let mut tx = store.begin().await.unwrap();
        for (run, last) in &runs {
            tx.insert_run(run).await.unwrap();
            let open = Attempt { state: AttemptState::Unknown, restored: true, ..attempt(run.id, 0, 1, at) };
            for made in [open, Attempt { state: *last, ..attempt(run.id, 1, 1, at) }] {
                tx.start_attempt(&made, json!({})).await.unwrap();
            }
        }
        tx.commit().await.unwrap();
        assert_eq!(store.begin_epoch(0).await.unwrap().unknown, 2);
        let mut tx = store.read().await.unwrap();
        for ((run, _), asked) in runs.iter().zip([2, 1]) {
            assert_eq!(tx.run(run.id).await.unwrap().unwrap().state, RunState::Unknown);
            let last = tx.attempts(run.id).await.unwrap().pop().unwrap();
            assert_eq!((last.index, last.state, last.restored), (asked, AttemptState::Unknown, true));
        }
    }

    async fn a_new_epoch_lets_nothing_go_on_by_itself(world) {
        let store = world.open("a").await;
        let at = world.now();
        let id = put(&store, incident(1, "g", IncidentState::Open, at), RunState::Running, AlertState::Firing).await;
        let [waiting, queued] = [RunState::AwaitingApproval, RunState::Queued].map(|state| Run { state, ..run(None, &["web"], at) });
        let mut tx = store.begin().await.unwrap();
        for run in [&waiting, &queued] {
            tx.insert_run(run).await.unwrap();
        }
        tx.insert_approval(&approval(waiting.id, at)).await.unwrap();
        assert_eq!(tx.epoch().await.unwrap(), 1);
        tx.commit().await.unwrap();

        for undecided in [note("asked", id, at), delivery("am", vec![sighting("told", Firing, at)], at)] {
            store.accept(undecided).await.unwrap();
        }

        let new = store.begin_epoch(0).await.unwrap();
        assert_eq!((new.expired, new.unknown, new.superseded, new.dropped), (1, 1, 2, 1));
        let left = store.read().await.unwrap().claim_events(10).await.unwrap();
        assert_eq!(left.iter().map(told).collect::<Vec<_>>(), ["told:firing"], "what people asked for is off, what machines told is not");
        let mut tx = store.read().await.unwrap();
        assert_eq!(tx.epoch().await.unwrap(), new.epoch);
        assert_eq!(tx.approval_of(waiting.id).await.unwrap().unwrap().state, ApprovalState::Expired);
        for (id, state) in [(waiting.id, RunState::Superseded), (queued.id, RunState::Superseded)] {
            assert_eq!(tx.run(id).await.unwrap().unwrap().state, state);
        }
        let lost = tx.runs_of(id).await.unwrap().remove(0);
        assert_eq!(lost.state, RunState::Unknown);
        assert_eq!(tx.attempts(lost.id).await.unwrap()[0].state, AttemptState::Unknown);
        assert_eq!(tx.incident(id).await.unwrap().unwrap().version, 2, "its cards are drawn again");
        assert_eq!(tx.flag("automation.paused").await.unwrap().unwrap()["paused"], json!(true));
        drop(tx);
        let next = store.begin_epoch(new.epoch + 5).await.unwrap();
        assert_eq!((next.epoch, next.expired, next.unknown), (new.epoch + 6, 0, 0), "greater than any before");
    }
}

/// A repeat may arrive while its event goes: whatever comes first, nothing is queued that cannot be found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_that_comes_while_its_event_goes_is_not_lost() {
    let world = World::new(Backend::Postgres).await;
    let [a, b] = [world.open("a").await, world.open("b").await];
    let at = world.now();
    let names: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let send = async |store: &Store, name: &str| store.accept(delivery("am", vec![sighting(name, Firing, at)], at)).await.unwrap();
    for name in &names {
        send(&a, name).await;
    }
    while handle(&a, 500).await > 0 {}
    let repeats = async {
        for name in &names {
            send(&b, name).await;
        }
    };
    let prune = async {
        for _ in 0..60 {
            match a.prune(Aging::Events, at + DAY, 0, 20).await {
                Ok(_) | Err(crate::Error::Retry) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::join!(repeats, prune);
    let mut tx = a.begin().await.unwrap();
    let lost = tx.number("select count(*) from queue where event_seq not in (select seq from events)").await.unwrap();
    assert_eq!(lost, 0);
    drop(tx);
    let mut heard = 0;
    loop {
        match handle(&a, 500).await {
            0 => break,
            n => heard += n,
        }
    }
    assert_eq!(heard, names.len(), "each repeat is handled");
}

async fn handle(store: &Store, most: i64) -> usize {
    let mut tx = store.begin().await.unwrap();
    let events = tx.claim_events(most).await.unwrap();
    let finished: Vec<_> = events.iter().map(|event| (event.seq, None)).collect();
    tx.finish_events(&finished).await.unwrap();
    tx.commit().await.unwrap();
    finished.len()
}

async fn rounds(store: &Store, what: Aging, before: Timestamp) -> u64 {
    let (mut from, mut rows) = (0, 0);
    loop {
        let pruned = store.prune(what, before, from, 1).await.unwrap();
        rows += pruned.rows;
        match pruned.next {
            Some(next) => from = next,
            None => return rows,
        }
    }
}

async fn left(store: &Store, what: Aging) -> i64 {
    store.read().await.unwrap().count_aging(what).await.unwrap()
}

fn ended(incident: Option<IncidentId>, state: RunState, at: Timestamp) -> Run {
    Run { state, finished_at: (!state.is_active()).then_some(at), ..run(incident, &["web"], at) }
}

/// An incident with one of everything.
async fn put(store: &Store, mut one: Incident, state: RunState, of_alert: AlertState) -> IncidentId {
    let (id, at) = (one.id, one.opened_at);
    one.closed_at = (one.state == IncidentState::Closed).then_some(at);
    let of_it = ended(Some(id), state, at);
    let mut tx = store.begin().await.unwrap();
    tx.insert_incidents(&[&one]).await.unwrap();
    tx.put_alerts(&[alert("am", &one.group_key, of_alert, Some(id), at)]).await.unwrap();
    tx.tell(&[Entry { incident: id, at, kind: EntryKind::Note, who: None, text: "said".to_owned(), detail: None }]).await.unwrap();
    tx.insert_run(&of_it).await.unwrap();
    tx.start_attempt(&attempt(of_it.id, 0, 1, at), json!({})).await.unwrap();
    tx.commit().await.unwrap();
    id
}
