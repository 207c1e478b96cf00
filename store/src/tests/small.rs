//! Everything small: cards, heartbeats, flags, the audit log, rule sets, samples, sign-in.

use std::collections::BTreeSet;

use domain::audit::{AuditDecision, AuditRow, NewAudit};
use domain::duration::Dur;
use domain::id::{IncidentId, SessionId, TokenId};
use domain::incident::IncidentState;
use domain::permission::Right;
use domain::timeline::{Entry, EntryKind};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::make::{self, NASTY};
use super::{MOMENT, commit, on_both};
use crate::{CardPost, Did, Error, HeartbeatRow, SessionRow, Store, TokenRow};

const MINUTE: SignedDuration = SignedDuration::from_secs(60);

on_both! {
    async fn a_card_is_one_per_incident_and_channel_and_never_goes_back(world) {
        let store = world.open("a").await;
        let incident = IncidentId::new(world.now());
        let mut tx = store.begin().await.unwrap();
        let mut card = CardPost {
            incident,
            channel: "ops".to_owned(),
            platform: "slack".to_owned(),
            channel_id: "C1".to_owned(),
            message: None,
            posted_version: 0,
            delivery: "d1".to_owned(),
            told: 0,
        };
        tx.put_card(&card).await.unwrap();
        assert_eq!(tx.card(incident, "ops").await.unwrap(), Some(card.clone()));
        card.message = Some("1.2".to_owned());
        card.posted_version = 5;
        tx.put_card(&card).await.unwrap();
        tx.put_card(&CardPost { posted_version: 3, ..card.clone() }).await.unwrap();
        tx.commit().await.unwrap();
        for upto in [7, 6] {
            store.did(Did::Told { incident, channel: "ops".to_owned(), upto }).await.unwrap();
        }
        let mut tx = store.begin().await.unwrap();
        card.told = 7;
        assert_eq!(tx.card(incident, "ops").await.unwrap(), Some(card.clone()), "an older state does not replace a newer one");
        assert_eq!(tx.card_at("slack", "C1", "1.2").await.unwrap(), Some(card.clone()));
        assert_eq!(tx.card_at("slack", "C2", "1.2").await.unwrap(), None);
        let other = CardPost { channel: "all".to_owned(), told: 0, ..card.clone() };
        tx.put_card(&other).await.unwrap();
        assert_eq!(tx.cards_of(incident).await.unwrap(), [other, card.clone()]);
        let anew = CardPost { message: Some("9.9".to_owned()), posted_version: 1, ..card };
        tx.put_card(&anew).await.unwrap();
        assert_eq!(tx.card(incident, "ops").await.unwrap(), Some(anew), "a new message begins anew");
    }

    async fn silence_is_noticed_once(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        let row = HeartbeatRow {
            source: "am".to_owned(),
            name: NASTY.replace('\0', ""),
            within: Dur::from_mins(1),
            last_seen: world.now(),
            alarmed: false,
        };
        tx.put_heartbeat(&row).await.unwrap();
        assert_eq!(tx.heartbeat("am", &row.name).await.unwrap(), Some(row.clone()));
        assert_eq!(tx.heartbeat("am", "other").await.unwrap(), None);
        let late = world.now() + MINUTE + SignedDuration::from_micros(1);
        assert!(row.is_overdue(late) && !row.is_overdue(world.now() + MINUTE));
        let alarmed = HeartbeatRow { alarmed: true, ..row };
        tx.put_heartbeat(&alarmed).await.unwrap();
        assert!(!alarmed.is_overdue(late));
        assert_eq!(tx.heartbeats().await.unwrap(), std::slice::from_ref(&alarmed));
        tx.forget_heartbeat("other", &alarmed.name).await.unwrap();
        assert_eq!(tx.heartbeats().await.unwrap().len(), 1);
        tx.forget_heartbeat("am", &alarmed.name).await.unwrap();
        assert!(tx.heartbeats().await.unwrap().is_empty());
    }

    async fn a_heartbeat_that_comes_while_its_silence_is_told_of_is_not_forgotten(world) {
        let store = world.open("a").await;
        let row = HeartbeatRow {
            source: "am".to_owned(),
            name: "Watchdog".to_owned(),
            within: Dur::from_mins(1),
            last_seen: world.now(),
            alarmed: false,
        };
        commit(&store, async |tx| tx.put_heartbeat(&row).await).await.unwrap();
        let mut silence = store.begin().await.unwrap();
        let late = silence.heartbeat("am", "Watchdog").await.unwrap().unwrap();
        let comes = tokio::spawn({
            let (store, at) = (store.clone(), world.now() + MINUTE);
            async move {
                let mut tx = store.begin().await?;
                let before = tx.heartbeat("am", "Watchdog").await?.unwrap();
                tx.put_heartbeat(&HeartbeatRow { last_seen: at, alarmed: false, ..before.clone() }).await?;
                tx.commit().await.map(|()| before)
            }
        });
        tokio::time::sleep(MOMENT).await;
        silence.put_heartbeat(&HeartbeatRow { alarmed: true, ..late }).await.unwrap();
        silence.commit().await.unwrap();
        assert!(comes.await.unwrap().unwrap().alarmed, "it hears that its silence was told of, and ends that");
        assert_eq!(store.read().await.unwrap().heartbeats().await.unwrap(), [HeartbeatRow { last_seen: world.now() + MINUTE, ..row }]);
    }

    async fn a_thread_tells_every_entry_whoever_stores_them_first(world) {
        let store = world.open("a").await;
        let one = make::incident(1, "g", IncidentState::Open, world.now());
        let entry = |text: &str| Entry { incident: one.id, at: one.opened_at, kind: EntryKind::Note, who: None, text: text.to_owned(), detail: None };
        let card = CardPost {
            incident: one.id,
            channel: "ops".to_owned(),
            platform: "slack".to_owned(),
            channel_id: "C1".to_owned(),
            message: Some("1.2".to_owned()),
            posted_version: 1,
            delivery: "d1".to_owned(),
            told: 0,
        };
        commit(&store, async |tx| {
            tx.insert_incidents(&[&one]).await?;
            tx.put_card(&card).await
        })
        .await
        .unwrap();
        let mut told = Vec::new();
        let mut tell = async || {
            let (_, entries) = store.read().await.unwrap().untold(one.id, "ops", 10).await.unwrap().unwrap();
            if let Some((upto, _)) = entries.last() {
                store.did(Did::Told { incident: one.id, channel: "ops".to_owned(), upto: *upto }).await.unwrap();
            }
            told.extend(entries.into_iter().map(|(_, entry)| entry.text));
        };
        let mut first = store.begin().await.unwrap();
        first.tell(&[entry("first")]).await.unwrap();
        let second = tokio::spawn({
            let (store, second) = (store.clone(), entry("second"));
            async move { commit(&store, async |tx| tx.tell(std::slice::from_ref(&second)).await).await }
        });
        tokio::time::sleep(MOMENT).await;
        if first.is_postgres() {
            tell().await;
        }
        first.commit().await.unwrap();
        second.await.unwrap().unwrap();
        tell().await;
        assert_eq!(told, ["first", "second"]);
    }

    async fn a_flag_and_a_rule_set_are_kept(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        assert_eq!(tx.flag("paused").await.unwrap(), None);
        tx.set_flag("paused", &json!({ "why": NASTY })).await.unwrap();
        tx.set_flag("other", &json!(null)).await.unwrap();
        assert_eq!(tx.flag("paused").await.unwrap(), Some(json!({ "why": NASTY })));
        tx.set_flag("paused", &json!(false)).await.unwrap();
        assert_eq!(tx.flag("paused").await.unwrap(), Some(json!(false)));

        let files = [("routes.yaml".to_owned(), NASTY.to_owned()), ("a.yaml".to_owned(), String::new())];
        tx.put_rule_set("d1", &files).await.unwrap();
        tx.put_rule_set("d1", &[]).await.unwrap();
        assert_eq!(tx.rule_set("d1").await.unwrap().unwrap(), files);
        assert_eq!(tx.rule_set("d2").await.unwrap(), None);
    }

    async fn an_audit_row_shows_when_it_was_changed(world) {
        let store = world.open("a").await;
        let row = NewAudit {
            at: world.now() + SignedDuration::from_nanos(999),
            actor: format!("identity:slack/T1/{NASTY}"),
            action: "approve".to_owned(),
            object: "run:1".to_owned(),
            decision: AuditDecision::Refused,
            reason: "requester".to_owned(),
            detail: json!({ "digest": "d", "text": NASTY, "n": 1.5 }),
        };
        let mut tx = store.begin().await.unwrap();
        tx.audit(&row).await.unwrap();
        tx.audit(&NewAudit { decision: AuditDecision::Allowed, ..row.clone() }).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        tx.audit(&row).await.unwrap();
        tx.rollback().await.unwrap();
        let rows = read(&store, 0, 10).await;
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].row.at, &rows[0].row.detail, rows[0].row.decision), (world.now(), &row.detail, AuditDecision::Refused));
        assert!(store.audit_intact(&rows[0]).unwrap() && store.audit_intact(&rows[1]).unwrap());
        assert_eq!(read(&store, rows[0].seq, 10).await, rows[1..]);

        let mut tx = store.begin().await.unwrap();
        tx.sql("update audit set decision = 'allowed' where decision = 'refused'").await.unwrap();
        tx.commit().await.unwrap();
        let forged = read(&store, 0, 1).await;
        assert!(!store.audit_intact(&forged[0]).unwrap());
        let stranger = Store::open(crate::Options { audit_keys: vec![vec![8; 32].into()], url: "sqlite::memory:".to_owned(), ..world.options("b") });
        assert!(!stranger.await.unwrap().audit_intact(&rows[0]).unwrap(), "another key");
        let keys = vec![vec![8; 32].into(), vec![7; 32].into()];
        let rotated = Store::open(crate::Options { audit_keys: keys, url: "sqlite::memory:".to_owned(), ..world.options("c") });
        assert!(rotated.await.unwrap().audit_intact(&rows[0]).unwrap(), "the key before the present one");
    }

    async fn refusals_of_the_unknown_are_counted_by_the_minute(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        let minute = world.now();
        for seconds in [0, 59, 60] {
            tx.count_refusal(NASTY, "bad_signature", minute + SignedDuration::from_secs(seconds), 2).await.unwrap();
        }
        let counted: Vec<(Timestamp, i64)> = tx.refusals(minute).await.unwrap().into_iter().map(|(_, _, at, n)| (at, n)).collect();
        assert_eq!(counted, [(minute, 4), (minute + MINUTE, 2)]);
        assert_eq!(tx.refusals(minute + MINUTE).await.unwrap().len(), 1);
    }

    async fn the_newest_hundred_samples_of_a_source_are_kept(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        tx.keep_sample("other", world.now(), b"\0\xff", NASTY).await.unwrap();
        for n in 0..105_u8 {
            tx.keep_sample("am", world.now(), &[n], "not JSON").await.unwrap();
        }
        let kept = tx.samples("am").await.unwrap();
        assert_eq!((kept.len(), &kept[0].body[..], &kept[99].body[..]), (100, &[104][..], &[5][..]));
        let other = tx.samples("other").await.unwrap();
        assert_eq!((other.len(), &other[0].body[..], other[0].at), (1, &b"\0\xff"[..], world.now()));
    }

    async fn sessions_end(world) {
        let store = world.open("a").await;
        let now = world.now();
        let session = |principal: &str| SessionRow {
            id: SessionId::new(now),
            secret_hash: vec![0, 255],
            principal: principal.to_owned(),
            csrf: "c".to_owned(),
            created_at: now,
            last_seen: now,
            expires_at: now + MINUTE,
        };
        let (ann, ann2, bob) = (session("ann"), session("ann"), session("bob"));
        let mut tx = store.begin().await.unwrap();
        for one in [&ann, &ann2, &bob] {
            tx.insert_session(one).await.unwrap();
        }
        tx.touch_session(ann.id, now + SignedDuration::from_secs(5)).await.unwrap();
        let found = tx.session(ann.id).await.unwrap().unwrap();
        assert_eq!(found, SessionRow { last_seen: now + SignedDuration::from_secs(5), ..ann.clone() });
        assert!(tx.delete_session(ann.id).await.unwrap());
        assert!(!tx.delete_session(ann.id).await.unwrap());
        assert_eq!(tx.delete_sessions_of("ann").await.unwrap(), 1);
        assert!(tx.session(bob.id).await.unwrap().is_some());
        tx.prune_signin(now + MINUTE).await.unwrap();
        assert!(tx.session(bob.id).await.unwrap().is_some());
        tx.prune_signin(now + MINUTE + MINUTE).await.unwrap();
        assert!(tx.session(bob.id).await.unwrap().is_none());
    }

    async fn tokens_are_revoked_for_good(world) {
        let store = world.open("a").await;
        let now = world.now();
        let token = TokenRow {
            id: TokenId::new(now),
            secret_hash: vec![1; 32],
            principal: "ci".to_owned(),
            name: NASTY.replace('\0', ""),
            rights: BTreeSet::from([Right::View, Right::Run]),
            created_at: now,
            expires_at: Some(now + MINUTE),
            revoked_at: None,
            last_used: None,
        };
        let mut tx = store.begin().await.unwrap();
        tx.insert_token(&token).await.unwrap();
        assert_eq!(tx.token(token.id).await.unwrap(), Some(token.clone()));
        assert!(tx.revoke_token(token.id, now).await.unwrap());
        assert!(!tx.revoke_token(token.id, now + MINUTE).await.unwrap());
        tx.touch_token(token.id, now).await.unwrap();
        let endless = TokenRow { id: TokenId::new(now), expires_at: None, ..token.clone() };
        tx.insert_token(&endless).await.unwrap();
        let tokens = tx.tokens().await.unwrap();
        assert!(tokens.contains(&TokenRow { revoked_at: Some(now), last_used: Some(now), ..token.clone() }) && tokens.contains(&endless));
        assert!(matches!(tx.insert_token(&token).await, Err(Error::Conflict)));
    }

    async fn passwords_and_links(world) {
        let store = world.open("a").await;
        let mut tx = store.begin().await.unwrap();
        assert_eq!(tx.password("ann").await.unwrap(), None);
        tx.set_password("ann", "$argon2id$1").await.unwrap();
        tx.set_password("ann", "$argon2id$2").await.unwrap();
        assert_eq!(tx.password("ann").await.unwrap().as_deref(), Some("$argon2id$2"));
        assert!(tx.use_link("link-1", world.now() + MINUTE).await.unwrap());
        assert!(!tx.use_link("link-1", world.now() + MINUTE).await.unwrap());
        tx.commit().await.unwrap();
        let mut racers = Vec::new();
        for _ in 0..20 {
            let (store, until) = (store.clone(), world.now() + MINUTE);
            racers.push(tokio::spawn(async move {
                let mut tx = store.begin().await.unwrap();
                let first = tx.use_link("link-2", until).await.unwrap();
                tx.commit().await.unwrap();
                first
            }));
        }
        let mut firsts = 0;
        for racer in racers {
            firsts += usize::from(racer.await.unwrap());
        }
        assert_eq!(firsts, 1);
    }
}

/// Rows of the audit log, all of which can be read.
async fn read(store: &Store, after: i64, limit: i64) -> Vec<AuditRow> {
    let rows = store.read().await.unwrap().audit_rows(after, limit).await.unwrap();
    rows.into_iter().map(Result::unwrap).collect()
}
