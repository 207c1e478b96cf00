//! `bench reaction`: from the alert that is sent to the chat platform's call, and to the command that is started.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use domain::time::{Clock, SystemClock};
use jiff::Timestamp;
use store::RunFilter;

use crate::lifecycle::Stop;
use crate::roles::Roles;

use super::Common;
use super::bare::{self, BareLog};
use super::bed::{Bed, Door};
use super::report::{Progress, Report, median};
use super::wire::{Conn, Room};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    /// How long alerts come slowly, ten a second, and then as fast as sixteen senders can.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
}

/// Alerts a second while they come slowly.
const RATE: u64 = 10;
/// Senders while they come fast.
const SENDERS: u64 = 16;
const DATE: &str = "/bin/date";
const FORMAT: &str = "+%s%N";
/// The numbers of either part's alerts begin here: on one store they must not be the same.
const COMMANDS: u64 = 0;
const CHAT: u64 = 1_000_000_000;

/// Measures both, one after the other, on one store if one is given.
pub(super) async fn run(args: &Args, stop: Stop) -> anyhow::Result<Report> {
    let mut report = Report::new(format!("reaction: {RATE} alerts a second for {} s, then {SENDERS} senders for 3 s", args.seconds));
    // Commands leave nothing behind that waits for a channel.
    commands(args, stop.clone(), &mut report).await?;
    chat(args, stop, &mut report).await?;
    Ok(report)
}

async fn chat(args: &Args, stop: Stop, report: &mut Report) -> anyhow::Result<()> {
    let (room, address) = Room::open().await?;
    let bare = BareLog::start(address).await?;
    let mut floor = calls("the floor", &room, bare.door, args.seconds, report).await?;
    drop(bare);
    let (room, address) = Room::open().await?;
    let more = format!(
        "slack: {{ team_id: TBENCH, bot_token_file: SECRET, signing_secret_file: SECRET, api_url: \"http://{address}/api\", \
         rate: {{ burst: 100000, per_second: 100000 }} }}\n\
         channels: {{ bench: {{ platform: slack, id: CBENCH }} }}\ndefault_channels: [bench]\n\
         routes: [ {{ name: bench, incident: {{ group_by: [alertname, instance] }} }} ]\n"
    );
    let bed = Bed::start_again(args.common.store.as_deref(), Roles::ALL, &more, stop).await?;
    let mut ours = calls("chat", &room, bed.door, args.seconds, report).await?;
    bed.stop().await;
    report.times("alert to chat call", &mut ours.slow);
    report.times("bare log to chat call", &mut floor.slow);
    report.add("chat call p50 per bare log's", median(&ours.slow) / median(&floor.slow), "");
    report.add("chat calls sustained", ours.sustained, "calls/s");
    report.add("bare log's chat calls", floor.sustained, "calls/s");
    report.add("chat calls per bare log's", ours.sustained / floor.sustained, "");
    Ok(())
}

/// How soon the chat platform was called.
struct Calls {
    /// While alerts came slowly.
    slow: Vec<Duration>,
    /// Calls a second while they came fast.
    sustained: f64,
}

