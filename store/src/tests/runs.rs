//! Runs, their locks and journals, and approvals.

use domain::alert::AlertState;
use domain::approval::{ApprovalState, Vote};
use domain::id::{ApprovalId, IncidentId, RunId};
use domain::incident::IncidentState;
use domain::run::{Attempt, AttemptState, Run, RunState};
use jiff::SignedDuration;

use super::make::{NASTY, alert, approval, attempt, incident, run};
use super::{MOMENT, commit, on_both};
use crate::{Error, RunFilter, Tx};
use serde_json::json;

on_both! {
    async fn a_run_changes_by_compare_and_set(world) {
        let store = world.open("a").await;
        let incident = IncidentId::new(world.now());
        let mut first = run(Some(incident), &["web"], world.now());
        let insert = async |tx: &mut Tx| tx.insert_run(&first).await;
        commit(&store, insert).await.unwrap();
        assert!(matches!(commit(&store, insert).await, Err(Error::Conflict)));
        first.state = RunState::Running;
        first.version = 2;
        let put = async |tx: &mut Tx| tx.put_run(&first, 1).await;
        commit(&store, put).await.unwrap();
        assert!(matches!(commit(&store, put).await, Err(Error::Conflict)));
        let read_after = commit(&store, async |tx| {
            tx.put_run(&first, 1).await?;
            tx.attempts(first.id).await.map(drop)
        });
        assert!(matches!(read_after.await, Err(Error::Conflict)));
        let gone = run(None, &[], world.now());
        assert!(matches!(commit(&store, async |tx| tx.put_run(&gone, 1).await).await, Err(Error::Conflict)));
        let mut tx = store.read().await.unwrap();
        assert_eq!(tx.run(first.id).await.unwrap(), Some(first.clone()));
        assert_eq!(tx.run(RunId::new(world.now())).await.unwrap(), None);
        assert_eq!(tx.runs_of(incident).await.unwrap(), [first]);
    }

    async fn a_run_is_read_with_what_is_asked_before_it_starts(world) {
        let store = world.open("a").await;
        let about = incident(1, NASTY, IncidentState::Open, world.now());
        let (bare, of_it) = (run(None, &[], world.now()), run(Some(about.id), &[], world.now()));
        let mut tx = store.begin().await.unwrap();
        tx.insert_incidents(&[&about]).await.unwrap();
        tx.insert_run(&bare).await.unwrap();
        tx.insert_run(&of_it).await.unwrap();
        for (state, fires) in [
            (AlertState::Resolved, false),
            (AlertState::Stale, false),
            (AlertState::Firing, true),
            (AlertState::Flapping, true),
        ] {
            tx.put_alerts(&[alert("am", "1", state, Some(about.id), world.now())]).await.unwrap();
            let read = tx.run_to_start(of_it.id, "paused").await.unwrap().unwrap();
            assert_eq!((read.run, read.flag, read.incident, read.fires), (of_it.clone(), None, Some(about.clone()), fires), "{state:?}");
            assert_eq!(tx.fires(about.id).await.unwrap(), fires, "{state:?}");
        }
        tx.set_flag("paused", &json!({ "paused": true })).await.unwrap();
        let read = tx.run_to_start(bare.id, "paused").await.unwrap().unwrap();
        assert_eq!((read.run, read.flag, read.incident, read.fires), (bare, Some(json!({ "paused": true })), None, false));
        assert!(tx.run_to_start(RunId::new(world.now()), "paused").await.unwrap().is_none());
        assert!(!tx.fires(IncidentId::new(world.now())).await.unwrap());
    }

    async fn a_cancel_that_came_first_is_seen_by_whoever_would_begin(world) {
        let store = world.open("a").await;
        let mut one = run(None, &["web"], world.now());
        one.state = RunState::Running;
        commit(&store, async |tx| tx.insert_run(&one).await).await.unwrap();
        one.state = RunState::Cancelled;
        one.version = 2;
        let mut cancel = store.begin().await.unwrap();
        cancel.put_run(&one, 1).await.unwrap();
        cancel.attempts(one.id).await.unwrap();
        let begin = tokio::spawn({
            let (store, id) = (store.clone(), one.id);
            async move { store.begin().await?.run_state(id, "paused").await }
        });
        tokio::time::sleep(MOMENT).await;
        cancel.commit().await.unwrap();
        let seen = begin.await.unwrap().unwrap().map(|(state, _, flag)| (state, flag));
        assert_eq!(seen, Some((RunState::Cancelled, None)));
    }

    async fn runs_are_listed(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        let states = [RunState::Held, RunState::Unknown, RunState::Succeeded, RunState::Verifying, RunState::Refused];
        let mut ids = Vec::new();
        for state in states {
            world.clock.advance(SignedDuration::from_secs(1));
            let mut one = run(None, &[], world.now());
            one.state = state;
            one.runbook = if state == RunState::Verifying { NASTY.to_owned() } else { one.runbook };
            tx.insert_run(&one).await.unwrap();
            ids.push(one.id);
        }
        let [held, unknown, succeeded, verifying, refused] = ids[..] else { panic!() };
        let mut list = async |filter: RunFilter| tx.runs(&filter).await.unwrap().into_iter().map(|r| r.id).collect::<Vec<_>>();
        let all = RunFilter { limit: 10, ..RunFilter::default() };
        assert_eq!(list(all.clone()).await, [refused, verifying, succeeded, unknown, held]);
        assert_eq!(list(RunFilter { limit: 2, ..all.clone() }).await, [refused, verifying]);
        assert_eq!(list(RunFilter { before: Some(verifying), limit: 2, ..all.clone() }).await, [succeeded, unknown]);
        assert_eq!(list(RunFilter { active_only: true, ..all.clone() }).await, [verifying, unknown, held]);
        assert_eq!(list(RunFilter { runbook: Some(NASTY.to_owned()), ..all }).await, [verifying]);
        assert_eq!(tx.active_runs().await.unwrap().into_iter().map(|r| r.id).collect::<Vec<_>>(), [held, unknown, verifying]);
        let depths = tx.depths().await.unwrap();
        assert_eq!((depths.runs_active, depths.runs_unknown), (3, 1));
    }

    async fn unknown_runs_wait_since_their_newest_unknown_attempt(world) {
        let store = world.open("a").await;
        let waits = async || {
            let depths = store.read().await.unwrap().depths().await.unwrap();
            (depths.runs_unknown, depths.oldest_unknown_age.map(|age| age.as_secs()))
        };
        assert_eq!(waits().await, (0, None));
        // The last is over, as after an abort; what nobody knew of it stays.
        let runs = [RunState::Unknown, RunState::Unknown, RunState::Failed].map(|state| Run { state, ..run(None, &[], world.now()) });
        for (one, attempts) in runs.iter().zip([2, 1, 1]) {
            for number in 1..=attempts {
                world.clock.advance(SignedDuration::from_secs(60));
                let mut row = attempt(one.id, 0, number, world.now());
                commit(&store, async |tx| tx.start_attempt(&row, json!({})).await).await.unwrap();
                (row.state, row.finished_at) = (AttemptState::Unknown, Some(world.now()));
                commit(&store, async |tx| tx.finish_attempt(&row).await).await.unwrap();
            }
            commit(&store, async |tx| tx.insert_run(one).await).await.unwrap();
        }
        assert_eq!(waits().await, (2, Some(120)));
        for (mut one, then) in runs.into_iter().zip([(1, Some(60)), (0, None)]) {
            (one.state, one.version) = (RunState::Running, 2);
            commit(&store, async |tx| tx.put_run(&one, 1).await).await.unwrap();
            assert_eq!(waits().await, then);
        }
    }

    async fn a_targets_runs_are_found_for_its_cooldown(world) {
        let store = world.open("a").await;
        let start = world.now();
        let mut tx = store.begin().await.unwrap();
        let mut first = run(None, &["web", "db"], start);
        tx.insert_run(&first).await.unwrap();
        world.clock.advance(SignedDuration::from_secs(60));
        let second = run(None, &["web"], world.now());
        tx.insert_run(&second).await.unwrap();
        first.state = RunState::Failed;
        first.finished_at = Some(world.now());
        first.version = 2;
        tx.put_run(&first, 1).await.unwrap();
        let found = tx.runs_on_target_since("restart", "web", start).await.unwrap();
        assert_eq!(
            found,
            [
                (first.id, RunState::Failed, start, Some(world.now())),
                (second.id, RunState::Queued, world.now(), None),
            ]
        );
        assert_eq!(tx.runs_on_target_since("restart", "web", world.now()).await.unwrap().len(), 1);
        assert_eq!(tx.runs_on_target_since("restart", "db", start).await.unwrap().len(), 1);
        assert!(tx.runs_on_target_since("other", "web", start).await.unwrap().is_empty());

        // Rendered afresh, it changes something else.
        let mut moved = run(None, &["cache"], second.created_at);
        (moved.id, moved.version) = (second.id, 2);
        tx.put_run(&moved, 1).await.unwrap();
        assert_eq!(tx.runs_on_target_since("restart", "web", start).await.unwrap().len(), 1);
        assert_eq!(tx.runs_on_target_since("restart", "cache", start).await.unwrap().len(), 1);
    }

    async fn targets_are_locked_all_or_none(world) {
        let store = world.open("a").await;
        let (one, two) = (RunId::new(world.now()), RunId::new(world.now()));
        let mut tx = store.begin().await.unwrap();
        assert!(tx.lock_targets(one, &["web", NASTY, "web"]).await.unwrap());
        assert!(tx.lock_targets(one, &["web"]).await.unwrap(), "its own");
        assert!(!tx.lock_targets(two, &["cache", "web"]).await.unwrap());
        assert!(tx.lock_targets(two, &["cache"]).await.unwrap(), "the failed try has locked nothing");
        assert!(tx.lock_targets(two, &[]).await.unwrap());
        let locked: Vec<_> = tx.locked_targets().await.unwrap().into_iter().map(|(_, run, at)| (run, at)).collect();
        assert_eq!(locked, [(two, world.now()), (one, world.now()), (one, world.now())]);
        tx.unlock_targets(one).await.unwrap();
        assert!(tx.lock_targets(two, &["web", NASTY]).await.unwrap());
    }

    async fn of_many_runs_one_locks_the_target(world) {
        let store = world.open("a").await;
        let mut racers = Vec::new();
        for n in 0..20_usize {
            let (store, run) = (store.clone(), RunId::new(world.now()));
            racers.push(tokio::spawn(async move {
                let names = if n % 2 == 0 { ["a", "b"] } else { ["b", "a"] };
                let mut tx = store.begin().await.unwrap();
                let locked = tx.lock_targets(run, &names).await.unwrap();
                tx.commit().await.unwrap();
                locked
            }));
        }
        let mut winners = 0;
        for racer in racers {
            winners += usize::from(racer.await.unwrap());
        }
        assert_eq!((winners, store.read().await.unwrap().locked_targets().await.unwrap().len()), (1, 2));
    }

    async fn an_attempt_begins_once_and_ends_once(world) {
        let store = world.open("a").await;
        let id = RunId::new(world.now());
        let start = async |attempt: &Attempt| commit(&store, async |tx| tx.start_attempt(attempt, json!({})).await).await;
        let note = async |attempt: &Attempt| commit(&store, async |tx| tx.note_attempt(attempt).await).await;
        let finish = async |attempt: &Attempt| commit(&store, async |tx| tx.finish_attempt(attempt).await).await;
        let mut first = attempt(id, 0, 1, world.now());
        assert!(matches!(finish(&first).await, Err(Error::Conflict)), "not begun");
        assert!(matches!(note(&first).await, Err(Error::Conflict)), "not begun");
        start(&first).await.unwrap();
        assert!(matches!(start(&first).await, Err(Error::Conflict)));
        let second = attempt(id, 0, 2, world.now());
        start(&attempt(id, 1, 1, world.now())).await.unwrap();
        start(&second).await.unwrap();
        note(&first).await.unwrap();
        first.state = AttemptState::Unknown;
        first.error = Some(NASTY.to_owned());
        finish(&first).await.unwrap();
        first.state = AttemptState::Succeeded;
        finish(&first).await.unwrap();
        first.state = AttemptState::Failed;
        assert!(matches!(finish(&first).await, Err(Error::Conflict)), "it has ended");
        assert!(matches!(note(&first).await, Err(Error::Conflict)), "it has ended");
        first.state = AttemptState::Succeeded;
        let mut tx = store.read().await.unwrap();
        assert_eq!(tx.attempts(id).await.unwrap(), [first, second, attempt(id, 1, 1, world.now())]);
    }

    async fn what_was_begun_is_looked_for_whatever_became_of_its_run(world) {
        let store = world.open("a").await;
        let mut wanted = Vec::new();
        for (run_is, attempt_is, looked_for) in [
            (RunState::Running, AttemptState::Started, true),
            (RunState::Cancelled, AttemptState::Started, true),
            (RunState::Unknown, AttemptState::Unknown, true),
            (RunState::Failed, AttemptState::Unknown, false),
            (RunState::Running, AttemptState::Failed, false),
        ] {
            let run = Run { state: run_is, ..run(None, &["web"], world.now()) };
            let begun = attempt(run.id, 0, 1, world.now());
            let stands = Attempt { state: attempt_is, ..begun.clone() };
            commit(&store, async |tx| {
                tx.insert_run(&run).await?;
                tx.start_attempt(&begun, json!({})).await?;
                if attempt_is == AttemptState::Started { Ok(()) } else { tx.finish_attempt(&stands).await }
            })
            .await
            .unwrap();
            wanted.extend(looked_for.then_some(stands));
        }
        wanted.sort_by_key(|attempt| attempt.run);
        assert_eq!(store.read().await.unwrap().unfinished_attempts().await.unwrap(), wanted);
    }

    /// A cancel looks at what is under way before it decides, and a step looks whether it is cancelled before it begins: one after the other.
    async fn a_run_that_is_held_is_seen_as_it_is_afterwards(world) {
        let store = world.open("a").await;
        let mut one = run(None, &["web"], world.now());
        commit(&store, async |tx| tx.insert_run(&one).await).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        assert_eq!(tx.hold_run(one.id).await.unwrap().unwrap(), one);
        let (other, id) = (store.clone(), one.id);
        let looks = tokio::spawn(async move {
            let mut tx = other.begin().await.unwrap();
            let (state, version, flag) = tx.run_state(id, "paused").await.unwrap().unwrap();
            tx.commit().await.unwrap();
            (state, version, flag)
        });
        // Time in which it may not be answered.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(!looks.is_finished());
        one.state = RunState::Cancelled;
        one.version = 2;
        tx.put_run(&one, 1).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(looks.await.unwrap(), (RunState::Cancelled, 2, None));
    }

    async fn an_approval_is_decided_once(world) {
        let store = world.open("a").await;
        let asked = approval(RunId::new(world.now()), world.now());
        let mut tx = store.begin().await.unwrap();
        tx.insert_approval(&asked).await.unwrap();
        assert!(matches!(tx.insert_approval(&asked).await, Err(Error::Conflict)));
        tx.commit().await.unwrap();
        let mut clicks = Vec::new();
        for n in 0..50 {
            let (store, mut mine) = (store.clone(), asked.clone());
            clicks.push(tokio::spawn(async move {
                let at = mine.created_at;
                mine.votes.push(Vote { who: format!("ann-{n}"), approve: true, reason: None, at });
                let mut tx = store.begin().await.unwrap();
                match tx.put_approval(&mine, 0).await {
                    Ok(()) => tx.commit().await.map(|()| true).unwrap(),
                    Err(Error::Conflict) => false,
                    Err(other) => panic!("{other}"),
                }
            }));
        }
        let mut counted = 0;
        for click in clicks {
            counted += usize::from(click.await.unwrap());
        }
        assert_eq!(counted, 1);
        let mut tx = store.begin().await.unwrap();
        let mut decided = tx.approval(asked.id).await.unwrap().unwrap();
        assert_eq!(decided.votes.len(), 1);
        decided.state = ApprovalState::Denied;
        tx.put_approval(&decided, 1).await.unwrap();
        decided.state = ApprovalState::Approved;
        assert!(matches!(tx.put_approval(&decided, 1).await, Err(Error::Conflict)), "it has ended");
    }

    async fn approvals_are_listed(world) {
        let store = world.open("a").await;
        let id = RunId::new(world.now());
        let mut tx = store.begin().await.unwrap();
        let mut old = approval(id, world.now());
        tx.insert_approval(&old).await.unwrap();
        world.clock.advance(SignedDuration::from_secs(1));
        let new = approval(id, world.now());
        tx.insert_approval(&new).await.unwrap();
        assert_eq!(tx.approval_of(id).await.unwrap(), Some(new.clone()));
        assert_eq!(tx.approval_of(RunId::new(world.now())).await.unwrap(), None);
        assert_eq!(tx.approval(ApprovalId::new(world.now())).await.unwrap(), None);
        assert_eq!(tx.pending_approvals(10).await.unwrap(), [old.clone(), new.clone()]);
        assert_eq!(tx.pending_approvals(1).await.unwrap().len(), 1);
        old.state = ApprovalState::Superseded;
        tx.put_approval(&old, 0).await.unwrap();
        assert_eq!(tx.pending_approvals(10).await.unwrap(), [new]);
    }
}
