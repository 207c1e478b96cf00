//! All orders of fire, resolve, re-fire and repeat, against a small oracle.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn firing(start: i64) -> Sighting {
    Sighting {
        fingerprint: "f".to_owned(),
        status: Status::Firing,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        starts_at: at(start),
        ends_at: None,
        generator_url: None,
        external_url: None,
        cut: 0,
    }
}

fn resolved(start: i64, end: i64) -> Sighting {
    Sighting { status: Status::Resolved, ends_at: Some(at(end)), ..firing(start) }
}

fn hear(sightings: &[(Sighting, i64)]) -> (Alert, Vec<AlertChange>) {
    let mut alert = None;
    let mut changes = Vec::new();
    for (sighting, seen) in sightings {
        let (next, change) = on_sighting("s", alert.as_ref(), sighting, at(*seen), false);
        alert = Some(next);
        changes.push(change);
    }
    (alert.unwrap(), changes)
}

/// What holds in the end, by the source's own times: the latest thing that it said wins.
fn oracle(sightings: &[Sighting]) -> bool {
    let last_start = sightings.iter().filter(|s| s.status == Status::Firing).map(|s| s.starts_at).max();
    let last_end = sightings.iter().filter_map(|s| s.ends_at).max();
    match (last_start, last_end) {
        (Some(start), Some(end)) => start > end,
        (start, None) => start.is_some(),
        (None, Some(_)) => false,
    }
}

#[test]
fn a_resolve_that_a_clock_set_back_since_heard_long_from_now_mutes_nothing() {
    // Without an end of its own it ended by that clock, too.
    let (_, changes) = hear(&[(firing(0), 1), (resolved(0, 3600), 3600), (firing(60), 61)]);
    assert_eq!(changes, [AlertChange::Fired, AlertChange::Resolved, AlertChange::Fired]);
    let (_, changes) = hear(&[(firing(0), 1), (resolved(0, 62), 62), (firing(60), 61)]);
    assert_eq!(changes[2], AlertChange::LateFiring, "heard by two replicas in the wrong order");
}

#[test]
fn a_repeat_only_moves_last_seen() {
    let (alert, changes) = hear(&[(firing(0), 1), (firing(0), 300), (firing(0), 600)]);
    assert_eq!(changes, [AlertChange::Fired, AlertChange::Refreshed, AlertChange::Refreshed]);
    assert_eq!((alert.episode, alert.last_seen), (1, at(600)));
}

#[test]
fn a_resolve_after_a_flap_carries_another_start_and_still_ends_the_episode() {
    let (alert, changes) = hear(&[(firing(7), 10), (resolved(19, 25), 30)]);
    assert_eq!(changes, [AlertChange::Fired, AlertChange::Resolved]);
    assert_eq!(alert.state, AlertState::Resolved);
}

#[test]
fn a_resolve_older_than_the_present_firing_is_stale() {
    let (alert, changes) = hear(&[(firing(0), 1), (resolved(0, 50), 51), (firing(100), 101), (resolved(0, 50), 102)]);
    assert_eq!(changes[3], AlertChange::StaleResolve);
    assert_eq!(alert.state, AlertState::Firing);
}

#[test]
fn the_same_firing_after_a_resolve_is_late_for_two_minutes_and_an_episode_afterwards() {
    let (_, changes) = hear(&[(firing(0), 1), (resolved(0, 50), 60), (firing(0), 61)]);
    assert_eq!(changes[2], AlertChange::LateFiring);
    let (alert, changes) = hear(&[(firing(0), 1), (resolved(0, 50), 60), (firing(0), 60 + 120)]);
    assert_eq!(changes[2], AlertChange::Fired);
    assert_eq!((alert.state, alert.episode), (AlertState::Firing, 2));
}

#[test]
fn a_late_firing_is_remembered_until_a_resolve_answers_it() {
    let (alert, _) = hear(&[(firing(0), 1), (resolved(0, 50), 60), (firing(0), 61)]);
    assert_eq!(alert.late_at, Some(at(61)));
    let (alert, _) = hear(&[(firing(0), 1), (resolved(0, 50), 60), (firing(0), 61), (resolved(0, 50), 70)]);
    assert_eq!(alert.late_at, None);
}

#[test]
fn three_episodes_in_an_hour_are_flapping() {
    let (alert, _) = hear(&[(firing(0), 1), (resolved(0, 100), 101), (firing(200), 201), (resolved(200, 300), 301), (firing(400), 401)]);
    assert_eq!(alert.state, AlertState::Flapping);
    assert!(alert.state.is_active());
}

