//! Presses that must not count: forged, replayed, by the wrong people, or too many at once. Whoever is known is told why, and it is written down.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::fake::slack::{Config, FakeSlack, Message, User};
use harness::world::{ANN, Alert, BEN, CLEO, GUS, OLAF, ROBO, SOON, World};
use serde_json::{Value, json};

use crate::slack::{card_with, door, plan};

/// Somebody of the workspace whom nobody linked.
const NELL: &str = "U0NELL001";

#[tokio::test]
async fn who_may_not_decide_is_told_why_and_it_is_written_down() -> anyhow::Result<()> {
    let slack = FakeSlack::start(Config::default()).await?;
    slack.put_user(User::member(NELL, "nell"));
    let world = plan(&slack)?.start().await?;
    let before = world.service_pids();
    world.send(&[Alert::service_down()]).await?;
    let card = card_with(&slack, "Approve").await?;
    let other = other_card(&slack, &world).await?;
    let press = |user: &str| slack.click(user, &card, "Approve", door(&world));

    // Nobody knows who these are from: they are refused at the door.
    for (unknown, what) in [
        (press(ANN).forged(), "a wrong signature"),
        (press(ANN).unsigned(), "no signature"),
        (press(ANN).aged(Duration::from_secs(6 * 60)), "a recording of six minutes ago"),
    ] {
        assert_eq!(unknown.await?.status, 401, "{what}");
    }
    let mut recorded = press(ANN).sign()?;
    recorded.body = recorded.body.replace("ann", "bob");
    assert_eq!(recorded.send().await?.status, 401, "a changed body");

    let token = card.buttons().into_iter().find(|button| button.label == "Approve").unwrap().value;
    let flipped = |at: usize| {
        let old = token.as_bytes()[at];
        format!("{}{}{}", &token[..at], if old == b'a' { 'b' } else { 'a' }, &token[at + 1..])
    };
    let elsewhere = other.ts.clone();
    let acknowledge = card.buttons().into_iter().find(|button| button.label == "Acknowledge").unwrap().value;
    let as_approval = acknowledge.replacen("ack", "approve", 1);
    assert_ne!(as_approval, acknowledge);
    let cases = [
        (press(OLAF), OLAF, "members of the configured workspace"),
        (press(NELL), NELL, "Ask an administrator to add"),
        (press(GUS), GUS, "full member"),
        (press(ROBO), ROBO, "Bots cannot decide"),
        (press(BEN).of_team("T0OTHER01"), BEN, "members of the configured workspace"),
        (press(CLEO), CLEO, "it takes one of the roles"),
        (press(BEN).with(value(flipped(token.len() - 1))), BEN, "not one of mine"),
        (press(BEN).with(value(as_approval)), BEN, "not one of mine"),
        (press(BEN).with(move |payload| payload["container"]["message_ts"] = json!(elsewhere)), BEN, "not one of mine"),
        (press(BEN).with(move |payload| payload["container"]["channel_id"] = json!("C0DEV0001")), BEN, "not one of mine"),
    ];
    for (delivery, user, says) in cases {
        let told = slack.ephemerals(user).len();
        let reply = delivery.await?;
        assert_eq!(reply.status, 200, "{says}");
        let words = |message: &Message| message.visible_text().contains(says) && slack.ephemerals(user).len() > told;
        slack.wait_for_ephemeral(user, |message| message.visible_text().contains(says), SOON).await?;
        harness::eventually(SOON, async || {
            anyhow::ensure!(slack.ephemerals(user).last().is_some_and(words), "{user} is not told {says:?}");
            Ok(())
        })
        .await?;
    }

    let refused = refusals(&world, "approve").await?;
    let expected = [
        (("identity:slack/T0OTHER01/U0OTHER01", "barred"), 1),
        (("identity:slack/T0OTHER01/U0BEN0001", "barred"), 1),
        (("identity:slack/T0WATCH01/U0NELL001", "not_linked"), 1),
        (("identity:slack/T0WATCH01/U0GUEST01", "barred"), 1),
        (("identity:slack/T0WATCH01/U0ROBOT01", "barred"), 1),
        (("principal:cleo", "no_right"), 1),
        (("principal:ben", "forged"), 4),
    ];
    let expected: BTreeMap<(String, String), usize> =
        expected.into_iter().map(|((who, why), count)| ((who.to_owned(), why.to_owned()), count)).collect();
    assert_eq!(refused, expected);
    world.run_in("awaiting_approval", SOON).await?;
    assert_eq!(world.service_pids(), before, "nothing ran");
    Ok(())
}

