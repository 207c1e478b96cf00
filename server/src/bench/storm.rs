//! `bench storm`: ten thousand alerts in one body, then fifty thousand within a minute over five thousand groups, while people decide.

use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::act::{Act, Identity, Verb};
use domain::event::{Delivery, NewEvent};
use domain::inbox::Inbox;
use domain::time::{Clock, SystemClock};
use store::Store;

use crate::lifecycle::Stop;
use crate::roles::Roles;

use super::Common;
use super::bed::Bed;
use super::report::{Progress, Report, resident};
use super::wire::{Conn, Room};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    /// Alerts in one body.
    #[arg(long, default_value_t = 10_000)]
    body: u64,
    /// Alerts within the time.
    #[arg(long, default_value_t = 50_000)]
    alerts: u64,
    /// Groups that they fall into.
    #[arg(long, default_value_t = 5_000)]
    groups: u64,
    /// The time.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Alerts of one body of the long storm.
const BATCH: u64 = 10;
/// Every so many groups one wants an approval.
const WITH_REMEDY: u64 = 50;

/// Measures.
pub(super) async fn run(args: &Args, stop: Stop) -> anyhow::Result<Report> {
    let (room, address) = Room::open().await?;
    let more = format!(
        "slack: {{ team_id: TBENCH, bot_token_file: SECRET, signing_secret_file: SECRET, api_url: \"http://{address}/api\" }}\n\
         channels: {{ bench: {{ platform: slack, id: CBENCH }} }}\ndefault_channels: [bench]\n\
         roles: {{ bench: [view, run, approve] }}\nprincipals: {{ bench: {{ roles: [bench] }} }}\n\
         routes:\n- {{ name: one, match: ['alertname=\"One\"'], incident: {{ group_by: [alertname] }} }}\n\
         - {{ name: asked, match: ['alertname=\"Asked\"'], incident: {{ group_by: [alertname, group] }}, remedy: {{ runbook: bench, mode: approve }} }}\n\
         - {{ name: many, incident: {{ group_by: [alertname, group] }} }}\n\
         runbooks: {{ bench: {{ approval: {{ roles: [bench] }}, steps: [ {{ id: wait, uses: wait, with: {{ for: 1s }} }} ] }} }}\n"
    );
    let bed = Bed::start(args.common.store.as_deref(), Roles::ALL, &more, stop).await?;
    let mut report = Report::new(format!(
        "storm: {} alerts in one body, then {} in {} s over {} groups",
        args.body, args.alerts, args.seconds, args.groups
    ));
    one_body(args, &bed, &room, &mut report).await?;
    many(args, &bed, &mut report).await?;
    let (held, incidents) = bed.held().await?;
    report.add("incidents", incidents as f64, "");
    if held < (args.body + args.alerts) as i64 {
        report.wrong(format!("{} alerts were sent and {held} are there", args.body + args.alerts));
    }
    report.word("store", &bed.store.durability());
    report.add("resident", resident(), "MB");
    bed.stop().await;
    Ok(report)
}

async fn one_body(args: &Args, bed: &Bed, room: &Room, report: &mut Report) -> anyhow::Result<()> {
    let request = bed.door.request("One", 0..args.body, |_| 0);
    let began = Instant::now();
    let status = Conn::new(bed.door.address).send(&request).await?;
    if !(200..300).contains(&status) {
        report.wrong(format!("one body of {} alerts was answered with {status}", args.body));
    }
    report.add("one body accepted", began.elapsed().as_secs_f64(), "s");
    bed.decided(|_| {}).await?;
    report.add("one body decided", began.elapsed().as_secs_f64(), "s");
    // A card that goes on changing is drawn again some seconds later at the latest.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (posts, updates) = room.calls();
    report.add("chat calls for one body", (posts + updates) as f64, "");
    Ok(())
}

async fn many(args: &Args, bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    let bodies = args.alerts.div_ceil(BATCH);
    let mut every = tokio::time::interval(Duration::from_secs(args.seconds) / u32::try_from(bodies).unwrap_or(u32::MAX));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut conns: Vec<Conn> = (0..4).map(|_| Conn::new(bed.door.address)).collect();
    let (mut accepts, mut again) = (Vec::new(), 0_u64);
    let people = tokio::spawn(decide(bed.store.clone(), Duration::from_secs(args.seconds)));
    let began = Instant::now();
    let mut progress = Progress::new("storm");
    for n in 0..bodies {
        every.tick().await;
        // Every body's alerts fall into one group, as Alertmanager sends them.
        let group = n % args.groups;
        let name = if group.is_multiple_of(WITH_REMEDY) { "Asked" } else { "Many" };
        let first = 1_000_000 + n * BATCH;
        let request = bed.door.request(name, first..(first + BATCH).min(1_000_000 + args.alerts), |_| group);
        let conn = &mut conns[(n % 4) as usize];
        loop {
            let asked = Instant::now();
            match conn.send(&request).await {
                Ok(200..300) => {
                    accepts.push(asked.elapsed());
                    break;
                }
                // As Alertmanager would.
                _ => again += 1,
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        progress.show(n as f64 / bodies as f64, &format!("{} alerts", n * BATCH));
    }
    drop(progress);
    report.add("storm sent in", began.elapsed().as_secs_f64(), "s");
    report.times("accept", &mut accepts);
    report.add("told to come again", again as f64, "");
    let mut clicks = people.await??;
    report.add("clicks", clicks.len() as f64, "");
    report.times("click answered", &mut clicks);
    bed.decided(|_| {}).await?;
    report.add("storm decided", began.elapsed().as_secs_f64(), "s");
    Ok(())
}

/// Approves what is asked, one after the other, as long as the storm lasts; how long each waits for its outcome.
async fn decide(store: Store, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let (began, mut times, mut number) = (Instant::now(), vec![], 0);
    while began.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let pending = store.read().await?.pending_approvals(1).await?;
        let Some(approval) = pending.first() else { continue };
        let actor = Identity {
            platform: "api".to_owned(),
            workspace: String::new(),
            user: "bench".to_owned(),
            display: String::new(),
            barred: None,
        };
        let act = Act { actor, verb: Verb::Approve { approval: approval.id }, button: None, place: None, reply: None };
        number += 1;
        let event = NewEvent::act("api", &format!("bench/{number}"), act);
        let asked = Instant::now();
        let delivery = Delivery { source: "api".to_owned(), events: vec![event], raw: Bytes::new(), received_at: SystemClock.now() };
        let seq = store.accept(delivery).await?.seqs.first().copied().unwrap_or_default();
        store.outcome(seq, Duration::from_secs(30)).await?;
        times.push(asked.elapsed());
    }
    Ok(times)
}
