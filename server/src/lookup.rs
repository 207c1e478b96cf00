//! Read-only answers for the edges: option lists and numbers, asked of store and rules.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use domain::id::IncidentId;
use domain::inbox::{Choice, InboxError, Lookup};
use domain::rules::RuleSet;
use store::{IncidentFilter, Store};

/// Asks the store and the rules in force.
pub(crate) struct Answers {
    pub(crate) store: Store,
    pub(crate) rules: Arc<ArcSwap<RuleSet>>,
}

#[async_trait]
impl Lookup for Answers {
    async fn incidents(&self, prefix: &str, limit: usize) -> Result<Vec<Choice>, InboxError> {
        let limit = i64::try_from(limit).unwrap_or(25);
        let filter = IncidentFilter { open_only: true, prefix: Some(prefix.to_owned()), before: None, limit };
        let mut tx = self.store.read().await.map_err(unavailable)?;
        let found = tx.incidents(&filter).await.map_err(unavailable)?;
        let choice = |incident: domain::incident::Incident| Choice {
            label: format!("#{} {}", incident.number, incident.title),
            value: incident.number.to_string(),
        };
        Ok(found.into_iter().map(choice).collect())
    }

    async fn incident_id(&self, number: i64) -> Result<Option<IncidentId>, InboxError> {
        let mut tx = self.store.read().await.map_err(unavailable)?;
        Ok(tx.incident_by_number(number).await.map_err(unavailable)?.map(|incident| incident.id))
    }

    fn runbooks(&self, prefix: &str, limit: usize) -> Vec<Choice> {
        let rules = self.rules.load();
        let fits = rules.runbooks.keys().filter(|name| name.starts_with(prefix)).take(limit);
        fits.map(|name| Choice { label: name.clone(), value: name.clone() }).collect()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err asks for")]
fn unavailable(error: store::Error) -> InboxError {
    InboxError::Unavailable(error.to_string())
}
