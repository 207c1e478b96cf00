//! The server's side of an order: signs it, puts it on the stream, and waits for the report, through restarts of either side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use domain::action::{ActionCx, ActionError, ActionOutput, Effect};
use domain::approval::ApprovalState;
use domain::canonical::digest;
use domain::id::uuid_at;
use domain::order::{Cancel, Ended, Order, Report, SERVER};
use domain::run::Execution;
use domain::time::Clock;
use jiff::SignedDuration;
use serde_json::Value;
use store::Store;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::roll::{Fit, Roll};
use super::token::Signer;
use super::{Names, find_stream, put};
use crate::bus::Link;
use crate::config::AgentsConfig;

/// How often the store is asked for the report.
const ASK: Duration = Duration::from_millis(200);
/// How often an order is put on the stream again while nothing is heard of it: the agent may have been away, or the stream deleted. Longer than the
/// stream's memory of its id would make it be dropped there, so the id changes with each.
const AGAIN: Duration = Duration::from_secs(15);
/// How long after the deadline a report is waited for: an agent needs ten seconds to end a command that does not want to.
const GRACE: SignedDuration = SignedDuration::from_secs(15);

/// Gives orders.
pub(crate) struct Remote {
    link: Link,
    names: Names,
    signer: Signer,
    roll: Arc<Roll>,
    store: Store,
    clock: Arc<dyn Clock>,
}

impl Remote {
    /// # Errors
    /// If a key cannot be read.
    pub(crate) fn new(config: &AgentsConfig, link: Link, roll: Arc<Roll>, store: Store, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        Ok(Self { link, names: Names::new(&config.prefix), signer: Signer::read(&config.key)?, roll, store, clock })
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Whether an agent of this name is configured.
    pub(super) fn knows(&self, agent: &str) -> bool {
        self.roll.key(agent).is_some()
    }

    /// A report whose signature is that of the agent by whose subject it came.
    pub(super) fn believe(&self, agent: &str, token: &[u8]) -> Option<Report> {
        let report: Report = self.roll.key(agent)?.check(token)?;
        (report.iss == agent && report.aud == SERVER).then_some(report)
    }

    /// Has an agent carry out a step, or takes up what it was told before.
    ///
    /// # Errors
    /// As the action's own; `Unknown` if the agent was told and says nothing until some time after the deadline.
    pub(crate) async fn run(&self, agent: &str, uses: &str, cx: &ActionCx, with: &Value) -> Result<ActionOutput, ActionError> {
        if !self.knows(agent) {
            return Err(ActionError::Refused(format!("there is no agent {agent} under `agents.known`")));
        }
        let (mut order, over) = self.order(agent, uses, cx, with).await?;
        if cx.effect == Effect::ReadOnly {
            // A look may be repeated under one name, and each is a new one.
            order.jti = look(&order.jti, uuid_at(self.clock.now()));
        } else if cx.resume.is_none() {
            let about = Execution { id: order.jti.clone(), boot: place(agent), pid: 0, began: 0, digest: content(&order) };
            cx.host.intend(&about).await.map_err(ActionError::Failed)?;
        } else if cx.resume.as_ref().is_some_and(|known| known.digest != content(&order)) {
            return Err(ActionError::Unknown("what was ordered is not what the plan says now".to_owned()));
        }
        let talk = Talk { stopped: CancellationToken::new(), sent: CancellationToken::new() };
        if over {
            talk.stopped.cancel();
        }
        if cx.resume.is_some() {
            // What an earlier start of ours may have sent must be asked after.
            talk.sent.cancel();
        }
        tokio::select! {
            ended = self.wait(agent, &order, cx, &talk) => ended,
            never = self.tell_cancel(agent, &order, cx, &talk) => match never {},
        }
    }

    /// The order, and whether its run was cancelled or has ended.
    async fn order(&self, agent: &str, uses: &str, cx: &ActionCx, with: &Value) -> Result<(Order, bool), ActionError> {
        let target = cx.target.clone().ok_or_else(|| ActionError::Refused("an order needs a target".to_owned()))?;
        let read = async {
            let mut tx = self.store.read().await?;
            let run = tx.run(cx.run).await?;
            // The last that was given: one that is asked for afterwards changes nothing about what was ordered.
            let approval = tx.approvals_of(cx.run).await?.into_iter().rfind(|approval| approval.state == ApprovalState::Approved);
            Ok::<_, store::Error>((run, approval))
        };
        let (run, approval) = read.await.map_err(|error| ActionError::Failed(format!("the run cannot be read: {error}")))?;
        let run = run.ok_or_else(|| ActionError::Refused("the run is gone".to_owned()))?;
        let over = run.is_ending() || !run.state.is_active();
        let order = Order {
            iss: SERVER.to_owned(),
            aud: agent.to_owned(),
            jti: cx.execution.clone(),
            iat: self.clock.now().as_second(),
            exp: cx.deadline.as_second(),
            run: cx.run,
            step: cx.step.clone(),
            attempt: cx.attempt,
            key: cx.idempotency_key.clone(),
            uses: uses.to_owned(),
            with: with.clone(),
            target,
            effect: cx.effect,
            deadline: cx.deadline.as_second(),
            plan_digest: run.plan_digest,
            approvals: approval.iter().map(|approval| approval.digest().to_string()).collect(),
            fence: cx.fence,
        };
        Ok((order, over))
    }

    /// Puts the order on the stream, again and again under one execution, until the report is in the store. It goes to an agent that announced what it
    /// takes; until then it stays here, where it can be taken back.
    async fn wait(&self, agent: &str, order: &Order, cx: &ActionCx, talk: &Talk) -> Result<ActionOutput, ActionError> {
        let until = cx.deadline.max(self.clock.now()) + GRACE;
        let (mut told, mut asked, mut problem) = (None::<Instant>, 0_u32, None);
        loop {
            match self.store.read().await {
                Ok(mut tx) => match tx.agent_report(&order.jti).await {
                    Ok(Some(report)) => return taken(report),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, "a report cannot be looked for"),
                },
                Err(error) => tracing::warn!(%error, "a report cannot be looked for"),
            }
            let (sent, stopped) = (talk.sent.is_cancelled(), talk.stopped.is_cancelled());
            if !sent && stopped {
                return Err(ActionError::Failed(format!("the run was stopped before the agent {agent} was told: nothing was begun")));
            }
            let now = self.clock.now();
            if now >= if sent { until } else { cx.deadline } {
                let why = problem.unwrap_or_else(|| "it says nothing".to_owned());
                return Err(if sent {
                    ActionError::Unknown(format!("the agent {agent} was told, and its report did not come: {why}"))
                } else {
                    ActionError::Failed(format!("the agent {agent} was not told in the step's time, so nothing was begun: {why}"))
                });
            }
            // Of a run that was cancelled nothing is ordered any more, not even again.
            if !stopped && told.is_none_or(|at| at.elapsed() >= AGAIN) {
                match self.roll.fit(agent, &order.uses, &order.target.name) {
                    Fit::No(why) if !sent => {
                        return Err(ActionError::Refused(format!("no order was sent to the agent {agent}: {why}")));
                    }
                    Fit::Unheard(why) if !sent => problem = Some(why),
                    _ => match self.tell(agent, order, asked, &talk.sent).await {
                        Ok(()) => {
                            (told, problem) = (Some(Instant::now()), None);
                            asked += 1;
                        }
                        Err(error) => {
                            problem = Some(format!("{error:#}"));
                            tokio::time::sleep(ASK * 5).await;
                        }
                    },
                }
            }
            tokio::time::sleep(ASK).await;
        }
    }

