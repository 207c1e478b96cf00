//! The agent: takes orders, obeys those that are signed, in time and on its own lists, once each, and reports how they ended.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actions::{Executions, Library, Supervisor};
use anyhow::Context;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, AckKind};
use domain::action::{Action, ActionCatalogue, ActionCx, ActionError, ActionOutput, Effect};
use domain::order::{Cancel, Disobeyed, Ended, Order, SERVER, obey};
use domain::redact::Redactor;
use domain::run::Execution;
use domain::time::{Clock, SystemClock};
use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::host::Host;
use super::ledger::{Entry, Ledger};
use super::settings::Settings;
use super::token::{Checker, Signer};
use super::{Names, find_stream};
use crate::bus::Link;

/// Waits between two tries to reach NATS.
pub(super) const RECONNECT: Duration = Duration::from_secs(1);
/// An order that was signed so long ago, in seconds, is late: since then its run may have been stopped.
const LATE: i64 = 3;
/// How long a late order waits for a cancel that lies behind it on the stream.
const LISTEN: Duration = Duration::from_secs(2);
/// What is reported where nothing was begun.
const STOPPED: &str = "the run was stopped before it began";
/// An action ends by itself at its deadline; this much later it is cut off.
const CUT_OFF: Duration = Duration::from_secs(20);

/// An agent.
pub(crate) struct Agent {
    pub(super) settings: Settings,
    pub(super) names: Names,
    pub(super) signer: Signer,
    pub(super) servers: Vec<Checker>,
    pub(super) library: Library,
    pub(super) ledger: Arc<Ledger>,
    pub(super) link: Link,
    pub(super) under_way: Mutex<HashMap<String, CancellationToken>>,
    /// Held while it is decided about an execution: whether its order is obeyed, or that it never will be.
    judging: Mutex<()>,
    pub(super) hailed: Notify,
    /// How often a server asked for everything anew.
    pub(super) hails: AtomicU64,
    pub(super) stop: CancellationToken,
}

impl Agent {
    /// Reads its keys and its disk, and starts the children that it supervises.
    ///
    /// # Errors
    /// Says what is missing.
    pub(crate) async fn open(settings: Settings, stop: CancellationToken) -> anyhow::Result<Arc<Self>> {
        std::fs::create_dir_all(&settings.data_dir).with_context(|| format!("cannot make {}", settings.data_dir.display()))?;
        let supervisor = Arc::new(Supervisor::open(&settings.data_dir.join("children")).await?);
        for target in settings.targets.values().filter(|target| target.kind == "process") {
            if let Err(error) = supervisor.ensure(target).await {
                tracing::error!(target = %target.name, %error, "a supervised child did not start");
            }
        }
        let shim = vec!["/proc/self/exe".into(), actions::shim::WORD.into()];
        let executions = Arc::new(Executions::open(&settings.data_dir.join("executions"), shim)?);
        executions.get_ready();
        let library = Library::new(actions::Settings {
            programs: settings.programs.clone(),
            systemctl: settings.systemctl.clone(),
            docker: settings.docker.clone(),
            egress: settings.egress.clone(),
            executions,
            supervisor,
            clock: Arc::new(SystemClock),
            redactor: Arc::new(Redactor::detectors_only()),
        });
        Ok(Arc::new(Self {
            names: Names::new(&settings.prefix),
            signer: Signer::read(&settings.key)?,
            servers: settings.servers.iter().map(|file| Checker::read(file)).collect::<anyhow::Result<_>>()?,
            library,
            ledger: Arc::new(Ledger::open(&settings.data_dir.join("orders"))?),
            link: Link::new(settings.link.clone()),
            under_way: Mutex::default(),
            judging: Mutex::default(),
            hailed: Notify::new(),
            hails: AtomicU64::new(0),
            settings,
            stop,
        }))
    }

    /// Runs until stopped.
    ///
    /// # Errors
    /// If its disk cannot be read: it would not know what it has done.
    pub(crate) async fn run(self: Arc<Self>) -> anyhow::Result<()> {
        self.take_up()?;
        let greeter = tokio::spawn(Arc::clone(&self).greet());
        let ears = tokio::spawn(Arc::clone(&self).hear());
        tracing::info!(agent = %self.settings.name, targets = self.settings.targets.len(), "waiting for orders");
        let mut said = String::new();
        while !self.stop.is_cancelled() {
            let ended = tokio::select! {
                ended = self.take() => ended,
                () = self.stop.cancelled() => break,
            };
            let problem = ended.err().map(|error| format!("{error:#}")).unwrap_or_default();
            if problem != said {
                tracing::warn!(error = %problem, "NATS cannot be used: trying again");
                said = problem;
            }
            tokio::select! { () = tokio::time::sleep(RECONNECT) => {}, () = self.stop.cancelled() => {} }
        }
        greeter.abort();
        ears.abort();
        Ok(())
    }

