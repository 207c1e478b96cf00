//! Who is a full member of the workspace: Slack's payloads do not tell guests from members, `users.info` does.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use domain::act::Barred;
use domain::chat::ChatError;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::Slack;

/// An answer is believed this long: a guest, or somebody who left, keeps a member's standing no longer.
const BELIEVED: SignedDuration = SignedDuration::from_mins(5);
/// How long a person may wait for it; storing the act has its own two seconds of Slack's three.
const ASK_WITHIN: Duration = Duration::from_millis(900);
/// Beyond this many people the memory begins anew.
const REMEMBERED: usize = 10_000;

/// What `users.info` said lately.
#[derive(Default)]
pub(super) struct Members(Mutex<HashMap<String, (Timestamp, Option<Barred>)>>);

impl Slack {
    /// What bars a person, as far as it is known without asking.
    pub(super) fn known(&self, user: &str) -> Option<Option<Barred>> {
        let known = self.members.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, barred) = *known.get(user)?;
        let age = self.edge.clock.now().duration_since(asked);
        (age <= BELIEVED && !age.is_negative()).then_some(barred)
    }

    /// What bars a person, asking Slack where it is not known.
    ///
    /// # Errors
    /// If Slack does not say in time: then nothing grave may happen.
    pub(super) async fn standing(&self, user: &str) -> Result<Option<Barred>, ChatError> {
        if let Some(barred) = self.known(user) {
            return Ok(barred);
        }
        let args = [("user", user)];
        let asked = tokio::time::timeout(ASK_WITHIN, self.api.get::<Info>("users.info", &args)).await;
        let info = asked.map_err(|_| ChatError::Retry(format!("Slack did not say within {ASK_WITHIN:?} who {user} is")))??;
        let barred = info.user.barred(&self.team_id);
        let mut known = self.members.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(user.to_owned(), (self.edge.clock.now(), barred));
        Ok(barred)
    }
}

#[derive(Deserialize)]
struct Info {
    user: User,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    team_id: String,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    is_bot: bool,
    #[serde(default)]
    is_restricted: bool,
    #[serde(default)]
    is_ultra_restricted: bool,
    #[serde(default)]
    is_stranger: bool,
}

impl User {
    fn barred(&self, team: &str) -> Option<Barred> {
        match self {
            user if user.is_bot => Some(Barred::Bot),
            user if user.is_stranger || user.deleted || user.team_id != team => Some(Barred::Stranger),
            user if user.is_restricted || user.is_ultra_restricted => Some(Barred::Guest),
            _ => None,
        }
    }
}
