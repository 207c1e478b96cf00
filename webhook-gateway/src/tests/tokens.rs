//! Tokens: what they allow, what they never allow, and what is written down.

use std::time::Duration;

use anyhow::ensure;
use axum::http::StatusCode;
use domain::permission::Right;
use harness::eventually;
use harness::world::SOON;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::world::{World, call, get, send};

/// Actor, action and reason of every row of the audit log.
async fn audit(world: &World) -> Vec<(String, String, String)> {
    let rows = world.store.read().await.unwrap().audit_rows(0, 100).await.unwrap();
    rows.into_iter().map(Result::unwrap).map(|row| (row.row.actor, row.row.action, row.row.reason)).collect()
}

async fn make(world: &World, with: &str, body: Value) -> (StatusCode, Value) {
    world.ask(send("/api/v1/tokens", with, &body)).await
}

#[tokio::test]
async fn without_a_good_token_there_is_one_answer() {
    let world = World::new().await;
    let good = world.token("ann", &Right::ALL).await;
    let other = world.token("ann", &Right::ALL).await;
    let mixed = format!("{}{}", &good[..36], &other[36..]);
    let orphan = world.token("nobody", &Right::ALL).await;
    for token in ["", "x", &good[..good.len() - 2], &mixed, &orphan, &good.to_uppercase()] {
        assert_eq!(world.ask(get("/api/v1/incidents", token)).await.1["code"], "unauthorized", "{token}");
    }
    assert_eq!(world.ask(get("/api/v1/incidents", &good)).await.0, StatusCode::OK);
    assert_eq!(
        world.ask(call("GET", "/api/v1/incidents", &[("authorization", &format!("Basic {good}"))], "")).await.0,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_token_allows_what_both_it_and_its_principal_may() {
    let world = World::new().await;
    let narrow = world.token("root", &[Right::View]).await;
    assert_eq!(world.ask(get("/api/v1/incidents", &narrow)).await.0, StatusCode::OK);
    assert_eq!(world.ask(get("/api/v1/audit", &narrow)).await.1["code"], "token_scope");
    let broad = world.token("gus", &Right::ALL).await;
    assert_eq!(world.ask(get("/api/v1/audit", &broad)).await.1["code"], "no_right");
    let audited = audit(&world).await;
    let row = |who: &str, why: &str| (format!("principal:{who}"), "GET /api/v1/audit".to_owned(), why.to_owned());
    assert_eq!(audited, [row("root", "token_scope"), row("gus", "no_right")]);
    let full = world.token("root", &Right::ALL).await;
    assert_eq!(world.ask(get("/api/v1/audit", &full)).await.1["items"][1]["reason"], "no_right");
}

#[tokio::test]
async fn a_scoped_token_cannot_act_beyond_its_scope_and_the_rest_is_for_the_handlers() {
    let world = World::new().await;
    let narrow = world.token("ann", &[Right::View]).await;
    let (status, answer) = world.ask(send("/api/v1/automation", &narrow, &json!({"paused": true, "reason": "x"}))).await;
    // ann may not pause at all: that is for the handlers to refuse and to write down, as for a button.
    assert_eq!((status, &answer["code"]), (StatusCode::ACCEPTED, &json!("pending")));
    let narrow = world.token("root", &[Right::View]).await;
    let (status, answer) = world.ask(send("/api/v1/automation", &narrow, &json!({"paused": true, "reason": "x"}))).await;
    assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("token_scope")));
    assert_eq!(world.events().await.len(), 1);
}

#[tokio::test]
async fn a_token_makes_no_stronger_one() {
    let world = World::new().await;
    let ann = world.token("ann", &[Right::View, Right::Note]).await;
    let (status, made) = make(&world, &ann, json!({"name": "ci", "rights": ["view"], "expires_in": "1h"})).await;
    assert_eq!((status, &made["principal"], &made["expires_at"]), (StatusCode::CREATED, &json!("ann"), &json!("2026-11-20T13:00:00Z")));
    let short = made["token"].as_str().unwrap();
    assert_eq!(world.ask(get("/api/v1/incidents", short)).await.0, StatusCode::OK);
    assert_eq!(make(&world, short, json!({"name": "x", "rights": ["note"]})).await.1["code"], "token_scope");
    let (_, longer) = make(&world, short, json!({"name": "x", "rights": ["view"], "expires_in": "30d"})).await;
    assert_eq!(longer["expires_at"], "2026-11-20T13:00:00Z", "no longer life than its maker");
    assert_eq!(make(&world, &ann, json!({"name": "x", "rights": ["approve"]})).await.1["code"], "token_scope");
    for bad in [json!({"name": "x", "rights": []}), json!({"name": " ", "rights": ["view"]}), json!({"name": "x", "rights": ["root"]})] {
        assert_eq!(make(&world, &ann, bad).await.0, StatusCode::BAD_REQUEST);
    }
    let (_, list) = world.ask(get("/api/v1/tokens", &ann)).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    assert!(!list.to_string().contains("hash") && !list.to_string().contains("wk_"));
}

