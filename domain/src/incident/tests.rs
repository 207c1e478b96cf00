//! The incident's state machine: its table, and what must hold after any sequence of happenings.

use proptest::prelude::*;

use super::*;
use crate::id::uuid_at;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn incident() -> Incident {
    Incident {
        id: IncidentId(uuid_at(at(0))),
        number: 142,
        source: "s".to_owned(),
        group_key: "g".to_owned(),
        route: "r".to_owned(),
        title: "t".to_owned(),
        summary: String::new(),
        severity: 0,
        severity_name: "P1".to_owned(),
        state: IncidentState::Open,
        labels: Labels::new(),
        channels: BTreeSet::new(),
        opened_at: at(0),
        acked: None,
        ack_due: None,
        quiet_since: None,
        resolved: None,
        closed_at: None,
        reopened: 0,
        alerts_total: 1,
        alerts_active: 1,
        automation: None,
        rule_set: String::new(),
        links: Vec::new(),
        version: 1,
    }
}

fn quiet() -> Incident {
    let mut incident = incident();
    incident.alerts_active = 0;
    incident.on(&Happening::Quiet, at(10), &Waits::default()).unwrap().0
}

#[test]
fn its_waits_begin_anew_when_the_clock_was_set_back() {
    let waits = Waits::default();
    let mut incident = quiet();
    (incident.quiet_since, incident.opened_at) = (Some(at(3600)), at(3000));
    let (waiting, follow) = incident.on(&Happening::QuietEnough { busy: false }, at(60), &waits).unwrap();
    assert_eq!(follow, vec![Follow::LookWhenQuiet(at(180))]);
    let (mut resolved, _) = waiting.on(&Happening::QuietEnough { busy: false }, at(180), &waits).unwrap();
    assert_eq!(resolved.state, IncidentState::Resolved);
    resolved.resolved = Some((at(3600), Some("ann".to_owned())));
    let (waiting, follow) = resolved.on(&Happening::Aged, at(300), &waits).unwrap();
    assert_eq!(waiting.resolved, Some((at(300), Some("ann".to_owned()))));
    assert_eq!(follow, vec![Follow::LookWhenAged(at(300) + waits.close_after)]);
}

#[test]
fn it_resolves_after_the_wait_and_closes_after_the_next() {
    let waits = Waits::default();
    let incident = quiet();
    let (same, follow) = incident.on(&Happening::QuietEnough { busy: false }, at(60), &waits).unwrap();
    assert_eq!((same.state, follow), (IncidentState::Open, vec![Follow::LookWhenQuiet(at(130))]));
    let (resolved, follow) = incident.on(&Happening::QuietEnough { busy: false }, at(130), &waits).unwrap();
    assert_eq!(resolved.state, IncidentState::Resolved);
    assert_eq!(follow, vec![Follow::LookWhenAged(at(130) + waits.close_after)]);
    let (closed, _) = resolved.on(&Happening::Aged, at(130) + waits.close_after, &waits).unwrap();
    assert_eq!(closed.state, IncidentState::Closed);
}

#[test]
fn a_refire_within_the_wait_keeps_it_open() {
    let (open, _) = quiet().on(&Happening::Fired, at(60), &Waits::default()).unwrap();
    assert_eq!(open.quiet_since, None);
    assert_eq!(open.on(&Happening::QuietEnough { busy: false }, at(130), &Waits::default()), Err(Unchanged::Passed));
}

#[test]
fn a_run_under_way_holds_the_resolve_back() {
    assert_eq!(quiet().on(&Happening::QuietEnough { busy: true }, at(500), &Waits::default()), Err(Unchanged::Passed));
}

#[test]
fn a_refire_reopens_it_for_a_while_and_not_later() {
    let waits = Waits::default();
    let (resolved, _) = quiet().on(&Happening::QuietEnough { busy: false }, at(130), &waits).unwrap();
    let (reopened, _) = resolved.on(&Happening::Fired, at(130 + 60), &waits).unwrap();
    assert_eq!((reopened.state, reopened.reopened), (IncidentState::Open, 1));
    let late = at(130) + waits.reopen_within;
    assert!(!resolved.may_reopen(late, &waits));
    assert_eq!(resolved.on(&Happening::Fired, late, &waits), Err(Unchanged::TooLate(142)));
}

#[test]
fn resolved_by_a_person_while_it_fires_it_asks_again_after_an_hour() {
    let waits = Waits::default();
    let (resolved, follow) = incident().on(&Happening::Resolve("ann".to_owned()), at(0), &waits).unwrap();
    assert_eq!(follow, vec![Follow::LookWhenAged(at(3600))]);
    let (again, _) = resolved.on(&Happening::Aged, at(3600), &waits).unwrap();
    assert_eq!(again.state, IncidentState::Open);
}

#[test]
fn a_second_acknowledge_says_who_has_it() {
    let (acked, _) = incident().on(&Happening::Acknowledge("ann".to_owned()), at(1), &Waits::default()).unwrap();
    let error = acked.on(&Happening::Acknowledge("bob".to_owned()), at(2), &Waits::default()).unwrap_err();
    assert_eq!(error.to_string(), "#142 is already acknowledged by ann.");
}

fn happening() -> impl Strategy<Value = Happening> {
    let who = "[ab]".prop_map(String::from);
    prop_oneof![
        Just(Happening::Fired),
        Just(Happening::Quiet),
        any::<bool>().prop_map(|busy| Happening::QuietEnough { busy }),
        Just(Happening::Remedied),
        Just(Happening::Aged),
        who.clone().prop_map(Happening::Acknowledge),
        who.clone().prop_map(Happening::Unacknowledge),
        who.clone().prop_map(Happening::Resolve),
        who.clone().prop_map(Happening::Reopen),
        who.prop_map(Happening::Close),
    ]
}

proptest! {
    #[test]
    fn invariants_hold_after_anything(happenings in prop::collection::vec((happening(), 0_i64..4000), 1..60)) {
        let waits = Waits::default();
        let mut incident = incident();
        let mut now = 0;
        for (happening, wait) in happenings {
            now += wait;
            incident.alerts_active = match happening { Happening::Fired => 1, Happening::Quiet => 0, _ => incident.alerts_active };
            let Ok((next, _)) = incident.on(&happening, at(now), &waits) else { continue };
            prop_assert_eq!(next.version, incident.version + 1, "every change is a new version");
            prop_assert!(incident.state != IncidentState::Closed, "closed is the end");
            prop_assert_eq!(next.resolved.is_some(), !next.state.is_open(), "a resolve is kept exactly while it holds");
            prop_assert_eq!(next.closed_at.is_some(), next.state == IncidentState::Closed);
            prop_assert!(next.state != IncidentState::Acknowledged || next.acked.is_some());
            incident = next;
        }
    }
}
