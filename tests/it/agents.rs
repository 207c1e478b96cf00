//! Agents: the real server and a real agent over a real NATS. Whatever is killed or cut off, what was ordered happens once or people are asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use async_nats::jetstream;
use base64::Engine;
use domain::action::ActionOutput;
use domain::order::{Cancel, Ended, Order, Report, SERVER};
use domain::run::Fence;
use harness::peers::Nats;
use harness::world::{Alert, Ledger, Plan, SOON, World};
use harness::{Cmd, Proc, eventually};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::agents_order::{an_order, now};
use crate::agents_roll::agent_where;

const PROGRAM: &str = env!("CARGO_BIN_EXE_watchkeeper");

/// An agent `edge` with a target `api`.
pub(super) struct Edge {
    config: PathBuf,
    pub(super) data: PathBuf,
    /// What stands before its program, for example to start it in a network of its own.
    pub(super) prefix: Vec<String>,
    pub(super) proc: Option<Proc>,
    ended: Vec<Proc>,
}

impl Edge {
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let mut words = self.prefix.iter().map(String::as_str).chain([PROGRAM, "agent", "--config"]);
        let program = words.next().context("no program")?;
        self.proc = Some(Cmd::new(program).args(words).arg(&self.config).spawn()?);
        Ok(())
    }

    pub(super) fn kill9(&mut self) -> anyhow::Result<()> {
        let mut proc = self.proc.take().context("the agent does not run")?;
        proc.kill9()?;
        self.ended.push(proc);
        Ok(())
    }

    /// What its own audit file says of refused orders.
    pub(super) fn refusals(&self) -> Vec<String> {
        let text = fs::read_to_string(self.data.join("audit.jsonl")).unwrap_or_default();
        let rows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        rows.filter(|row| row["decision"] == "refused").filter_map(|row| row["reason"].as_str().map(str::to_owned)).collect()
    }
}

async fn keygen(dir: &Path, name: &str) -> anyhow::Result<()> {
    Cmd::new(PROGRAM).args(["agent", "keygen", name, "--dir"]).arg(dir).run(SOON).await?.ok()?;
    Ok(())
}

/// A plan whose default runbook runs `to-ledger ARGS` on the agent by itself, and the agent; it reaches NATS by `url`.
pub(super) async fn plan(nats: &Nats, url: &str, args: &[&str], timeout: &str) -> anyhow::Result<(Plan, Edge, Ledger)> {
    let (plan, mut edge, ledger) = plan_over(&json!({ "url": nats.url() }), &json!({ "url": url }), args, timeout).await?;
    edge.start()?;
    Ok((plan, edge, ledger))
}

/// The same with what stands under `nats` on either side. The agent is not started.
pub(super) async fn plan_over(server: &Value, agent: &Value, args: &[&str], timeout: &str) -> anyhow::Result<(Plan, Edge, Ledger)> {
    let mut plan = Plan::new(PROGRAM)?;
    let ledger = plan.ledger()?;
    let dir = plan.dir().to_owned();
    for name in ["orders", "edge", "stranger"] {
        keygen(&dir, name).await?;
    }
    plan.config["routes"][0]["remedy"]["mode"] = json!("auto");
    let step = json!({ "id": "write", "uses": "command", "with": { "target": "api", "program": ledger.program, "args": args }, "timeout": timeout });
    plan.merge(json!({
        "nats": server,
        "agents": { "key_file": dir.join("orders.pem"), "known": { "edge": { "public_key_file": dir.join("edge.pub") } } },
        "targets": { "api": { "kind": "systemd", "unit": "api.service", "agent": "edge" } },
        "runbooks": { "restart-service": { "steps": [step], "verify": null } },
    }));
    let data = dir.join("edge-data");
    let config = dir.join("agent.yaml");
    let agent = json!({
        "name": "edge", "nats": agent, "data_dir": data, "key_file": dir.join("edge.pem"), "servers": [dir.join("orders.pub")],
        "actions": ["command"], "programs": [ledger.program],
        "targets": { "api": { "kind": "systemd", "unit": "api.service" } },
    });
    fs::write(&config, agent.to_string())?;
    Ok((plan, Edge { config, data, prefix: vec![], proc: None, ended: vec![] }, ledger))
}

/// A run that waits for its agent, which was never there. It writes `word`.
pub(super) async fn away(word: &str, timeout: &str) -> anyhow::Result<(Nats, World, Edge, Ledger)> {
    let nats = Nats::start().await?;
    let link = json!({ "url": nats.url() });
    let (plan, edge, ledger) = plan_over(&link, &link, &[word], timeout).await?;
    let world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    Ok((nats, world, edge, ledger))
}

