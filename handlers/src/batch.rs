//! One transaction's worth of decisions: what was read, what changed, what follows. Written in one go at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use domain::alert::Alert;
use domain::audit::{AuditDecision, NewAudit};
use domain::event::Event;
use domain::id::IncidentId;
use domain::incident::{Follow, Happening, Incident, Unchanged};
use domain::job::{NewJob, Urgency};
use domain::rules::RuleSet;
use domain::timeline::{Entry, EntryKind};
use jiff::Timestamp;
use serde_json::{Value, json};
use store::Tx;

use crate::Cx;
use crate::claim::LEASE;
use crate::hands::Taken;

/// The state of a transaction in the making.
pub(crate) struct Batch<'a> {
    pub(crate) cx: &'a Cx,
    pub(crate) rules: Arc<RuleSet>,
    pub(crate) tx: Tx,
    pub(crate) now: Timestamp,
    alerts: HashMap<(String, String), Alert>,
    dirty_alerts: HashMap<(String, String), ()>,
    incidents: HashMap<IncidentId, Held>,
    by_group: HashMap<(String, String), Option<IncidentId>>,
    entries: Vec<Entry>,
    jobs: BTreeMap<(&'static str, String), NewJob>,
    audits: Vec<NewAudit>,
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

/// Changes of a card within this time are told in one edit.
const GATHER: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);
/// More than this many alerts of one batch are told in one line.
const FOLD_ABOVE: usize = 3;

impl<'a> Batch<'a> {
    /// Begins a transaction.
    pub(crate) async fn begin(cx: &'a Cx) -> Result<Self, store::Error> {
        let tx = cx.store.begin().await?;
        Ok(Self {
            cx,
            rules: cx.rules.load_full(),
            tx,
            now: cx.clock.now(),
            alerts: HashMap::new(),
            dirty_alerts: HashMap::new(),
            incidents: HashMap::new(),
            by_group: HashMap::new(),
            entries: Vec::new(),
            jobs: BTreeMap::new(),
            audits: Vec::new(),
            folded: BTreeMap::new(),
            urgent: BTreeSet::new(),
        })
    }

    /// Reads the alerts that `events` are about, in one query.
    pub(crate) async fn preload(&mut self, events: &[Event]) -> Result<(), store::Error> {
        let mut keys: Vec<(String, String)> = events
            .iter()
            .filter_map(|event| match &event.payload {
                domain::event::Payload::Alert(sighting) => Some((event.source.clone(), sighting.fingerprint.clone())),
                _ => None,
            })
            .collect();
        keys.sort();
        keys.dedup();
        if !keys.is_empty() {
            self.alerts.extend(self.tx.alerts(&keys).await?);
        }
        Ok(())
    }

    /// Reads the incidents that gather these grouping keys now, in one query.
    pub(crate) async fn preload_incidents(&mut self, keys: BTreeSet<(String, String)>) -> Result<(), store::Error> {
        let keys: Vec<_> = keys.into_iter().filter(|key| !self.by_group.contains_key(key)).collect();
        let mut found = self.tx.latest_incidents(&keys).await?;
        for key in keys {
            let incident = found.remove(&key);
            self.by_group.insert(key, incident.as_ref().map(|incident| incident.id));
            if let Some(incident) = incident {
                self.hold(incident);
            }
        }
        Ok(())
    }

    /// What is known so far of an alert, without asking.
    pub(crate) fn known_alert(&self, source: &str, fingerprint: &str) -> Option<&Alert> {
        self.alerts.get(&(source.to_owned(), fingerprint.to_owned()))
    }

    /// An alert as it stands, if it was ever heard of.
    pub(crate) async fn alert(&mut self, source: &str, fingerprint: &str) -> Result<Option<Alert>, store::Error> {
        let key = (source.to_owned(), fingerprint.to_owned());
        if !self.alerts.contains_key(&key) {
            let found = self.tx.alerts(std::slice::from_ref(&key)).await?;
            self.alerts.extend(found);
        }
        Ok(self.alerts.get(&key).cloned())
    }

    /// Keeps an alert's new state.
    pub(crate) fn put_alert(&mut self, alert: Alert) {
        let key = (alert.source.clone(), alert.fingerprint.clone());
        self.dirty_alerts.insert(key.clone(), ());
        self.alerts.insert(key, alert);
    }