    /// `sent` says from then on that the agent may have got it.
    async fn tell(&self, agent: &str, order: &Order, asked: u32, sent: &CancellationToken) -> anyhow::Result<()> {
        let context = jetstream::new(self.link.client().await?);
        find_stream(&context, &self.names).await?;
        let id = format!("{}/{}/{asked}", order.jti, self.clock.now().as_second());
        let token = self.signer.sign(order)?;
        sent.cancel();
        put(&context, self.names.order(agent), id, token).await
    }

    /// Tells the agent when the run is cancelled, again and again: its report says how that ended. Who listens hears of it at once; on the stream it lies
    /// behind the order for an agent that comes later, and for the next start of one that had no time to obey it.
    async fn tell_cancel(&self, agent: &str, order: &Order, cx: &ActionCx, talk: &Talk) -> std::convert::Infallible {
        if !talk.stopped.is_cancelled() {
            cx.host.cancelled().await;
            talk.stopped.cancel();
        }
        // Who was never told needs no cancel, and will not be told.
        talk.sent.cancelled().await;
        let mut laid = None::<Instant>;
        loop {
            let cancel = Cancel {
                iss: SERVER.to_owned(),
                aud: agent.to_owned(),
                jti: format!("cancel/{}", order.jti),
                iat: self.clock.now().as_second(),
            };
            let told = async {
                let client = self.link.client().await?;
                let token = self.signer.sign(&cancel)?;
                client.publish(self.names.cancel(agent), token.clone().into()).await?;
                if laid.is_none_or(|at| at.elapsed() >= AGAIN) {
                    // One in a minute is enough for an agent that stays away.
                    let id = format!("{}/{}", cancel.jti, cancel.iat / 60);
                    put(&jetstream::new(client), self.names.order(agent), id, token).await?;
                    laid = Some(Instant::now());
                }
                anyhow::Ok(())
            };
            if let Err(error) = told.await {
                tracing::warn!(agent, error = %format!("{error:#}"), "a cancel cannot be told");
            }
            tokio::time::sleep(ASK * 10).await;
        }
    }
}

/// Where a step is that an agent was told to carry out: in the place of a boot id.
pub(super) fn place(agent: &str) -> String {
    format!("agent/{agent}")
}

/// The name of one look of an execution.
fn look(execution: &str, one: Uuid) -> String {
    format!("{execution}-{}", one.simple())
}

/// Whether an execution is a look.
pub(super) fn is_look(execution: &str) -> bool {
    execution.rsplit_once('-').is_some_and(|(_, last)| last.len() == 32 && Uuid::try_parse(last).is_ok())
}

/// What is known of a conversation with an agent.
struct Talk {
    /// The run was cancelled, or has ended.
    stopped: CancellationToken,
    /// The agent may have got the order.
    sent: CancellationToken,
}

/// What an order says of its content: not when it was signed.
fn content(order: &Order) -> String {
    digest(&Order { iat: 0, exp: 0, deadline: 0, ..order.clone() }).to_string()
}

/// What a report says, as an action that was carried out here would.
fn taken(report: Report) -> Result<ActionOutput, ActionError> {
    match report.ended {
        Ended::Refused(why) => Err(ActionError::Refused(format!("the agent {} refuses: {why}", report.iss))),
        ended => ended.into(),
    }
}