pub(super) async fn begun(ledger: &Ledger) -> anyhow::Result<()> {
    eventually(SOON, async || {
        ensure!(ledger.lines().len() == 1, "{:?}", ledger.lines());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_step_on_an_agents_target_is_carried_out_there() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let (plan, edge, ledger) = plan(&nats, &nats.url(), &["hello"], "60s").await?;
    let world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    let run = world.run_in("succeeded", SOON).await?;
    assert_eq!(ledger.lines(), ["hello"]);
    ensure!(edge.data.join("executions").is_dir() && !run["run"]["id"].is_null(), "it ran on the agent");
    ensure!(fs::read_to_string(edge.data.join("audit.jsonl"))?.contains("\"decision\":\"allowed\""), "and the agent says so");
    // It answers once: what it says later of the same order, even by its own key, changes nothing.
    let report = report("edge", &run, Ended::Failed("no".to_owned()))?;
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    context.publish("watchkeeper.agent.edge.report", signed(&report, &world.dir().join("edge.pem"))?.into()).await?.await?;
    eventually(SOON, async || {
        let stream = context.get_stream("WATCHKEEPER_AGENTS").await?;
        ensure!(stream.cached_info().state.messages == 0, "the report waits");
        Ok(())
    })
    .await?;
    let after = world.run_in("succeeded", SOON).await?;
    assert_eq!((&after["attempts"], after["attempts"][0]["state"].as_str()), (&run["attempts"], Some("succeeded")));
    eventually(SOON, async || {
        let health = world.http().get(format!("{}/health", world.url())).send().await?.text().await?;
        ensure!(!health.contains("not heard of"), "{health}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_partition_leaves_a_later_result_or_a_question_and_never_a_second_run() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let cable = Cable::lay(&nats.url()).await?;
    let (plan, _edge, ledger) = plan(&nats, &cable.url, &["until", "dark"], "15s").await?;
    let mut world = plan.start().await?;
    // The step's time is for the step.
    agent_where(&world, |agent| agent["here"] == true).await?;
    world.send(&[Alert::service_down()]).await?;
    begun(&ledger).await?;
    cable.cut(true).await?;
    // So that it ends while nobody can be told.
    ledger.let_go("dark")?;
    let run = world.run_in("unknown", SOON * 2).await?;
    ensure!(run["run"]["reason"].as_str().is_some_and(|reason| reason.contains("the agent edge")), "{run}");
    assert_eq!(ledger.lines(), ["until dark"]);
    cable.cut(false).await?;
    // Whoever looks after what earlier starts left asks again, and the agent tells what it had done.
    world.kill9()?;
    world.start().await?;
    world.run_in("succeeded", SOON * 3).await?;
    assert_eq!(ledger.lines(), ["until dark"]);
    Ok(())
}

/// A connection that can be cut.
pub(super) struct Cable {
    pub(super) url: String,
    cut: Arc<AtomicBool>,
}

impl Cable {
    pub(super) async fn lay(to: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("nats://{}", listener.local_addr()?);
        let (cut, to) = (Arc::new(AtomicBool::new(false)), to.trim_start_matches("nats://").to_owned());
        let watched = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (cut, to) = (Arc::clone(&watched), to.clone());
                tokio::spawn(async move {
                    if cut.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(mut far) = TcpStream::connect(to).await else { return };
                    let severed = async {
                        while !cut.load(Ordering::SeqCst) {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    };
                    tokio::select! { _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}, () = severed => {} }
                });
            }
        });
        Ok(Self { url, cut })
    }

    /// Cuts it, or mends it. Nothing gets through any more when it says that it is cut.
    pub(super) async fn cut(&self, out: bool) -> anyhow::Result<()> {
        self.cut.store(out, Ordering::SeqCst);
        eventually(SOON, async || {
            // Beside its own there is one of whoever accepts, and one of each connection.
            ensure!(!out || Arc::strong_count(&self.cut) <= 2, "some are still connected");
            Ok(())
        })
        .await
    }
}

/// What an agent reports of the first step of a run.
pub(super) fn report(agent: &str, run: &Value, ended: Ended) -> anyhow::Result<Report> {
    Ok(Report {
        iss: agent.to_owned(),
        aud: SERVER.to_owned(),
        jti: format!("{}-0-1", run["run"]["id"].as_str().context("no id")?),
        iat: 0,
        ended,
    })
}

pub(super) fn signed(claims: &impl serde::Serialize, key: &Path) -> anyhow::Result<String> {
    let pem = fs::read_to_string(key)?;
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let key = jsonwebtoken::EncodingKey::from_ed_der(&base64::engine::general_purpose::STANDARD.decode(body)?);
    Ok(jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA), claims, &key)?)
}

