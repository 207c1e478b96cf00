//! Pages and forms without a browser: what their fields say, and what they become.

use axum::http::{StatusCode, header};
use domain::act::{ActOutcome, Verb};
use domain::id::{IncidentId, RunId};
use domain::run::{Run, Settlement};
use domain::time::Clock;
use jiff::SignedDuration;
use secrecy::ExposeSecret;
use serde_json::json;

use super::api::incidents;
use super::world::{World, call, post};
use crate::LoginLinks;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// A browser that is signed in.
struct Browser<'w> {
    world: &'w World,
    cookie: String,
}

impl<'w> Browser<'w> {
    async fn of(world: &'w World, principal: &str) -> Self {
        let links = LoginLinks::new(vec![vec![9; 32].into()]);
        let token = links.mint(principal, world.clock.now(), SignedDuration::from_mins(1)).unwrap();
        let answer = world.send(post("/login/link", &[FORM], format!("token={}", token.expose_secret()))).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap();
        Self { world, cookie: cookie.split(';').next().unwrap().to_owned() }
    }

    async fn see(&self, path: &str) -> String {
        let answer = self.world.send(call("GET", path, &[("cookie", &self.cookie)], "")).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        String::from_utf8(axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap()
    }

    /// Fills in the form that has `act`, with a reason, and sends it.
    async fn press(&self, page: &str, act: &str) -> StatusCode {
        let shown = self.see(page).await;
        let forms = shown.split("<form").skip(1).map(|form| form.split("</form>").next().unwrap_or_default());
        let form = forms.into_iter().find(|form| form.contains(&format!(r#"value="{act}""#))).expect("no such form");
        let word = |tag: &str, name: &str| Some(tag.split_once(&format!(r#"{name}=""#))?.1.split_once('"')?.0.to_owned());
        let fields =
            form.split("<input").skip(1).filter_map(|tag| Some((word(tag, "name")?, word(tag, "value").unwrap_or("looked".to_owned()))));
        let body = fields.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
        let to = word(form, "action").unwrap();
        self.world.send(post(&to, &[FORM, ("cookie", &self.cookie)], body)).await.status()
    }
}

/// A run whose first step's outcome nobody knows.
async fn unknown(world: &World, incident: IncidentId, argument: &str) -> Run {
    let at = world.clock.now();
    let step = json!({
        "id": "restart", "uses": "command", "with": { "args": [argument] }, "target": null, "timeout": "60s",
        "retry": { "attempts": 1, "delay": "0s", "max_delay": "0s" }, "risk": "disruptive", "effect": "at_most_once", "continue_on_error": false,
    });
    let plan = json!({
        "runbook": "restart", "params": {}, "approval": null, "guards": domain::plan::Guards::default(), "steps": [step], "verify": null,
        "on_failure": domain::plan::OnFailure::default(),
    });
    let run: Run = serde_json::from_value(json!({
        "id": RunId::new(at), "incident": incident, "runbook": "restart", "state": "unknown", "reason": "nobody knows", "requester": null, "route": null,
        "inputs": {}, "plan": plan, "plan_digest": "d".repeat(64), "rule_set": "0".repeat(64), "asked": 0, "created_at": at, "started_at": at,
        "finished_at": null, "version": 1,
    }))
    .unwrap();
    let mut tx = world.store.begin().await.unwrap();
    tx.insert_run(&run).await.unwrap();
    tx.commit().await.unwrap();
    run
}

/// The page of the incident and that of the run, all four words.
#[tokio::test]
async fn what_became_of_a_step_is_told_on_either_page() {
    let world = World::new().await;
    let incident = incidents(&world, 1).await[0];
    let run = unknown(&world, incident, "x").await;
    let _handlers = world.answer(|_| ActOutcome::done("settled", "Noted."));
    let browser = Browser::of(&world, "ann").await;
    for page in ["/incidents/1".to_owned(), format!("/runs/{}", run.id)] {
        for how in Settlement::ALL {
            let act = domain::card::ButtonKind::of_settlement(how).code();
            assert_eq!(browser.press(&page, act).await, StatusCode::SEE_OTHER, "{page} {act}");
            let events = world.events().await;
            let domain::event::Payload::Act(last) = &events.last().unwrap().payload else { panic!("{events:?}") };
            assert_eq!(last.verb, Verb::Settle { run: run.id, how, reason: "looked".to_owned() });
        }
    }
}

/// Whoever decides can read the whole plan.
#[tokio::test]
async fn a_long_argument_is_shown_whole() {
    let world = World::new().await;
    let incident = incidents(&world, 1).await[0];
    let run = unknown(&world, incident, &format!("{}the-end", "x".repeat(2_000))).await;
    let page = Browser::of(&world, "ann").await.see(&format!("/runs/{}", run.id)).await;
    assert!(page.contains("the-end"));
}

#[tokio::test]
async fn a_form_that_is_too_long_is_refused() {
    let world = World::new().await;
    let (status, answer) = world.ask(post("/login", &[FORM], format!("name=ann&password={}", "x".repeat(70_000)))).await;
    assert_eq!((status, &answer["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_large")));
    let (status, _) = world.ask(post("/login", &[FORM], "name=ann")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}