#[tokio::test]
async fn nobody_approves_what_they_asked_for() -> anyhow::Result<()> {
    let slack = FakeSlack::start(Config::default()).await?;
    let mut plan = plan(&slack)?;
    plan.config["routes"][0]["remedy"]["mode"] = json!("suggest");
    let world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    let card = card_with(&slack, "Run restart-service").await?;
    slack.click(BEN, &card, "Run restart-service", door(&world)).await?;
    let card = card_with(&slack, "Approve").await?;
    slack.click(BEN, &card, "Approve", door(&world)).await?;
    slack.wait_for_ephemeral(BEN, |message| message.visible_text().contains("You asked for this"), SOON).await?;
    assert_eq!(refusals(&world, "approve").await?, BTreeMap::from([(("principal:ben".to_owned(), "requester".to_owned()), 1)]));
    world.run_in("awaiting_approval", SOON).await?;
    slack.click(ANN, &card, "Approve", door(&world)).await?;
    world.run_in("succeeded", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn fifty_presses_at_once_are_one_decision_and_one_run() -> anyhow::Result<()> {
    let slack = FakeSlack::start(Config::default()).await?;
    let mut plan = plan(&slack)?;
    let ledger = plan.ledger()?;
    plan.merge(json!({
        "runbooks": { "restart-service": {
            "steps": [{ "id": "write", "uses": "command", "with": { "program": ledger.program, "args": ["ran"] } }],
            "verify": null,
        } },
    }));
    let world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    let card = card_with(&slack, "Approve").await?;
    // One of them is also delivered again, as Slack does when an answer is lost.
    let recorded = slack.click(ANN, &card, "Approve", door(&world)).sign()?;
    let presses = (0..50).map(|index| {
        let (slack, card, door, recorded) = (slack.clone(), card.clone(), door(&world), recorded.clone());
        tokio::spawn(async move {
            match index {
                0..5 => recorded.send().await,
                _ if index % 2 == 0 => slack.click(ANN, &card, "Approve", door).await,
                _ => slack.click(BEN, &card, "Approve", door).await,
            }
        })
    });
    let mut answered = [0, 0];
    for (index, reply) in futures::future::join_all(presses).await.into_iter().enumerate() {
        // On a busy machine Slack may not get one answered in time: whether it counts is then open.
        let Some(reply) = reply?.ok().filter(|reply| reply.status != 503) else { continue };
        assert_eq!(reply.status, 200);
        answered[usize::from(index >= 5)] += 1;
    }
    let heard = answered[0].min(1) + answered[1];
    world.run_in("succeeded", SOON).await?;
    harness::eventually(SOON, async || {
        let refused: usize = refusals(&world, "approve").await?.values().sum();
        anyhow::ensure!((heard - 1..46).contains(&refused), "{refused} refusals of {heard} presses that were heard");
        Ok(())
    })
    .await?;
    let decided = world.audit().await?.into_iter().filter(|row| row["action"] == "approve" && row["decision"] == "allowed");
    assert_eq!(decided.count(), 1);
    assert_eq!(ledger.lines(), ["ran"]);
    assert_eq!(slack.channel("ops").messages().len(), 1);
    Ok(())
}

/// A card of another incident in the same channel.
async fn other_card(slack: &FakeSlack, world: &World) -> anyhow::Result<Message> {
    world.send(&[Alert::new("Other")]).await?;
    slack.channel("ops").wait_for(|message| message.thread_ts.is_none() && message.visible_text().contains("Other"), SOON).await
}

/// Changes what a pressed button carries.
fn value(token: String) -> impl FnOnce(&mut Value) {
    move |payload| payload["actions"][0]["value"] = json!(token)
}

/// How often whom was refused `action` for which reason, as the audit log has it.
pub(crate) async fn refusals(world: &World, action: &str) -> anyhow::Result<BTreeMap<(String, String), usize>> {
    let mut counted = BTreeMap::new();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    for row in world.audit().await?.iter().filter(|row| row["action"] == action && row["decision"] == "refused") {
        *counted.entry((text(row, "actor"), text(row, "reason"))).or_insert(0) += 1;
    }
    Ok(counted)
}