#[tokio::test]
async fn orders_that_are_not_to_be_obeyed_are_refused_and_written_down() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let (plan, edge, ledger) = plan(&nats, &nats.url(), &["hello"], "60s").await?;
    let dir = plan.dir().to_owned();
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    eventually(SOON, async || Ok(context.get_stream("WATCHKEEPER_AGENTS").await?)).await?;
    let now = now()?;
    let mut number = 0;
    let mut order = |change: &dyn Fn(&mut Order)| {
        number += 1;
        let mut order = an_order(&format!("test-{number}"), now, &ledger);
        change(&mut order);
        order
    };
    let good = order(&|_| {});
    let cases = [
        (order(&|_| {}), "stranger.pem", "not signed by a server"),
        (order(&|order| order.exp = now - 1), "orders.pem", "expired"),
        (order(&|order| order.aud = "other".to_owned()), "orders.pem", "is for the agent other"),
        (order(&|order| order.fence = Some(Fence { epoch: 1, n: 4 })), "orders.pem", "comes too late"),
        (order(&|order| order.uses = "http.request".to_owned()), "orders.pem", "list of `actions` lacks http.request"),
        (order(&|order| order.with = json!({ "program": "/bin/sh" })), "orders.pem", "/bin/sh is not allowed"),
        (order(&|order| order.target.name = "db".to_owned()), "orders.pem", "`targets` lack db"),
        (
            order(&|order| drop(order.target.fields.insert("unit".to_owned(), json!("sshd.service")))),
            "orders.pem",
            "not what the order says",
        ),
    ];
    let tell = async |order: &Order, key: &str| {
        context.publish("watchkeeper.agent.edge.order", signed(order, &dir.join(key))?.into()).await?.await?;
        anyhow::Ok(())
    };
    tell(&good, "orders.pem").await?;
    begun(&ledger).await?;
    for (order, key, word) in &cases {
        tell(order, key).await?;
        eventually(SOON, async || {
            let refusals = edge.refusals();
            ensure!(refusals.last().is_some_and(|last| last.contains(word)), "no {word:?} in {refusals:?}");
            Ok(())
        })
        .await?;
    }
    // One that was stopped before it came.
    let stopped = order(&|order| order.jti = "test-stopped".to_owned());
    let cancel = Cancel { iss: SERVER.to_owned(), aud: "edge".to_owned(), jti: "cancel/test-stopped".to_owned(), iat: now };
    let client = async_nats::connect(nats.url()).await?;
    client.publish("watchkeeper.agent.edge.cancel", signed(&cancel, &dir.join("orders.pem"))?.into()).await?;
    client.flush().await?;
    // No sign shows that the agent has heard it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    tell(&stopped, "orders.pem").await?;
    eventually(SOON, async || {
        ensure!(edge.refusals().last().is_some_and(|last| last.contains("stopped before it began")), "{:?}", edge.refusals());
        Ok(())
    })
    .await?;
    // And the good one again, and again: it was carried out.
    for _ in 0..3 {
        tell(&good, "orders.pem").await?;
    }
    // Time in which nothing may happen.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(ledger.lines(), ["obeyed"]);
    assert_eq!(edge.refusals().len(), cases.len() + 1);
    Ok(())
}

#[tokio::test]
async fn a_report_that_its_agent_did_not_sign_counts_for_nothing() -> anyhow::Result<()> {
    let nats = Nats::start().await?;
    let (plan, mut edge, ledger) = plan(&nats, &nats.url(), &["hello"], "12s").await?;
    let dir = plan.dir().to_owned();
    let world: World = plan.start().await?;
    agent_where(&world, |agent| agent["here"] == true).await?;
    // It was there a moment ago, so it gets its order.
    edge.kill9()?;
    world.send(&[Alert::service_down()]).await?;
    let run = world.run_in("running", SOON).await?;
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    let token = signed(&report("edge", &run, Ended::Done(ActionOutput::default()))?, &dir.join("stranger.pem"))?;
    for agent in ["nobody", "edge"] {
        let subject = format!("watchkeeper.agent.{agent}.report");
        eventually(SOON, async || Ok(context.publish(subject.clone(), token.clone().into()).await?.await?)).await?;
    }
    world.run_in("unknown", SOON * 2).await?;
    ensure!(ledger.lines().is_empty(), "{:?}", ledger.lines());
    let audit = world.audit().await?;
    ensure!(audit.iter().any(|row| row["actor"] == "agent:edge" && row["reason"] == "forged"), "{audit:?}");
    ensure!(!audit.iter().any(|row| row["actor"] == "agent:nobody"), "whoever has any name can fill the log: {audit:?}");
    Ok(())
}