/// What a firing is to an active alert whose incident somebody closed.
#[test]
fn a_closed_incident_does_not_mute_what_fires_anew() {
    let (mut alert, _) = hear(&[(firing(10), 11)]);
    let after_close = |alert: &Alert, start: i64| on_sighting("s", Some(alert), &firing(start), at(5000), true);
    assert_eq!(after_close(&alert, 10).1, AlertChange::Refreshed, "a plain repeat: whoever closed it knew that it fires");
    assert_eq!(after_close(&alert, 9).1, AlertChange::Refreshed, "an old copy");
    let (next, change) = after_close(&alert, 4000);
    assert_eq!((change, next.state, next.episode, next.starts_at), (AlertChange::Fired, AlertState::Firing, 2, at(4000)));
    assert_eq!(on_sighting("s", Some(&alert), &firing(4000), at(5000), false).1, AlertChange::Refreshed, "its incident is not over");
    alert.state = AlertState::Stale;
    assert_eq!(after_close(&alert, 10).1, AlertChange::Fired, "nobody knew that it fires");
    assert_eq!(on_sighting("s", Some(&alert), &firing(10), at(5000), false).1, AlertChange::Refreshed);
}

#[test]
fn a_resolve_without_an_end_counts_whatever_the_sources_clock_says() {
    let ended = Sighting { ends_at: None, ..resolved(600, 0) };
    let (alert, changes) = hear(&[(firing(600), 1), (ended, 60)]);
    assert_eq!((changes[1], alert.state, alert.ends_at), (AlertChange::Resolved, AlertState::Resolved, Some(at(600))));
    let (alert, changes) = hear(&[(firing(0), 1), (Sighting { ends_at: None, ..resolved(0, 0) }, 60)]);
    assert_eq!((changes[1], alert.ends_at), (AlertChange::Resolved, Some(at(60))));
}

proptest! {
    /// Whatever the order of arrival, and however often each is repeated, the end is what the source's own times say.
    #[test]
    fn the_end_does_not_depend_on_the_order_of_arrival(
        gaps in prop::collection::vec(1_i64..50, 1..8),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
    ) {
        let mut time = 0;
        let mut said = Vec::new();
        let mut start = 0;
        for (index, gap) in gaps.iter().enumerate() {
            time += gap;
            if index % 2 == 0 {
                start = time;
                said.push(firing(start));
            } else {
                said.push(resolved(start, time));
            }
        }
        // A shuffle with repeats, then everything that was not drawn, so that all of it is heard.
        let mut heard: Vec<usize> = order.iter().map(|index| index.index(said.len())).collect();
        heard.extend((0..said.len()).filter(|index| !order.iter().any(|drawn| drawn.index(said.len()) == *index)));
        let sightings: Vec<(Sighting, i64)> = heard.iter().map(|index| (said[*index].clone(), 1000)).collect();
        let (alert, _) = hear(&sightings);
        prop_assert_eq!(alert.state.is_active(), oracle(&said), "{:?}", heard);
    }

    /// Whatever is heard while incidents are closed in between: an episode begins with a firing that is later than all before it, or after a resolve,
    /// and never with a plain repeat.
    #[test]
    fn an_episode_after_a_close_has_a_later_start(
        events in prop::collection::vec((any::<bool>(), any::<bool>(), 0_i64..20), 1..40),
    ) {
        let mut alert: Option<Alert> = None;
        let mut seen = 1000;
        for (fires, over, start) in events {
            seen += 200;
            let sighting = if fires { firing(start) } else { resolved(start, start) };
            let before = alert.take();
            let (next, change) = on_sighting("s", before.as_ref(), &sighting, at(seen), over);
            let was = before.as_ref().filter(|before| before.state.is_active());
            let anew = fires && was.is_none_or(|was| over && at(start) > was.starts_at);
            prop_assert_eq!(change == AlertChange::Fired, anew);
            prop_assert_eq!(next.episode, before.map_or(0, |before| before.episode) + u32::from(anew));
            alert = Some(next);
        }
    }

    /// Time heard of never goes back, and every change between firing and resolved is told exactly once.
    #[test]
    fn edges_alternate(events in prop::collection::vec((any::<bool>(), 0_i64..500, 0_i64..500), 1..40)) {
        let mut alert: Option<Alert> = None;
        let mut seen = 1000;
        for (fires, start, length) in events {
            seen += 1;
            let sighting = if fires { firing(start) } else { resolved(start, start + length) };
            let was = alert.as_ref().is_some_and(|alert| alert.state.is_active());
            let (next, change) = on_sighting("s", alert.as_ref(), &sighting, at(seen), false);
            let is = next.state.is_active();
            prop_assert_eq!(change == AlertChange::Fired, !was && is);
            prop_assert_eq!(change == AlertChange::Resolved, was && !is);
            prop_assert!(alert.as_ref().is_none_or(|before| before.last_seen <= next.last_seen));
            alert = Some(next);
        }
    }
}

#[test]
fn the_window_is_two_minutes() {
    assert_eq!(LATE_DUPLICATE, SignedDuration::from_secs(120));
}