/// Sends alerts and waits until the chat platform has heard of each.
async fn calls(what: &'static str, room: &Room, door: Door, seconds: u64, report: &mut Report) -> anyhow::Result<Calls> {
    let (slow, fast) = send(door, seconds, CHAT).await?;
    let sent = slow.len() + fast.len();
    let mut progress = Progress::new(what);
    let until = Instant::now() + Duration::from_secs(120);
    while room.heard().len() < sent && Instant::now() < until {
        progress.show(room.heard().len() as f64 / sent as f64, "calls");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(progress);
    let heard = room.heard();
    if heard.len() < sent {
        report.wrong(format!("{what}: {sent} alerts were accepted and the chat heard of {}", heard.len()));
    }
    let wait = |(n, at): (&u64, &(Instant, Timestamp))| heard.get(n).map(|heard| heard.saturating_duration_since(at.0));
    let began = fast.values().map(|(at, _)| *at).min();
    let ended = fast.keys().filter_map(|n| heard.get(n)).max();
    let took = began.zip(ended).map(|(began, ended)| ended.saturating_duration_since(began).as_secs_f64());
    Ok(Calls { slow: slow.iter().filter_map(wait).collect(), sustained: took.map_or(0.0, |took| fast.len() as f64 / took) })
}

async fn commands(args: &Args, stop: Stop, report: &mut Report) -> anyhow::Result<()> {
    let bare = bare::spawns(DATE, FORMAT, SENDERS).await?;
    let more = format!(
        "programs: [{DATE}]\nroles: {{ bench: [view, run, approve] }}\nprincipals: {{ bench: {{ roles: [bench] }} }}\n\
         routes: [ {{ name: bench, incident: {{ group_by: [alertname, instance] }}, remedy: {{ runbook: bench, mode: auto }} }} ]\n\
         runbooks: {{ bench: {{ steps: [ {{ id: date, uses: command, with: {{ program: {DATE}, args: ['{FORMAT}'] }} }} ] }} }}\n"
    );
    let bed = Bed::start(args.common.store.as_deref(), Roles::ALL, &more, stop).await?;
    let (slow, fast) = send(bed.door, args.seconds, COMMANDS).await?;
    let sent = slow.len() + fast.len();
    let mut progress = Progress::new("commands");
    loop {
        // Reading all of them each time would be measured too.
        let filter = RunFilter { active_only: true, runbook: None, before: None, limit: 100 };
        let active = bed.store.read().await?.runs(&filter).await?.len();
        let waiting = bed.store.read().await?.depths().await?.queue;
        let (many, done) = if active < 100 { ("", 1.0 - active as f64 / sent as f64) } else { (" or more", 0.5) };
        progress.show(done, &format!("{active}{many} runs are active"));
        if active == 0 && waiting == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    drop(progress);
    let began = began_at(&bed).await?;
    if began.len() < sent {
        report.wrong(format!("{sent} alerts were accepted and {} commands ran", began.len()));
    }
    let wait = |(n, at): (&u64, &(Instant, Timestamp))| began.get(n).and_then(|began| Duration::try_from(began.duration_since(at.1)).ok());
    let mut times: Vec<Duration> = slow.iter().filter_map(wait).collect();
    report.times("alert to command", &mut times);
    let first = fast.values().map(|(_, at)| *at).min();
    let last = fast.keys().filter_map(|n| began.get(n)).max();
    if let (Some(first), Some(last)) = (first, last) {
        let sustained = fast.len() as f64 / last.duration_since(first).as_secs_f64();
        report.add("commands sustained", sustained, "commands/s");
        report.add("bare spawns", bare, "spawns/s");
        report.add("commands per bare spawn", sustained / bare, "");
    }
    bed.stop().await;
    Ok(())
}

type Sent = HashMap<u64, (Instant, Timestamp)>;

/// Sends slowly, then fast, alerts with numbers from this one; when each was sent.
async fn send(door: Door, seconds: u64, first: u64) -> anyhow::Result<(Sent, Sent)> {
    let mut slow = Sent::new();
    let mut conn = Conn::new(door.address);
    let mut every = tokio::time::interval(Duration::from_millis(1000 / RATE));
    let mut progress = Progress::new("slowly");
    for n in first..first + seconds * RATE {
        every.tick().await;
        let request = door.request("Bench", n..=n, |n| n);
        let sent = (Instant::now(), SystemClock.now());
        let status = conn.send(&request).await?;
        ensure!((200..300).contains(&status), "an alert was answered with {status}");
        slow.insert(n, sent);
        progress.show((n - first) as f64 / (seconds * RATE) as f64, "");
    }
    drop(progress);
    let mut senders = tokio::task::JoinSet::new();
    let until = Instant::now() + Duration::from_secs(3);
    for sender in 0..SENDERS {
        let requests = (0..20_000).map(move |i| first + 1_000_000 * (sender + 1) + i);
        let made: Vec<(u64, Vec<u8>)> = requests.take(4_000).map(|n| (n, door.request("Bench", n..=n, |n| n))).collect();
        senders.spawn(async move {
            let mut conn = Conn::new(door.address);
            let mut sent = Sent::new();
            for (n, request) in made {
                if Instant::now() >= until {
                    break;
                }
                let at = (Instant::now(), SystemClock.now());
                if matches!(conn.send(&request).await, Ok(200..300)) {
                    sent.insert(n, at);
                }
            }
            sent
        });
    }
    let mut fast = Sent::new();
    while let Some(sent) = senders.join_next().await {
        fast.extend(sent?);
    }
    Ok((slow, fast))
}

/// When each command began, by its own clock: it printed the time.
async fn began_at(bed: &Bed) -> anyhow::Result<HashMap<u64, Timestamp>> {
    let (mut began, mut before) = (HashMap::new(), None);
    loop {
        let filter = RunFilter { active_only: false, runbook: None, before, limit: 500 };
        let page = bed.store.read().await?.runs(&filter).await?;
        let Some(last) = page.last() else { return Ok(began) };
        before = Some(last.id);
        for run in &page {
            let instance = run.inputs["context"]["labels"]["instance"].as_str().unwrap_or_default();
            let number = instance.strip_prefix(super::wire::MARK).and_then(|n| n.parse().ok());
            let attempts = bed.store.read().await?.attempts(run.id).await?;
            let output = attempts.first().and_then(|attempt| attempt.output.as_ref());
            let at = output.and_then(|output| output.data["stdout"].as_str()?.trim().parse::<i128>().ok());
            if let (Some(number), Some(at)) = (number, at.and_then(|at| Timestamp::from_nanosecond(at).ok())) {
                began.insert(number, at);
            }
        }
    }
}