    /// What an earlier start left: finished through its shim, begun if it never began and is still allowed, or said to be unknown.
    fn take_up(self: &Arc<Self>) -> anyhow::Result<()> {
        let open: Vec<Entry> = self.ledger.entries()?.into_iter().filter(|entry| entry.report.is_none()).collect();
        let wanted: HashSet<&str> = open.iter().filter_map(|entry| entry.intent.as_ref()).map(|intent| intent.id.as_str()).collect();
        for id in self.library.kept().into_iter().filter(|id| !wanted.contains(id.as_str())) {
            self.library.give_up(&id);
        }
        for entry in open {
            let lasting = self.lasting(&entry.order);
            let over = entry.order.exp <= SystemClock.now().as_second();
            match (&entry.intent, lasting || entry.order.effect == Effect::ReadOnly) {
                (Some(_), _) => self.begin(entry.order, entry.intent, false),
                (None, true) if over => self.end(&entry.order, Ended::Failed("the agent stopped before it began".to_owned())),
                (None, true) => match self.judge(&entry.order)? {
                    // It may be stopped by now.
                    Ok(()) => self.begin(entry.order, None, true),
                    Err(why) => {
                        self.audit("refused", &why, Some(&entry.order));
                        self.end(&entry.order, Ended::Refused(why));
                    }
                },
                (None, false) => self.end(&entry.order, Ended::Unknown("the agent stopped while it was under way".to_owned())),
            }
        }
        Ok(())
    }

    async fn take(self: &Arc<Self>) -> anyhow::Result<()> {
        let context = jetstream::new(self.link.client().await?);
        let stream = find_stream(&context, &self.names).await?;
        let durable = format!("agent-{}", self.settings.name);
        let config = pull::Config {
            durable_name: Some(durable.clone()),
            filter_subject: self.names.order(&self.settings.name),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs(10),
            ..pull::Config::default()
        };
        let consumer = stream.get_or_create_consumer(&durable, config).await.context("the consumer cannot be made")?;
        let mut orders = consumer.stream().heartbeat(Duration::from_secs(5)).expires(Duration::from_secs(20)).messages().await?;
        while let Some(message) = orders.next().await {
            let message = message?;
            // An order is on our disk, or refused for good, before NATS forgets it.
            let more = message.info().is_ok_and(|info| info.pending > 0);
            self.receive(&message.payload, more)?;
            message.ack_with(AckKind::Ack).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        }
        anyhow::bail!("the server ended the subscription")
    }

    /// Judges one order, or heeds a cancel; `more` lies behind it. An error is of our disk: it must come again.
    fn receive(self: &Arc<Self>, token: &[u8], more: bool) -> anyhow::Result<()> {
        let Some(order) = self.servers.iter().find_map(|server| server.check::<Order>(token)) else {
            if let Some(cancel) = self.servers.iter().find_map(|server| server.check::<Cancel>(token)) {
                return self.heed(&cancel, true);
            }
            self.audit("refused", "not signed by a server that this agent believes", None);
            return Ok(());
        };
        if order.aud != self.settings.name || order.iss != SERVER {
            // Whoever it is for reports, not we.
            self.audit("refused", &Disobeyed::NotMine(order.aud.clone()).to_string(), Some(&order));
            return Ok(());
        }
        let _one = self.judging.lock().unwrap_or_else(PoisonError::into_inner);
        match self.ledger.entry(&order.jti).and_then(|entry| Ok((entry, self.ledger.report(&order.jti)?))) {
            Ok((None, None)) => {}
            // The server asks again: what is under way will be told, and what has ended is told once more.
            Ok((Some(_), None)) => return Ok(()),
            Ok((known, Some(report))) => {
                if known.is_none() {
                    self.audit("refused", STOPPED, Some(&order));
                }
                self.send(report);
                return Ok(());
            }
            Err(error) => {
                self.audit("refused", &format!("{error:#}"), Some(&order));
                return Ok(());
            }
        }
        if let Err(why) = self.judge(&order)? {
            self.audit("refused", &why, Some(&order));
            let report = self.report(&order.jti, Ended::Refused(why));
            self.ledger.keep_refused(&order, &report)?;
            self.send(report);
            return Ok(());
        }
        self.ledger.keep_order(&order)?;
        if let Some(fence) = order.fence {
            self.ledger.raise(&order.target.name, fence)?;
        }
        self.audit("allowed", "obeyed", Some(&order));
        let late = more || SystemClock.now().as_second() - order.iat > LATE;
        self.begin(order, None, late);
        Ok(())
    }

