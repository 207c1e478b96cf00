//! A real order, as it goes over the bus: what a person approved stands in it, signed by the server, for a bounded time; and one that was changed is refused.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use async_nats::jetstream;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use domain::action::Effect;
use domain::approval::{Approval, ApprovalState};
use domain::id::RunId;
use domain::order::{Order, SERVER};
use domain::plan::Target;
use domain::run::{Fence, Run};
use futures::{FutureExt, StreamExt};
use harness::eventually;
use harness::peers::Nats;
use harness::world::{Alert, Ledger, SOON};
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation};
use reqwest::Method;
use serde_json::{Value, json};

use crate::agents::{plan_over, signed};
use crate::agents_roll::agent_where;

/// How long the step may take, in seconds.
const TIMEOUT: i64 = 60;

/// The time in seconds, as orders have it.
pub(crate) fn now() -> anyhow::Result<i64> {
    Ok(i64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_secs())?)
}

/// An order of `now` that the agent `edge` is to obey: it writes `obeyed`.
pub(crate) fn an_order(jti: &str, now: i64, ledger: &Ledger) -> Order {
    Order {
        iss: SERVER.to_owned(),
        aud: "edge".to_owned(),
        jti: jti.to_owned(),
        iat: now,
        exp: now + 600,
        run: RunId::new(jiff::Timestamp::UNIX_EPOCH),
        step: "write".to_owned(),
        attempt: 1,
        key: "k".to_owned(),
        uses: "command".to_owned(),
        with: json!({ "program": ledger.program, "args": ["obeyed"] }),
        target: Target {
            name: "api".to_owned(),
            kind: "systemd".to_owned(),
            fields: [("unit".to_owned(), json!("api.service")), ("agent".to_owned(), json!("edge"))].into(),
        },
        effect: Effect::AtMostOnce,
        deadline: now + 600,
        plan_digest: "d".to_owned(),
        approvals: vec![],
        fence: Some(Fence { epoch: 1, n: 5 }),
    }
}

/// An order as any reader of JSON web tokens takes it: signed by that key, of that issuer, for that audience, and in time.
fn read(token: &[u8], key: &Path) -> anyhow::Result<TokenData<Order>> {
    let pem = fs::read_to_string(key)?;
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body)?;
    let raw = der.last_chunk::<32>().context("no key")?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_required_spec_claims(&["exp", "aud", "iss"]);
    validation.set_issuer(&[SERVER]);
    validation.set_audience(&["edge"]);
    validation.leeway = 0;
    Ok(jsonwebtoken::decode(token, &DecodingKey::from_ed_der(raw), &validation)?)
}

