//! The server killed again and again under load.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use harness::eventually;
use harness::world::{Alert, SOON, World, body};

use super::plan;

/// How often the server is killed under load. Twenty rounds of a second each, with their restarts, stay within a minute.
const ROUNDS: u64 = 20;
/// Deliveries a second while it is up.
const RATE: u64 = 200;
/// Every so many deliveries one has so many alerts, which is too much to be decided where it is stored.
const LARGE: (u64, u64) = (40, 70);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_there_after_every_kill() -> anyhow::Result<()> {
    let _alone = crate::storm::ALONE.lock().await;
    harness::rounds("server killed under load", 1, async |tally| {
        let mut world = plan()?.start().await?;
        let mut kept = BTreeSet::new();
        for round in 0..ROUNDS {
            if round > 0 {
                world.start().await?;
            }
            let load = Load::start(&world, round);
            load.answered(20).await?;
            // At another moment of whatever it does in each round.
            tokio::time::sleep(Duration::from_millis(round * 137 % 600)).await;
            world.kill9()?;
            tally.faults += 1;
            kept.extend(load.stop().await?);
        }
        world.start().await?;
        // What was left unopened becomes events when it is decided.
        eventually(SOON, async || {
            let mut stored = BTreeSet::new();
            for event in world.all("/events", "after").await? {
                let twice = !stored.insert(event["payload"]["labels"]["delivery"].as_str().unwrap_or_default().to_owned());
                ensure!(!twice, "an event is there twice: {event:#}");
            }
            let lost: Vec<&String> = kept.difference(&stored).collect();
            ensure!(lost.is_empty(), "{} of {} alerts that were answered are lost: {lost:?}", lost.len(), kept.len());
            Ok(())
        })
        .await?;
        tally.lines += kept.len() as u64;
        // And each of them has been decided: it is an alert of its incident.
        eventually(SOON, async || {
            let incidents = world.incidents().await?;
            ensure!(incidents.len() == 1, "there are {} incidents", incidents.len());
            let (total, active) = (&incidents[0]["alerts_total"], &incidents[0]["alerts_active"]);
            let stored = world.all("/events", "after").await?.len();
            ensure!(total == stored && active == stored, "{total} alerts, {active} active, of {stored} events");
            Ok(())
        })
        .await
    })
    .await
}

/// Deliveries at a steady rate, each with an alert of its own.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    fn start(world: &World, round: u64) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let url = format!("{}/api/v1/webhooks/alertmanager/am", world.url());
        let (http, token) = (world.http().clone(), world.source_token());
        let (stopped, kept) = (Arc::clone(&stop), Arc::clone(&answered));
        let task = tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
            let mut posts = tokio::task::JoinSet::new();
            let mut number = 0;
            while !stopped.load(Ordering::SeqCst) {
                every.tick().await;
                let name = format!("{round}-{number}");
                number += 1;
                let count = if number % LARGE.0 == 0 { LARGE.1 } else { 1 };
                let names: Vec<String> = (0..count).map(|n| format!("{name}.{n}")).collect();
                let alerts: Vec<Alert> = names.iter().map(|name| Alert::new("Flood").label("delivery", name)).collect();
                let post = http.post(&url).bearer_auth(token).json(&body(&alerts));
                let kept = Arc::clone(&kept);
                posts.spawn(async move {
                    if post.send().await.is_ok_and(|answer| answer.status().is_success()) {
                        kept.lock().unwrap().extend(names);
                    }
                });
            }
            posts.join_all().await;
        });
        Self { stop, answered, task }
    }

    /// Waits until so many were answered.
    async fn answered(&self, count: usize) -> anyhow::Result<()> {
        eventually(SOON, async || {
            let answered = self.answered.lock().unwrap().len();
            ensure!(answered >= count, "{answered} deliveries were answered");
            Ok(())
        })
        .await
    }

    async fn stop(self) -> anyhow::Result<Vec<String>> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await?;
        let answered = std::mem::take(&mut *self.answered.lock().unwrap());
        Ok(answered)
    }
}
