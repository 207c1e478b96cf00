//! The end of a batch: everything that was decided is written, committed, and what follows at once is begun.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use domain::alert::Alert;
use domain::composing::CARD_ALERTS;
use domain::id::IncidentId;
use domain::incident::Incident;
use domain::job::{NewJob, Urgency};
use domain::run::Run;
use domain::timeline::EntryKind;
use jiff::Timestamp;
use serde_json::json;
use store::{CardParts, Take};
use tokio::sync::watch;

use super::{Batch, FOLD_ABOVE, Held};
use crate::claim::LEASE;
use crate::hands::Taken;
use crate::jobs::chat_card::KIND as CARD;

/// Changes of a card within this time are told in one edit.
const GATHER: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

impl Batch<'_> {
    /// Writes everything and commits.
    pub(crate) async fn commit(mut self) -> Result<(), store::Error> {
        let (is_stored, stored) = watch::channel(false);
        let afterwards = match self.write(&stored).await {
            Ok(afterwards) => afterwards,
            Err(error) => return Err(self.take_back(error).await),
        };
        self.tx.commit().await?;
        is_stored.send_replace(true);
        afterwards.into_iter().for_each(|taken| self.cx.wake.hands.give(taken));
        Ok(())
    }

    /// Takes everything back because of this error, and waits until that is done: whoever tries again finds nothing held by us.
    pub(crate) async fn take_back(self, error: store::Error) -> store::Error {
        if let Err(error) = self.tx.rollback().await {
            tracing::debug!(%error, "the database takes it back by itself");
        }
        error
    }

    /// Writes everything. What is to begin after the commit is returned; it hears of the commit by `stored`.
    async fn write(&mut self, stored: &watch::Receiver<bool>) -> Result<Vec<Taken>, store::Error> {
        self.flush_incidents().await?;
        self.flush_alerts().await?;
        self.unfold();
        if !self.entries.is_empty() {
            self.tx.tell(&self.entries).await?;
        }
        self.tx.audit_all(&self.audits).await?;
        let jobs: Vec<NewJob> = std::mem::take(&mut self.jobs).into_values().collect();
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let hands = &self.cx.wake.hands;
        let (asked, mut taken) = (Instant::now(), HashMap::new());
        let take = |job: &NewJob| {
            let hand = if job.due_at <= self.now { hands.take(job.kind) } else { None };
            let first = self.first.contains(&(job.kind, job.key.clone()));
            let claim = if hand.is_none() {
                Take::Leave
            } else if first {
                Take::First
            } else {
                Take::Unless
            };
            taken.extend(hand.map(|hand| ((job.kind.to_owned(), job.key.clone()), hand)));
            claim
        };
        let ours = self.tx.enqueue_and_claim(&jobs, LEASE, take).await?;
        let mut known = self.known_cards(&ours.iter().filter(|row| row.kind == CARD).map(|row| row.key.as_str()).collect());
        let mut afterwards = Vec::new();
        for row in ours {
            let Some(hand) = taken.remove(&(row.kind.clone(), row.key.clone())) else { continue };
            let parts = known.remove(&row.key).filter(|_| row.kind == CARD);
            let (id, taken) = (row.id, Taken { row, asked, hand, stored: stored.clone() });
            match parts {
                // All that it shows is known: it is drawn while this is on its way to the disk, and posted then.
                Some(parts) => {
                    self.cx.wake.known.put(id, parts);
                    hands.give(taken);
                }
                None => afterwards.push(taken),
            }
        }
        Ok(afterwards)
    }

    /// What the cards of new incidents show, by the keys of those jobs that are wanted.
    fn known_cards(&self, wanted: &HashSet<&str>) -> HashMap<String, CardParts> {
        if wanted.is_empty() {
            return HashMap::new();
        }
        let mut alerts: HashMap<Option<IncidentId>, Vec<&Alert>> = HashMap::new();
        for alert in self.alerts.values().flatten() {
            alerts.entry(alert.incident).or_default().push(alert);
        }
        let mut known = HashMap::new();
        for Held { now: incident, .. } in self.incidents.values().filter(|held| held.stored.is_none()) {
            let keys: Vec<String> = incident.channels.iter().map(|channel| card_key(incident.id, channel)).collect();
            if !keys.iter().any(|key| wanted.contains(key.as_str())) {
                continue;
            }
            let alerts = alerts.get(&Some(incident.id)).into_iter().flatten().copied().cloned().collect();
            let runs: Vec<Run> = self.runs.iter().filter(|run| run.incident == Some(incident.id)).cloned().collect();
            let approvals = self.approvals.iter().filter(|one| one.incident == Some(incident.id)).cloned().collect();
            let mut parts = CardParts::new(incident.clone(), alerts, runs, approvals, None);
            parts.alerts.truncate(CARD_ALERTS);
            known.extend(keys.into_iter().map(|key| (key, parts.clone())));
        }
        known
    }

    async fn flush_alerts(&mut self) -> Result<(), store::Error> {
        let mut dirty: Vec<&Alert> = self.dirty_alerts.keys().filter_map(|key| self.alerts.get(key)?.as_ref()).collect();
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
            let jobs = held.now.channels.iter().map(|channel| card_job(held.now.id, channel, urgency, due_at));
            cards.extend(jobs.map(|job| (held.stored.is_none(), job)));
        }
        for (first, job) in cards {
            if first { self.first_job(job) } else { self.job(job) }
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

fn card_key(incident: IncidentId, channel: &str) -> String {
    format!("{incident}/{channel}")
}

fn card_job(incident: IncidentId, channel: &str, urgency: Urgency, due_at: Timestamp) -> NewJob {
    NewJob { kind: CARD, key: card_key(incident, channel), due_at, urgency, payload: json!({ "incident": incident, "channel": channel }) }
}

/// The job that tells a card's thread what is new.
pub(crate) fn thread_job(incident: IncidentId, channel: &str, now: Timestamp) -> NewJob {
    NewJob {
        kind: "chat.thread",
        key: format!("{incident}/{channel}"),
        // Entries of the next moment go into the same message.
        due_at: now + jiff::SignedDuration::from_secs(1),
        urgency: Urgency::Upkeep,
        payload: json!({ "incident": incident, "channel": channel }),
    }
}
