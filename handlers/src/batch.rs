//! One transaction's worth of decisions: what was read, what changed, what follows. Written in one go at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use domain::act::PAUSED_FLAG;
use domain::alert::Alert;
use domain::approval::Approval;
use domain::audit::{AuditDecision, NewAudit};
use domain::event::Payload;
use domain::id::{IncidentId, RunId};
use domain::incident::{Follow, Happening, Incident, Unchanged};
use domain::job::{NewJob, Urgency};
use domain::rules::RuleSet;
use domain::run::Run;
use domain::timeline::{Entry, EntryKind};
use jiff::Timestamp;
use serde_json::{Value, json};
use store::{Asks, Known, ToStart, Tx};

use crate::Cx;

mod writing;

pub(crate) use writing::thread_job;

/// The state of a transaction in the making.
pub(crate) struct Batch<'a> {
    pub(crate) cx: &'a Cx,
    pub(crate) rules: Arc<RuleSet>,
    pub(crate) tx: Tx,
    pub(crate) now: Timestamp,
    /// None of those that nobody ever heard of.
    alerts: HashMap<(String, String), Option<Alert>>,
    dirty_alerts: HashMap<(String, String), ()>,
    incidents: HashMap<IncidentId, Held>,
    by_group: HashMap<(String, String), Option<IncidentId>>,
    /// Flags as they were read or set, and whether an alert of an incident fires, as it was read.
    flags: HashMap<String, Option<Value>>,
    fires: HashMap<IncidentId, bool>,
    entries: Vec<Entry>,
    jobs: BTreeMap<(&'static str, String), NewJob>,
    /// Those of them that are the first of their kind and key, because what they are about was made here.
    first: BTreeSet<(&'static str, String)>,
    audits: Vec<NewAudit>,
    /// Runs and requests for approval that were made here.
    runs: Vec<Run>,
    approvals: Vec<Approval>,
    folded: BTreeMap<(IncidentId, bool), Folded>,
    /// Incidents whose cards wait for a person: told before others.
    urgent: BTreeSet<IncidentId>,
}

/// An incident as it was read, and as it is now.
struct Held {
    now: Incident,
    /// The version in the database; `None` if it is new.
    stored: Option<i64>,
}

/// Alerts of one incident that fired (or resolved) in this batch: told in one line when they are many.
#[derive(Default)]
struct Folded {
    count: usize,
    first: Vec<String>,
}

/// More than this many alerts of one batch are told in one line.
const FOLD_ABOVE: usize = 3;

impl<'a> Batch<'a> {
    /// Begins a transaction.
    pub(crate) async fn begin(cx: &'a Cx) -> Result<Self, store::Error> {
        Ok(Self::over(cx, cx.rules.load_full(), cx.store.begin().await?))
    }

    /// Goes on with a transaction, under these rules.
    pub(crate) fn over(cx: &'a Cx, rules: Arc<RuleSet>, tx: Tx) -> Self {
        Self {
            cx,
            rules,
            tx,
            now: cx.clock.now(),
            alerts: HashMap::new(),
            dirty_alerts: HashMap::new(),
            incidents: HashMap::new(),
            by_group: HashMap::new(),
            flags: HashMap::new(),
            fires: HashMap::new(),
            entries: Vec::new(),
            jobs: BTreeMap::new(),
            first: BTreeSet::new(),
            audits: Vec::new(),
            runs: Vec::new(),
            approvals: Vec::new(),
            folded: BTreeMap::new(),
            urgent: BTreeSet::new(),
        }
    }

    /// Reads what is asked and not known, in one trip.
    pub(crate) async fn preload(&mut self, mut asks: Asks) -> Result<(), store::Error> {
        asks.alerts.retain(|key| !self.alerts.contains_key(key));
        asks.groups.retain(|key| !self.by_group.contains_key(key));
        let known = self.tx.known(&asks).await?;
        self.learn(asks, known);
        Ok(())
    }

    /// Keeps what this transaction read.
    pub(crate) fn learn(&mut self, asks: Asks, mut known: Known) {
        for key in asks.alerts {
            let alert = known.alerts.remove(&key);
            self.alerts.insert(key, alert);
        }
        for key in asks.groups {
            let incident = known.incidents.remove(&key);
            self.by_group.insert(key, incident.as_ref().map(|incident| incident.id));
            if let Some(incident) = incident {
                self.hold(incident);
            }
        }
    }

    /// What is known so far of the alert that an event is about, without asking.
    pub(crate) fn known_alert(&self, source: &str, payload: &Payload) -> Option<&Alert> {
        let Payload::Alert(sighting) = payload else { return None };
        self.alerts.get(&(source.to_owned(), sighting.fingerprint.clone()))?.as_ref()
    }

    /// An alert as it stands, if it was ever heard of.
    pub(crate) async fn alert(&mut self, source: &str, fingerprint: &str) -> Result<Option<Alert>, store::Error> {
        let key = (source.to_owned(), fingerprint.to_owned());
        if !self.alerts.contains_key(&key) {
            let found = self.tx.alerts(std::slice::from_ref(&key)).await?.remove(&key);
            self.alerts.insert(key.clone(), found);
        }
        Ok(self.alerts.get(&key).cloned().flatten())
    }

    /// Keeps an alert's new state.
    pub(crate) fn put_alert(&mut self, alert: Alert) {
        let key = (alert.source.clone(), alert.fingerprint.clone());
        self.dirty_alerts.insert(key.clone(), ());
        self.alerts.insert(key, Some(alert));
    }

    /// The incident that gathers this grouping key now: open, or resolved and not closed.
    pub(crate) async fn latest_incident(&mut self, source: &str, group_key: &str) -> Result<Option<Incident>, store::Error> {
        let key = (source.to_owned(), group_key.to_owned());
        self.preload(Asks { groups: BTreeSet::from([key.clone()]), ..Asks::default() }).await?;
        Ok(self.by_group.get(&key).copied().flatten().and_then(|id| self.incidents.get(&id)).map(|held| held.now.clone()))
    }

    /// An incident by id.
    pub(crate) async fn incident(&mut self, id: IncidentId) -> Result<Option<Incident>, store::Error> {
        if !self.incidents.contains_key(&id)
            && let Some(incident) = self.tx.incident(id).await?
        {
            self.hold(incident);
        }
        Ok(self.incidents.get(&id).map(|held| held.now.clone()))
    }

    /// Keeps a new incident.
    pub(crate) fn insert_incident(&mut self, incident: Incident) {
        self.by_group.insert((incident.source.clone(), incident.group_key.clone()), Some(incident.id));
        self.incidents.insert(incident.id, Held { now: incident, stored: None });
    }

    /// Keeps an incident's new state. Its card follows.
    pub(crate) fn put_incident(&mut self, incident: Incident) {
        if let Some(held) = self.incidents.get_mut(&incident.id) {
            held.now = incident;
        }
    }

    /// Lets `happening` happen to an incident, and queues what follows.
    pub(crate) async fn happen(&mut self, id: IncidentId, happening: &Happening) -> Result<Result<Incident, Unchanged>, store::Error> {
        let Some(before) = self.incident(id).await? else { return Ok(Err(Unchanged::Passed)) };
        let (after, follow) = match before.on(happening, self.now, &self.rules.waits) {
            Ok(changed) => changed,
            Err(unchanged) => return Ok(Err(unchanged)),
        };
        for follow in follow {
            let (what, due_at) = match follow {
                Follow::LookWhenQuiet(at) => ("quiet", at),
                Follow::LookWhenAged(at) => ("aged", at),
            };
            self.job(NewJob {
                kind: "incident.look",
                key: format!("{id}/{what}"),
                due_at,
                urgency: Urgency::Action,
                payload: json!({ "incident": id, "what": what }),
            });
        }
        self.put_incident(after.clone());
        Ok(Ok(after))
    }

    /// Changes what an incident's card shows without a change of state.
    pub(crate) async fn note_automation(&mut self, id: IncidentId, line: String) -> Result<(), store::Error> {
        if let Some(mut incident) = self.incident(id).await? {
            incident.automation = Some(line);
            incident.version += 1;
            self.put_incident(incident);
        }
        Ok(())
    }

    /// The card of an incident shows something new that the incident itself does not hold (an approval, a vote).
    pub(crate) async fn touch(&mut self, id: IncidentId) -> Result<(), store::Error> {
        if let Some(mut incident) = self.incident(id).await? {
            incident.version += 1;
            self.put_incident(incident);
        }
        Ok(())
    }

    /// A person is waited for: the incident's cards are told before others.
    pub(crate) fn hurry(&mut self, id: IncidentId) {
        self.urgent.insert(id);
    }

    /// A run with what its guards ask, in one trip.
    pub(crate) async fn run_to_start(&mut self, id: RunId) -> Result<Option<Run>, store::Error> {
        let Some(ToStart { run, flag, incident, fires }) = self.tx.run_to_start(id, PAUSED_FLAG).await? else { return Ok(None) };
        self.flags.insert(PAUSED_FLAG.to_owned(), flag);
        if let Some(incident) = incident {
            self.fires.insert(incident.id, fires);
            self.hold(incident);
        }
        Ok(Some(run))
    }

    /// A flag's value, if it was ever set.
    pub(crate) async fn flag(&mut self, key: &str) -> Result<Option<Value>, store::Error> {
        if !self.flags.contains_key(key) {
            let value = self.tx.flag(key).await?;
            self.flags.insert(key.to_owned(), value);
        }
        Ok(self.flags.get(key).cloned().flatten())
    }

    /// Sets a flag.
    pub(crate) async fn set_flag(&mut self, key: &str, value: Value) -> Result<(), store::Error> {
        self.tx.set_flag(key, &value).await?;
        self.flags.insert(key.to_owned(), Some(value));
        Ok(())
    }

    /// Whether an alert of an incident fires, as they stood before this batch.
    pub(crate) async fn fires(&mut self, incident: IncidentId) -> Result<bool, store::Error> {
        match self.fires.get(&incident) {
            Some(fires) => Ok(*fires),
            None => self.tx.fires(incident).await,
        }
    }

    /// An incident's runs, oldest first. Of one that was made here nobody else has any.
    pub(crate) async fn runs_of(&mut self, incident: IncidentId) -> Result<Vec<Run>, store::Error> {
        if self.incidents.get(&incident).is_some_and(|held| held.stored.is_none()) {
            return Ok(self.runs.iter().filter(|run| run.incident == Some(incident)).cloned().collect());
        }
        self.tx.runs_of(incident).await
    }

    /// Stores a new run.
    pub(crate) async fn insert_run(&mut self, run: &Run) -> Result<(), store::Error> {
        self.runs.push(run.clone());
        self.tx.insert_run(run).await
    }

    /// Stores a changed run.
    pub(crate) async fn put_run(&mut self, run: &Run, expected_version: i64) -> Result<(), store::Error> {
        if let Some(known) = self.runs.iter_mut().find(|known| known.id == run.id) {
            *known = run.clone();
        }
        self.tx.put_run(run, expected_version).await
    }

    /// Stores a new request for approval.
    pub(crate) async fn insert_approval(&mut self, approval: &Approval) -> Result<(), store::Error> {
        self.approvals.push(approval.clone());
        self.tx.insert_approval(approval).await
    }

    /// Writes on a timeline.
    pub(crate) fn tell(&mut self, incident: IncidentId, kind: EntryKind, who: Option<&str>, text: impl Into<String>) {
        self.tell_more(incident, kind, who, text, None);
    }

    /// Writes on a timeline, with a block of text.
    pub(crate) fn tell_more(
        &mut self,
        incident: IncidentId,
        kind: EntryKind,
        who: Option<&str>,
        text: impl Into<String>,
        detail: Option<String>,
    ) {
        let text = self.cx.redactor.redact(&text.into()).into_owned();
        let detail = detail.map(|detail| self.cx.redactor.redact(&detail).into_owned());
        self.entries.push(Entry { incident, at: self.now, kind, who: who.map(str::to_owned), text, detail });
    }

    /// Tells of an alert, folding many into one line.
    pub(crate) fn tell_alert(&mut self, incident: IncidentId, fired: bool, text: String) {
        let folded = self.folded.entry((incident, fired)).or_default();
        folded.count += 1;
        if folded.first.len() < FOLD_ABOVE {
            folded.first.push(text);
        }
    }

    /// Leaves something to be done. A second job of one kind and key replaces the first.
    pub(crate) fn job(&mut self, job: NewJob) {
        self.jobs.insert((job.kind, job.key.clone()), job);
    }

    /// Leaves something to be done about what was made in this transaction.
    pub(crate) fn first_job(&mut self, job: NewJob) {
        self.first.insert((job.kind, job.key.clone()));
        self.job(job);
    }

    /// Records a decision.
    pub(crate) fn audit(&mut self, actor: &str, action: &str, object: String, decision: AuditDecision, reason: &str, detail: Value) {
        self.audits.push(NewAudit {
            at: self.now,
            actor: actor.to_owned(),
            action: action.to_owned(),
            object,
            decision,
            reason: reason.to_owned(),
            detail,
        });
    }

    fn hold(&mut self, incident: Incident) {
        let stored = Some(incident.version);
        self.incidents.entry(incident.id).or_insert(Held { now: incident, stored });
    }
}