    /// The run of an execution was stopped: what is under way for it is ended, and what has not come yet will not begin. `asked`: who stopped it may not
    /// have heard how it ended.
    ///
    /// # Errors
    /// If that cannot be kept.
    pub(super) fn heed(self: &Arc<Self>, cancel: &Cancel, asked: bool) -> anyhow::Result<()> {
        let ours = cancel.aud == self.settings.name && cancel.iss == SERVER;
        let Some(execution) = cancel.jti.strip_prefix("cancel/").filter(|_| ours) else { return Ok(()) };
        let _one = self.judging.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).get(execution) {
            if !token.is_cancelled() {
                tracing::info!(execution, "the run was stopped by a person");
                token.cancel();
            }
            return Ok(());
        }
        match self.ledger.report(execution)? {
            Some(report) if asked => self.send(report),
            None if self.ledger.entry(execution)?.is_none() => {
                let report = self.report(execution, Ended::Refused(STOPPED.to_owned()));
                self.ledger.keep_report(&report)?;
                tracing::info!(execution, "the run was stopped before its order came");
                self.send(report);
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    /// Whether an order that is for us may begin, by our own lists as they are now; if not, why. An error is of our disk.
    fn judge(&self, order: &Order) -> anyhow::Result<Result<(), String>> {
        let own = self.settings.targets.get(&order.target.name);
        let highest = self.ledger.fence(&order.target.name)?;
        let verdict = obey(order, &self.settings.name, &self.settings.actions, own, highest, SystemClock.now());
        Ok(verdict.map_err(|why| why.to_string()).and_then(|()| self.action(order)?.check(&order.with, own)))
    }

    fn action(&self, order: &Order) -> Result<&dyn Action, String> {
        self.library.get(&order.uses).ok_or_else(|| format!("this version of the agent has no action {}", order.uses))
    }

    fn lasting(&self, order: &Order) -> bool {
        order.effect != Effect::ReadOnly && self.action(order).is_ok_and(|action| action.resumable(Some(&order.target)))
    }

    /// Carries out an order that is on the disk, or takes up what was begun for it. Of a late one it may be told in a moment that it is off.
    fn begin(self: &Arc<Self>, order: Order, resume: Option<Execution>, late: bool) {
        let cancelled = CancellationToken::new();
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(order.jti.clone(), cancelled.clone());
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let host = Arc::new(Host::new(&this, &order.jti, cancelled));
            let ended = match late && this.is_stopped(&host).await {
                true => Some(Ended::Refused(STOPPED.to_owned())),
                false => this.carry_out(&order, resume, &host).await,
            };
            if let Some(ended) = ended {
                this.end(&order, ended);
            }
            this.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&order.jti);
        });
    }

    /// Whether it is told within a moment that an order is off.
    async fn is_stopped(&self, host: &Host) -> bool {
        tokio::select! {
            () = host.cancelled.cancelled() => true,
            () = tokio::time::sleep(LISTEN) => false,
        }
    }

    /// `None`: the agent stops, and what was begun goes on under its shim.
    async fn carry_out(&self, order: &Order, resume: Option<Execution>, host: &Arc<Host>) -> Option<Ended> {
        let action = match self.action(order) {
            Ok(action) => action,
            Err(why) => return Some(Ended::Refused(why)),
        };
        let taken_up = resume.is_some();
        let mut ended = self.attempt(order, action, resume, host).await?;
        // Its shim was killed so early that nothing happened: the order still holds.
        if taken_up && matches!(ended, Err(ActionError::NeverBegan(_))) && order.exp > SystemClock.now().as_second() {
            self.library.forget(&order.jti);
            ended = self.attempt(order, action, None, host).await?;
        }
        Some(ended.into())
    }

    async fn attempt(
        &self,
        order: &Order,
        action: &dyn Action,
        resume: Option<Execution>,
        host: &Arc<Host>,
    ) -> Option<Result<ActionOutput, ActionError>> {
        let deadline = Timestamp::from_second(order.deadline).unwrap_or(Timestamp::MAX);
        let cx = ActionCx {
            run: order.run,
            step: order.step.clone(),
            attempt: order.attempt,
            idempotency_key: order.key.clone(),
            execution: order.jti.clone(),
            effect: order.effect,
            fence: order.fence,
            resume,
            target: self.settings.targets.get(&order.target.name).cloned(),
            deadline,
            host: Arc::clone(host) as Arc<dyn domain::action::RunHost>,
        };
        let lasting = self.lasting(order);
        let left = Duration::try_from(deadline.duration_since(SystemClock.now())).unwrap_or_default();
        let ended = tokio::select! {
            ended = tokio::time::timeout(left + CUT_OFF, action.run(&cx, &order.with)) => ended,
            () = host.cancelled.cancelled(), if !lasting => return Some(Err(ActionError::Unknown("stopped by a person".to_owned()))),
            () = self.stop.cancelled(), if lasting => return None,
        };
        Some(ended.unwrap_or_else(|_| Err(ActionError::Unknown("it did not end in its time".to_owned()))))
    }
}
