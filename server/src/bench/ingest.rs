//! `bench ingest`: accepted alerts a second, each durable before it is answered.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::lifecycle::Stop;
use crate::roles::Roles;

use super::Common;
use super::bed::{Bed, body, request};
use super::report::{Progress, Report, resident};
use super::wire::Conn;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    /// How many send at once, each waiting for its answer.
    #[arg(long, default_value_t = 16)]
    senders: u64,
    /// Alerts per body.
    #[arg(long, default_value_t = 1)]
    alerts: u64,
    /// How long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Say the same alerts again and again.
    #[arg(long)]
    repeat: bool,
    /// Accept only: nothing is decided meanwhile, as in a server with `--only gateway`.
    #[arg(long)]
    accept_only: bool,
    /// First store so many alerts, and wait until they are decided.
    #[arg(long, default_value_t = 0)]
    history: u64,
    /// Ask this server instead of one of our own: any that takes Alertmanager's webhook.
    #[arg(long, conflicts_with_all = ["store", "history", "accept_only"])]
    url: Option<String>,
    /// What `--url` takes: Alertmanager's webhook, or the bare list of alerts that Alertmanager's own API takes.
    #[arg(long, value_enum, default_value_t, requires = "url")]
    form: Form,
    /// A bearer token for `--url`.
    #[arg(long, requires = "url")]
    bearer: Option<String>,
}

/// What a body looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// As Alertmanager posts to a receiver.
    #[default]
    Webhook,
    /// As Prometheus posts to Alertmanager.
    Alerts,
}

/// Alerts of one body while a history is made.
const HISTORY_BODY: u64 = 500;
const ROUTES: &str = "routes: [ { name: bench, incident: { group_by: [alertname] } } ]\n";

/// Where requests go, and how they are made.
enum Target {
    Own(Box<Bed>),
    Other { address: SocketAddr, path: String, bearer: Option<String>, form: Form },
}

impl Target {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Own(bed) => bed.door.address,
            Self::Other { address, .. } => *address,
        }
    }

    fn request(&self, numbers: impl Iterator<Item = u64>) -> Vec<u8> {
        match self {
            Self::Own(bed) => bed.door.request("Bench", numbers, |_| 0),
            Self::Other { address, path, bearer, form } => {
                let whole = body("Bench", numbers, |_| 0);
                let list = whole.split_once("\"alerts\":").and_then(|(_, rest)| rest.strip_suffix('}'));
                request(*address, path, bearer.as_deref(), if *form == Form::Alerts { list.unwrap_or_default() } else { &whole })
            }
        }
    }
}

/// Measures.
pub(super) async fn run(args: &Args, stop: Stop) -> anyhow::Result<Report> {
    let roles = if args.accept_only { Roles { worker: false, bot: false, ..Roles::ALL } } else { Roles::ALL };
    let target = match &args.url {
        Some(url) => other(url, args.bearer.clone(), args.form)?,
        None => Target::Own(Box::new(Bed::start(args.common.store.as_deref(), roles, ROUTES, stop).await?)),
    };
    let mut report = Report::new(format!("ingest: {} senders, {} alerts per body, {} s", args.senders, args.alerts, args.seconds));
    let begin = history(args, &target).await?;
    let target = Arc::new(target);
    let (next, over) = (Arc::new(AtomicU64::new(begin)), Arc::new(AtomicBool::new(false)));
    let began = Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..args.senders {
        let (target, next, over) = (Arc::clone(&target), Arc::clone(&next), Arc::clone(&over));
        let (alerts, repeat) = (args.alerts, args.repeat);
        senders.spawn(async move {
            let mut conn = Conn::new(target.address());
            let (mut times, mut refused, mut broken) = (vec![], 0_u64, 0_u64);
            let fixed = repeat.then(|| target.request(sender * alerts..(sender + 1) * alerts));
            while !over.load(Ordering::Relaxed) {
                let fresh;
                let request = match &fixed {
                    Some(request) => request,
                    None => {
                        let first = next.fetch_add(alerts, Ordering::Relaxed);
                        fresh = target.request(first..first + alerts);
                        &fresh
                    }
                };
                let asked = Instant::now();
                match conn.send(request).await {
                    Ok(200..300) => times.push(asked.elapsed()),
                    Ok(_) => refused += 1,
                    Err(_) => broken += 1,
                }
            }
            (times, refused, broken)
        });
    }
    let mut progress = Progress::new("ingest");
    let whole = Duration::from_secs(args.seconds);
    while began.elapsed() < whole {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let sent = next.load(Ordering::Relaxed) - begin;
        progress.show(began.elapsed().as_secs_f64() / whole.as_secs_f64(), &format!("{sent} alerts"));
    }
    over.store(true, Ordering::Relaxed);
    let (mut times, mut refused, mut broken) = (vec![], 0, 0);
    while let Some(ended) = senders.join_next().await {
        let (more, no, cut) = ended?;
        times.extend(more);
        refused += no;
        broken += cut;
    }
    let took = began.elapsed().as_secs_f64();
    drop(progress);
    let count = times.len() as f64;
    report.add("accepted requests", count / took, "req/s");
    report.add("accepted alerts", count * args.alerts as f64 / took, "alerts/s");
    report.times("accept", &mut times);
    report.add("refused", refused as f64, "");
    report.add("broken", broken as f64, "");
    if let Some(Target::Own(bed)) = Arc::into_inner(target) {
        report.word("store", &bed.store.durability());
        if !args.accept_only {
            let began = Instant::now();
            bed.decided(|_| {}).await?;
            report.add("decided after", began.elapsed().as_secs_f64(), "s");
            let (held, _) = bed.held().await?;
            let wanted = if args.repeat { (args.senders * args.alerts) as i64 } else { (count as u64 * args.alerts + begin) as i64 };
            if held < wanted {
                report.wrong(format!("{wanted} alerts were accepted and {held} are there"));
            }
        }
        report.add("resident", resident(), "MB");
        bed.stop().await;
    }
    Ok(report)
}

/// Fills the store; returns the first number that was not used.
async fn history(args: &Args, target: &Target) -> anyhow::Result<u64> {
    let Target::Own(bed) = target else { return Ok(0) };
    let mut progress = Progress::new("history");
    let mut conn = Conn::new(bed.door.address);
    let mut first = 0;
    while first < args.history {
        let count = HISTORY_BODY.min(args.history - first);
        let status = conn.send(&target.request(first..first + count)).await?;
        if status == 503 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        ensure!((200..300).contains(&status), "an alert of the history was answered with {status}");
        first += count;
        progress.show(first as f64 / args.history as f64, &format!("{first} stored"));
    }
    if args.history > 0 && !args.accept_only {
        bed.decided(|waiting| progress.show(1.0 - waiting as f64 / args.history as f64, &format!("{waiting} to be decided"))).await?;
    }
    Ok(first)
}

fn other(url: &str, bearer: Option<String>, form: Form) -> anyhow::Result<Target> {
    let url = reqwest::Url::parse(url).context("--url")?;
    ensure!(url.scheme() == "http", "--url: only http:// can be asked at the speed that is wanted here");
    let host = url.host_str().context("--url names no host")?;
    let port = url.port_or_known_default().unwrap_or(80);
    let address = (host, port).to_socket_addrs()?.next().with_context(|| format!("{host} has no address"))?;
    let path = [url.path(), url.query().map(|query| format!("?{query}")).unwrap_or_default().as_str()].concat();
    Ok(Target::Other { address, path, bearer, form })
}
