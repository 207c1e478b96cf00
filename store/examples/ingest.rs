//! Measures how fast a store accepts deliveries, each durable before its answer:
//! `cargo run --release --example ingest -- sqlite:/var/lib/watchkeeper/try.db 16 20 10` is 16 senders, 20 alerts each, 10 seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use domain::event::{Delivery, NewEvent, Sighting, Status};
use domain::id::StartId;
use domain::inbox::Inbox;
use domain::time::{Clock, SystemClock};
use store::{Options, Store};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, url, senders, alerts, seconds] = &args[..] else {
        anyhow::bail!("arguments: the store's address, how many senders, alerts per delivery, seconds");
    };
    let senders: usize = senders.parse().context("how many senders")?;
    let alerts: usize = alerts.parse().context("alerts per delivery")?;
    let time = Duration::from_secs(seconds.parse().context("seconds")?);
    let store = Store::open(Options {
        url: url.clone(),
        clock: Arc::new(SystemClock),
        instance: "ingest".to_owned(),
        start: StartId::new(SystemClock.now()),
        audit_keys: vec![vec![0; 32].into()],
        max_waiting: 10_000,
    })
    .await?;
    say(&format!("{}\n{senders} senders, {alerts} alerts per delivery, {time:?}", store.durability()));

    let begun = Instant::now();
    let mut tasks = Vec::new();
    for sender in 0..senders {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let mut waits = Vec::new();
            while begun.elapsed() < time {
                let delivery = delivery(sender, waits.len(), alerts);
                let sent = Instant::now();
                store.accept(delivery).await?;
                waits.push(sent.elapsed());
            }
            anyhow::Ok(waits)
        }));
    }
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await??);
    }
    let took = begun.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |part: f64| waits.get((waits.len() as f64 * part) as usize).copied().unwrap_or_default();
    say(&format!(
        "{:.0} deliveries/s, {:.0} alerts/s; p50 {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
        waits.len() as f64 / took,
        (waits.len() * alerts) as f64 / took,
        at(0.5),
        at(0.99),
        at(0.999),
        waits.last().copied().unwrap_or_default(),
    ));
    store.close().await;
    Ok(())
}

/// What a real Alertmanager says of one service, about 1.5 KB per alert.
fn delivery(sender: usize, turn: usize, alerts: usize) -> Delivery {
    let now = SystemClock.now();
    let label = |name: &str, value: String| (name.to_owned(), value);
    let event = |n: usize| {
        let instance = format!("host-{sender}-{turn}-{n}.example.test:9100");
        let sighting = Sighting {
            fingerprint: format!("{sender:04x}{turn:08x}{n:04x}"),
            status: Status::Firing,
            labels: BTreeMap::from([
                label("alertname", "ServiceDown".to_owned()),
                label("cluster", "production-eu-1".to_owned()),
                label("instance", instance.clone()),
                label("job", "node".to_owned()),
                label("namespace", "payments".to_owned()),
                label("severity", "critical".to_owned()),
            ]),
            annotations: BTreeMap::from([
                label("description", format!("{instance} has been down for more than 5 minutes. {}", "It answers no scrape. ".repeat(20))),
                label("runbook_url", "https://runbooks.example.test/service-down".to_owned()),
                label("summary", format!("{instance} is down")),
            ]),
            starts_at: now,
            ends_at: None,
            generator_url: Some("http://prometheus.example.test:9090/graph?g0.expr=up+%3D%3D+0&g0.tab=1".to_owned()),
            external_url: Some("http://alertmanager.example.test:9093".to_owned()),
            cut: 0,
        };
        NewEvent::sighting("alertmanager", sighting)
    };
    let events: Vec<NewEvent> = (0..alerts).map(event).collect();
    Delivery { source: "alertmanager".to_owned(), raw: Bytes::from(vec![b'x'; 500 + 1000 * alerts]), events, received_at: now }
}

#[expect(clippy::print_stdout, reason = "what it measured is what it is for")]
fn say(text: &str) {
    println!("{text}");
}