    /// The incident that gathers this grouping key now: open, or resolved and not closed.
    pub(crate) async fn latest_incident(&mut self, source: &str, group_key: &str) -> Result<Option<Incident>, store::Error> {
        let key = (source.to_owned(), group_key.to_owned());
        self.preload_incidents(BTreeSet::from([key.clone()])).await?;
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

    /// Writes everything and commits.
    pub(crate) async fn commit(mut self) -> Result<(), store::Error> {
        self.flush_incidents().await?;
        self.flush_alerts().await?;
        self.unfold();
        if !self.entries.is_empty() {
            self.tx.tell(&self.entries).await?;
        }
        self.tx.audit_all(&self.audits).await?;
        let jobs: Vec<NewJob> = std::mem::take(&mut self.jobs).into_values().collect();
        if jobs.is_empty() {
            return self.tx.commit().await;
        }
        let hands = &self.cx.wake.hands;
        let (asked, mut slots) = (Instant::now(), HashMap::new());
        let take = |job: &NewJob| {
            let slot = if job.due_at <= self.now { hands.take(job.kind) } else { None };
            let taken = slot.is_some();
            slots.extend(slot.map(|slot| ((job.kind.to_owned(), job.key.clone()), slot)));
            taken
        };
        let ours = self.tx.enqueue_and_claim(&jobs, LEASE, take).await?;
        self.tx.commit().await?;
        for row in ours {
            if let Some(slot) = slots.remove(&(row.kind.clone(), row.key.clone())) {
                hands.give(Taken { row, asked, slot });
            }
        }
        Ok(())
    }

    fn hold(&mut self, incident: Incident) {
        let stored = Some(incident.version);
        self.incidents.entry(incident.id).or_insert(Held { now: incident, stored });
    }

    async fn flush_alerts(&mut self) -> Result<(), store::Error> {
        let mut dirty: Vec<&Alert> = self.dirty_alerts.keys().filter_map(|key| self.alerts.get(key)).collect();
        // In key order, so that two transactions on PostgreSQL never wait for each other.
        dirty.sort_by(|a, b| (&a.source, &a.fingerprint).cmp(&(&b.source, &b.fingerprint)));
        let dirty: Vec<Alert> = dirty.into_iter().cloned().collect();
        if dirty.is_empty() { Ok(()) } else { self.tx.put_alerts(&dirty).await }
    }

    async fn flush_incidents(&mut self) -> Result<(), store::Error> {
        let mut changed: Vec<&Held> = self.incidents.values().filter(|held| held.stored != Some(held.now.version)).collect();
        changed.sort_by_key(|held| held.now.id);
        let mut cards = Vec::new();
        let new: Vec<&Incident> = changed.iter().filter(|held| held.stored.is_none()).map(|held| &held.now).collect();
        self.tx.insert_incidents(&new).await?;
        for held in changed {
            if let Some(version) = held.stored {
                self.tx.put_incident(&held.now, version).await?;
            }
            let first = self.urgent.contains(&held.now.id) || !held.now.state.is_open();
            let urgency = if first { Urgency::Action } else { Urgency::Tell };
            // A card that stands already waits a moment for what comes next, unless somebody waits for it.
            let due_at = if first || held.stored.is_none() { self.now } else { self.now + GATHER };
            cards.extend(held.now.channels.iter().map(|channel| card_job(held.now.id, channel, urgency, due_at)));
        }
        for job in cards {
            self.job(job);
        }
        let told: Vec<IncidentId> = self.entries.iter().map(|entry| entry.incident).chain(self.folded.keys().map(|(id, _)| *id)).collect();
        for id in told {
            let Some(incident) = self.incident(id).await? else { continue };
            for channel in &incident.channels {
                self.job(thread_job(id, channel, self.now));
            }
        }
        Ok(())
    }

    fn unfold(&mut self) {
        for ((incident, fired), folded) in std::mem::take(&mut self.folded) {
            let verb = if fired { "firing" } else { "resolved" };
            if folded.count <= FOLD_ABOVE {
                for text in folded.first {
                    self.tell(incident, EntryKind::Alert, None, format!("{verb}: {text}"));
                }
            } else {
                let first = folded.first.join(" · ");
                let more = folded.count - folded.first.len();
                self.tell(incident, EntryKind::Alert, None, format!("{} alerts {verb}: {first} · and {more} more", folded.count));
            }
        }
    }
}

fn card_job(incident: IncidentId, channel: &str, urgency: Urgency, due_at: Timestamp) -> NewJob {
    NewJob {
        kind: "chat.card",
        key: format!("{incident}/{channel}"),
        due_at,
        urgency,
        payload: json!({ "incident": incident, "channel": channel }),
    }
}

fn thread_job(incident: IncidentId, channel: &str, now: Timestamp) -> NewJob {
    NewJob {
        kind: "chat.thread",
        key: format!("{incident}/{channel}"),
        // Entries of the next moment go into the same message.
        due_at: now + jiff::SignedDuration::from_secs(1),
        urgency: Urgency::Upkeep,
        payload: json!({ "incident": incident, "channel": channel }),
    }
}