#[tokio::test]
async fn nobody_makes_tokens_of_other_people() {
    let world = World::new().await;
    let (root, ann) = (world.token("root", &Right::ALL).await, world.token("ann", &Right::ALL).await);
    let body = |who: &str| json!({"name": "x", "rights": ["run"], "principal": who});
    assert_eq!(make(&world, &root, body("ann")).await.1["code"], "not_yours");
    assert_eq!(make(&world, &ann, body("ci")).await.1["code"], "no_right");
    assert_eq!(make(&world, &root, body("nobody")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(make(&world, &root, body("ci")).await.0, StatusCode::CREATED);
    let beyond = json!({"name": "x", "rights": ["admin"], "principal": "ci"});
    assert_eq!(make(&world, &root, beyond).await.1["code"], "token_scope");
    assert!(audit(&world).await.contains(&("principal:root".to_owned(), "token.create".to_owned(), "created".to_owned())));
}

#[tokio::test]
async fn a_revoked_or_expired_token_is_none_at_once() {
    let world = World::new().await;
    let ann = world.token("ann", &Right::ALL).await;
    let (_, made) = make(&world, &ann, json!({"name": "x", "rights": ["view"], "expires_in": "1h"})).await;
    let (token, path) = (made["token"].as_str().unwrap(), format!("/api/v1/tokens/{}", made["id"].as_str().unwrap()));
    let delete = |with: &str| call("DELETE", &path, &[("authorization", &format!("Bearer {with}"))], "");
    let gus = world.token("gus", &Right::ALL).await;
    assert_eq!(world.ask(delete(&gus)).await.0, StatusCode::FORBIDDEN);
    assert_eq!(world.ask(get("/api/v1/incidents", token)).await.0, StatusCode::OK);
    assert_eq!(world.ask(delete(&ann)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(world.ask(get("/api/v1/incidents", token)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.ask(delete(&ann)).await.0, StatusCode::NOT_FOUND);
    let (_, made) = make(&world, &ann, json!({"name": "y", "rights": ["view"], "expires_in": "1h"})).await;
    let token = made["token"].as_str().unwrap();
    world.clock.advance(SignedDuration::from_secs(3599));
    assert_eq!(world.ask(get("/api/v1/incidents", token)).await.0, StatusCode::OK);
    world.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(world.ask(get("/api/v1/incidents", token)).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn who_leaves_the_configuration_loses_every_token() {
    let world = World::new().await;
    let ann = world.token("ann", &Right::ALL).await;
    let mut rules = (**world.rules.load()).clone();
    rules.people.principals.remove("ann");
    world.rules.store(rules.into());
    assert_eq!(world.ask(get("/api/v1/incidents", &ann)).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_last_use_is_noted_once_a_minute() {
    let world = World::new().await;
    let ann = world.token("ann", &Right::ALL).await;
    let last_used = async || world.store.read().await.unwrap().tokens().await.unwrap()[0].last_used.map(|at| at.to_string());
    for (wait, noted) in [(0, "2026-11-20T12:00:00Z"), (30, "2026-11-20T12:00:00Z"), (40, "2026-11-20T12:01:10Z")] {
        world.clock.advance(SignedDuration::from_secs(wait));
        assert_eq!(world.ask(get("/api/v1/incidents", &ann)).await.0, StatusCode::OK);
        // It is noted in the background; what must not be noted gets some time to be noted all the same.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let is_noted = async || {
            let last = last_used().await;
            ensure!(last.as_deref() == Some(noted), "{last:?} is noted after {wait} s");
            Ok(())
        };
        eventually(SOON, is_noted).await.unwrap();
    }
}