#[tokio::test]
async fn an_order_says_what_was_approved_and_one_that_was_changed_is_refused() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let link = json!({ "url": nats.url() });
    let (mut plan, mut edge, ledger) = plan_over(&link, &link, &["approved"], &format!("{TIMEOUT}s")).await?;
    plan.config["routes"][0]["remedy"]["mode"] = json!("approve");
    edge.start()?;
    let client = async_nats::connect(nats.url()).await?;
    let mut heard = client.subscribe("watchkeeper.agent.edge.order").await?;
    client.flush().await?;
    let world = plan.start().await?;
    agent_where(&world, |agent| agent["here"] == true).await?;
    world.send(&[Alert::service_down()]).await?;
    let asked = world.run_in("awaiting_approval", SOON).await?;
    let approval = asked["approval"]["id"].as_str().context("nothing waits for approval")?;
    // Time in which nothing may be ordered.
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(heard.next().now_or_never().is_none() && ledger.lines().is_empty(), "nobody approved it yet");
    let decided = json!({ "decision": "approve", "plan_digest": asked["run"]["plan_digest"] });
    let answer = world.call("ben", Method::POST, &format!("/approvals/{approval}/decision"), Some(&decided)).await?;
    ensure!(answer.status.is_success(), "{}", answer.json);
    let message = tokio::time::timeout(SOON, heard.next()).await?.context("the subscription ended")?;

    let dir = world.dir().to_owned();
    let token = read(&message.payload, &dir.join("orders.pub"))?;
    ensure!(token.header.alg == Algorithm::EdDSA, "{:?}", token.header);
    ensure!(read(&message.payload, &dir.join("stranger.pub")).is_err(), "a stranger's key makes it good");
    let order = token.claims;

    let told = world.run_in("succeeded", SOON).await?;
    let run: Run = serde_json::from_value(told["run"].clone())?;
    let step = &run.plan.steps[0];
    assert_eq!((order.run, order.step.as_str(), order.attempt), (run.id, "write", 1));
    assert_eq!((order.uses.as_str(), &order.with, Some(&order.target)), ("command", &step.with, step.target.as_ref()));
    assert_eq!(order.jti, format!("{}-0-1", run.id));
    // What is carried out is what was approved, and who approved it is found by its digest.
    assert_eq!((&order.plan_digest, &order.plan_digest), (&run.plan_digest, &run.plan.digest().to_string()));
    let approval: Approval = serde_json::from_value(world.get(&format!("/approvals/{approval}")).await?["approval"].clone())?;
    assert_eq!(order.approvals, [approval.digest().to_string()]);
    assert_eq!((&approval.plan_digest, approval.run, approval.state), (&order.plan_digest, order.run, ApprovalState::Approved));
    let votes: Vec<(&str, bool)> = approval.votes.iter().map(|vote| (vote.who.as_str(), vote.approve)).collect();
    assert_eq!(votes, [("ben", true)]);
    // The fence that the journal has.
    let fence = order.fence.context("no fence")?;
    assert_eq!(told["attempts"][0]["place"]["fence"], json!({ "epoch": fence.epoch, "n": fence.n }));
    ensure!(fence.epoch >= 1 && fence.n >= 1, "{fence}");
    // It is good for as long as the step may take, beginning after the decision.
    let since = approval.decided_at.context("not decided")?.as_second();
    ensure!(order.iat >= since && order.exp > order.iat && order.exp - order.iat <= TIMEOUT && order.deadline == order.exp, "{order:?}");
    let rows = fs::read_to_string(edge.data.join("audit.jsonl"))?;
    let row: Value = serde_json::from_str(rows.lines().next().context("the agent wrote nothing")?)?;
    assert_eq!(
        (&row["decision"], &row["approvals"], &row["plan_digest"], &row["fence"]),
        (&json!("allowed"), &json!(order.approvals), &json!(order.plan_digest), &json!(fence.to_string()))
    );

    // The same order with other approvals, under the signature that it had, and under one of somebody else.
    let context = jetstream::new(client.clone());
    let parts: Vec<&str> = std::str::from_utf8(&message.payload)?.split('.').collect();
    let [head, claims, signature] = parts[..] else { anyhow::bail!("no JSON web token: {parts:?}") };
    let changed = |number: usize, change: &dyn Fn(&mut Order)| {
        let mut order = Order { jti: format!("changed-{number}"), exp: order.exp + 3600, deadline: order.deadline + 3600, ..order.clone() };
        change(&mut order);
        order
    };
    let under_old = |order: &Order| anyhow::Ok(format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(serde_json::to_string(order)?)));
    let none = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#);
    let without = changed(1, &|order| order.approvals.clear());
    let forged = [
        under_old(&without)?,
        under_old(&changed(2, &|order| order.approvals = vec!["0".repeat(64)]))?,
        under_old(&changed(3, &|order| order.plan_digest = "0".repeat(64)))?,
        signed(&without, &dir.join("stranger.pem"))?,
        format!("{none}.{claims}."),
    ];
    for (number, token) in forged.iter().enumerate() {
        context.publish("watchkeeper.agent.edge.order", token.clone().into()).await?.await?;
        eventually(SOON, async || {
            let refusals = edge.refusals();
            ensure!(refusals.len() == number + 1 && refusals[number].contains("not signed by a server"), "{number}: {refusals:?}");
            Ok(())
        })
        .await?;
    }
    assert_eq!(ledger.lines(), ["approved"]);
    Ok(())
}
