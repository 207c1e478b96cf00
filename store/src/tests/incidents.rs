//! Alerts, incidents and their timelines.

use domain::alert::AlertState::{Firing, Flapping, Resolved, Stale, Suppressed};
use domain::id::IncidentId;
use domain::incident::{Incident, IncidentState};
use domain::timeline::{Entry, EntryKind};
use jiff::SignedDuration;

use super::make::{NASTY, alert, incident};
use super::{commit, on_both};
use crate::{Change, Error, IncidentFilter, Store};

on_both! {
    async fn an_alert_is_one_row_per_source_and_fingerprint(world) {
        let store = world.open("a").await;
        let (at, id) = (world.now(), IncidentId::new(world.now()));
        let keys = [("am".to_owned(), NASTY.to_owned()), ("am".to_owned(), "y".to_owned()), ("other".to_owned(), "y".to_owned())];
        let mut tx = store.begin().await.unwrap();
        assert!(tx.alerts(&keys).await.unwrap().is_empty());
        let nasty = alert("am", NASTY, Firing, Some(id), at);
        let first = alert("am", "y", Firing, None, at);
        let mut last = first.clone();
        last.state = Resolved;
        last.incident = Some(id);
        tx.put_alerts(&[nasty.clone(), first, last.clone()]).await.unwrap();
        let found = tx.alerts(&keys).await.unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((&found[&keys[0]], &found[&keys[1]]), (&nasty, &last));
        let mut again = nasty.clone();
        again.last_seen = at + SignedDuration::from_secs(9);
        tx.put_alerts(std::slice::from_ref(&again)).await.unwrap();
        assert_eq!(tx.alerts(&keys).await.unwrap()[&keys[0]], again);
        assert_eq!(tx.count_alerts(id).await.unwrap(), (2, 1));
        tx.commit().await.unwrap();
        assert!(store.read().await.unwrap().alerts(&[]).await.unwrap().is_empty());
    }

    async fn a_storm_of_alerts_fits(world) {
        let store = world.open("a").await;
        let (at, id) = (world.now(), IncidentId::new(world.now()));
        let many: Vec<_> = (0..1000).map(|n| alert("am", &n.to_string(), Firing, Some(id), at)).collect();
        let mut tx = store.begin().await.unwrap();
        tx.put_alerts(&many).await.unwrap();
        let keys: Vec<_> = many.iter().map(|a| (a.source.clone(), a.fingerprint.clone())).collect();
        assert_eq!(tx.alerts(&keys).await.unwrap().len(), 1000);
        assert_eq!(tx.count_alerts(id).await.unwrap(), (1000, 1000));
    }

    async fn an_incidents_alerts_come_active_first(world) {
        let store = world.open("a").await;
        let (at, id) = (world.now(), IncidentId::new(world.now()));
        let later = at + SignedDuration::from_secs(1);
        let mut tx = store.begin().await.unwrap();
        let all = [
            alert("am", "a", Resolved, Some(id), at),
            alert("am", "b", Flapping, Some(id), later),
            alert("am", "c", Stale, Some(id), at),
            alert("am", "d", Suppressed, Some(id), at),
            alert("am", "e", Firing, Some(IncidentId::new(at)), at),
        ];
        tx.put_alerts(&all).await.unwrap();
        let names = |alerts: Vec<domain::alert::Alert>| alerts.into_iter().map(|a| a.fingerprint).collect::<String>();
        assert_eq!(names(tx.incident_alerts(id, 10).await.unwrap()), "cdba");
        assert_eq!(names(tx.incident_alerts(id, 2).await.unwrap()), "cd");
        assert_eq!(names(tx.stale_candidates("am", later, 10).await.unwrap()), "de", "neither resolved nor stale, and silent since before");
        assert_eq!(names(tx.stale_candidates("am", at, 10).await.unwrap()), "");
        assert_eq!(names(tx.stale_candidates("other", later, 10).await.unwrap()), "");
    }

    async fn one_incident_is_open_per_source_and_key(world) {
        let store = world.open("a").await;
        let at = world.now();
        let mut tx = store.begin().await.unwrap();
        let numbers = [tx.next_incident_number().await.unwrap(), tx.next_incident_number().await.unwrap()];
        assert_eq!(numbers, [1, 2]);
        drop(tx);
        let mut tx = store.begin().await.unwrap();
        let next = tx.next_incident_number().await.unwrap();
        assert_eq!(next, if tx.is_postgres() { 3 } else { 1 }, "one that was not stored stays unused on PostgreSQL alone");
        tx.commit().await.unwrap();
        let next = store.begin().await.unwrap().next_incident_number().await.unwrap();
        assert!(next > 1 && store.begin().await.unwrap().next_incident_number().await.unwrap() >= next);

        let mut first = incident(1, NASTY, IncidentState::Open, at);
        insert(&store, &first).await.unwrap();
        let second = incident(2, NASTY, IncidentState::Acknowledged, at);
        assert!(matches!(insert(&store, &second).await, Err(Error::Conflict)));
        let mut elsewhere = incident(3, NASTY, IncidentState::Open, at);
        elsewhere.source = "other".to_owned();
        insert(&store, &elsewhere).await.unwrap();
        assert!(matches!(insert(&store, &first).await, Err(Error::Conflict)), "and one per id");
        first.state = IncidentState::Resolved;
        first.resolved = Some((at, Some("ann".to_owned())));
        first.version = 2;
        let mut tx = store.begin().await.unwrap();
        tx.put_incident(&first, 1).await.unwrap();
        tx.insert_incidents(&[&second]).await.unwrap();
        tx.commit().await.unwrap();

        // Reopening would make a second open one.
        first.state = IncidentState::Open;
        first.version = 3;
        assert!(matches!(commit(&store, async |tx| tx.put_incident(&first, 2).await).await, Err(Error::Conflict)));
        let read = store.read().await.unwrap().incident(first.id).await.unwrap().unwrap();
        assert_eq!((read.state, read.version), (IncidentState::Resolved, 2));
        assert_eq!(store.read().await.unwrap().incident_by_number(2).await.unwrap(), Some(second));
        assert_eq!(store.read().await.unwrap().incident_by_number(99).await.unwrap(), None);
    }

    async fn the_number_of_an_incident_that_is_gone_is_not_given_out_again(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        let number = tx.next_incident_number().await.unwrap();
        tx.insert_incidents(&[&incident(number, NASTY, IncidentState::Closed, world.now())]).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        tx.sql("delete from incidents").await.unwrap();
        tx.commit().await.unwrap();
        store.close().await;
        drop(store);
        assert!(world.open("a").await.begin().await.unwrap().next_incident_number().await.unwrap() > number);
    }

    async fn an_incident_changes_by_compare_and_set(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        let first = incident(1, "x", IncidentState::Open, world.now());
        tx.insert_incidents(&[&first]).await.unwrap();
        tx.commit().await.unwrap();
        let mut changes = store.changes();
        let mut racers = Vec::new();
        for racer in 0..20 {
            let (store, mut mine) = (store.clone(), first.clone());
            racers.push(tokio::spawn(async move {
                mine.version = 2;
                mine.acked = Some((mine.opened_at, format!("racer-{racer}")));
                match commit(&store, async |tx| tx.put_incident(&mine, 1).await).await {
                    Ok(()) => true,
                    Err(Error::Conflict) => false,
                    Err(other) => panic!("{other}"),
                }
            }));
        }
        let mut winners = 0;
        for racer in racers {
            winners += usize::from(racer.await.unwrap());
        }
        assert_eq!(winners, 1);
        assert_eq!(changes.try_recv().unwrap(), Change::Incident(first.id));
        assert!(changes.try_recv().is_err(), "only the winner is told of");
    }

    async fn the_latest_incident_is_the_open_one_else_the_last_resolved(world) {
        let store = world.open("a").await;
        let at = world.now();
        let hour = SignedDuration::from_hours(1);
        let mut tx = store.begin().await.unwrap();
        let all = [
            incident(1, "a", IncidentState::Resolved, at + hour),
            incident(2, "a", IncidentState::Resolved, at),
            incident(3, "a", IncidentState::Closed, at + hour + hour),
            incident(4, "b", IncidentState::Resolved, at + hour),
            incident(5, "b", IncidentState::Mitigated, at),
            incident(6, "c", IncidentState::Closed, at),
        ];
        for incident in &all {
            tx.insert_incidents(&[incident]).await.unwrap();
        }
        let key = |group: &str| ("am".to_owned(), group.to_owned());
        let latest = tx.latest_incidents(&[key("a"), key("b"), key("c"), key("d")]).await.unwrap();
        assert_eq!(latest.len(), 2);
        assert_eq!((latest[&key("a")].number, latest[&key("b")].number), (1, 5));
        tx.commit().await.unwrap();
        assert_eq!(store.read().await.unwrap().latest_incidents(&[key("a")]).await.unwrap().len(), 1);
    }

    async fn incidents_are_listed_and_found_by_number_and_title(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        let states = [IncidentState::Open, IncidentState::Closed, IncidentState::Acknowledged, IncidentState::Resolved];
        for number in 1..=12_i64 {
            let state = states[usize::try_from(number).unwrap() % 4];
            let mut one = incident(number, &format!("key-{number}"), state, world.now());
            one.title = match number {
                11 => "100% of \\_Disks\\ full".to_owned(),
                12 => "ÄRGER im Lager".to_owned(),
                _ => one.title,
            };
            one.severity_name = if number % 2 == 0 { "critical".to_owned() } else { "warning".to_owned() };
            tx.insert_incidents(&[&one]).await.unwrap();
        }
        tx.commit().await.unwrap();
        let mut tx = store.read().await.unwrap();
        let mut list = async |open_only, prefix: Option<&str>, before, limit| {
            let filter = IncidentFilter { open_only, prefix: prefix.map(str::to_owned), before, limit };
            tx.incidents(&filter).await.unwrap().into_iter().map(|i| i.number).collect::<Vec<_>>()
        };
        assert_eq!(list(false, None, None, 3).await, [12, 11, 10]);
        assert_eq!(list(false, None, Some(10), 3).await, [9, 8, 7]);
        assert_eq!(list(true, None, None, 100).await, [12, 10, 8, 6, 4, 2]);
        assert_eq!(list(false, Some("#1"), None, 100).await, [12, 11, 10, 1]);
        assert_eq!(list(false, Some("100%"), None, 100).await, [11]);
        assert_eq!(list(false, Some("100% of \\_disks\\"), None, 100).await, [11]);
        assert_eq!(list(false, Some("10_"), None, 100).await, Vec::<i64>::new());
        assert_eq!(list(false, Some("%"), None, 100).await, Vec::<i64>::new());
        assert_eq!(list(false, Some("ärger"), None, 100).await, [12]);
        assert_eq!(list(true, Some("service"), None, 2).await, [10, 8]);
        assert_eq!(list(false, Some(NASTY), None, 100).await, Vec::<i64>::new());
        assert_eq!(tx.count_open().await.unwrap(), [("critical".to_owned(), 6)]);
    }

    async fn a_timeline_is_told_in_order(world) {
        let store = world.open("a").await;
        let (at, id) = (world.now(), IncidentId::new(world.now()));
        let entry = |text: &str| Entry {
            incident: id,
            at,
            kind: EntryKind::Note,
            who: Some("ann".to_owned()),
            text: text.to_owned(),
            detail: Some(NASTY.to_owned()),
        };
        let mut tx = store.begin().await.unwrap();
        tx.tell(&[entry("one"), entry(NASTY)]).await.unwrap();
        tx.tell(&[entry("three"), Entry { incident: IncidentId::new(at), ..entry("elsewhere") }]).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = store.read().await.unwrap();
        let told = tx.timeline(id, 100).await.unwrap();
        assert_eq!(told.iter().map(|(_, e)| e).collect::<Vec<_>>(), [&entry("one"), &entry(NASTY), &entry("three")]);
        assert!(told.is_sorted_by_key(|(n, _)| *n));
        let newest = tx.timeline(id, 2).await.unwrap();
        assert_eq!(newest, told[1..]);
    }
}

async fn insert(store: &Store, incident: &Incident) -> Result<(), Error> {
    let mut tx = store.begin().await?;
    tx.insert_incidents(&[incident]).await?;
    tx.commit().await
}
