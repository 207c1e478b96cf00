//! Approvals: what was approved is what runs, once, before it expires, on the word of somebody other than the requester.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::canonical::{Digest, digest};
use crate::id::{ApprovalId, IncidentId, RunId};
use crate::permission::Granted;
use crate::plan::ApprovalPolicy;

/// A request for approval of one run's plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// The run.
    pub run: RunId,
    /// The run's incident.
    pub incident: Option<IncidentId>,
    /// Where it stands.
    pub state: ApprovalState,
    /// Digest of the plan that it is for, in hex.
    pub plan_digest: String,
    /// Who asked for the run; `None` for the automation.
    pub requester: Option<String>,
    /// Who may decide.
    pub policy: ApprovalPolicy,
    /// Random, so that no two requests have the same digest.
    pub nonce: String,
    /// When it was asked.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// What people said so far, in order.
    pub votes: Vec<Vote>,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
}

/// One person's word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vote {
    /// The principal.
    pub who: String,
    /// For or against.
    pub approve: bool,
    /// Why, if against. Untrusted.
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// Where an approval stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Waiting for votes.
    Pending,
    /// The quorum is met.
    Approved,
    /// Somebody said no.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// The plan changed, or what it was for is over.
    Superseded,
    /// The run was cancelled.
    Cancelled,
}

impl ApprovalState {
    /// Its word, as in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a vote does not count. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoVote {
    /// Decided already.
    #[error("Already {state}{by}.")]
    Decided {
        /// How.
        state: &'static str,
        /// ` by NAME`, or nothing.
        by: String,
    },
    /// Too late.
    #[error("This request expired at {0}. Ask for the run again.")]
    Expired(Timestamp),
    /// The plan is not the one on the card.
    #[error("The plan has changed since this card was shown. Look at the new card and decide there.")]
    Changed,
    /// The requester cannot approve.
    #[error("You asked for this run, so somebody else has to approve it: one of {0}.")]
    Requester(String),
    /// Excluded by the policy.
    #[error("The policy of this runbook excludes you from approving it. Ask one of {0}.")]
    Excluded(String),
    /// None of the roles.
    #[error("Approving this takes one of the roles {0}.")]
    NoRole(String),
    /// Only humans count.
    #[error("Service accounts cannot approve. A person has to.")]
    NotHuman,
    /// One person, one vote.
    #[error("You have approved already; {0} more must.")]
    Twice(u32),
}

impl NoVote {
    /// A stable word for metrics and the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Decided { .. } => "already_decided",
            Self::Expired(_) => "expired",
            Self::Changed => "superseded",
            Self::Requester(_) => "requester",
            Self::Excluded(_) => "excluded",
            Self::NoRole(_) => "no_role",
            Self::NotHuman => "not_human",
            Self::Twice(_) => "already_voted",
        }
    }
}

impl Approval {
    /// The approval digest: plan, run, requester, policy, expiry and nonce.
    pub fn digest(&self) -> Digest {
        digest(&(&self.plan_digest, &self.run, &self.requester, &self.policy, &self.expires_at, &self.nonce))
    }

    /// Whether it was asked for at a time that is still to come: by a clock that has been set back since. Clocks of replicas differ by less.
    pub fn is_to_come(&self, now: Timestamp) -> bool {
        self.created_at.duration_since(now) > SignedDuration::from_secs(5)
    }

    /// How many more people must approve.
    pub fn missing(&self) -> u32 {
        let votes = self.votes.iter().filter(|vote| vote.approve).count();
        self.policy.quorum.saturating_sub(u32::try_from(votes).unwrap_or(u32::MAX))
    }

    /// The approval after a vote. `plan_digest` is that of the plan rendered afresh, now.
    ///
    /// # Errors
    /// Says why the vote does not count.
    pub fn vote(&self, voter: &Granted, approve: bool, reason: Option<String>, plan_digest: &str, now: Timestamp) -> Result<Self, NoVote> {
        let who = voter.principal();
        let roles = || self.policy.roles.iter().cloned().collect::<Vec<_>>().join(", ");
        if self.state != ApprovalState::Pending {
            let by = self.votes.last().map(|vote| format!(" by {}", vote.who)).unwrap_or_default();
            return Err(NoVote::Decided { state: self.state.as_str(), by });
        }
        if now >= self.expires_at {
            return Err(NoVote::Expired(self.expires_at));
        }
        if !who.human {
            return Err(NoVote::NotHuman);
        }
        if who.roles.is_disjoint(&self.policy.roles) {
            return Err(NoVote::NoRole(roles()));
        }
        // Anybody entitled may stop it, the requester too: only a yes needs somebody else.
        if approve {
            if self.requester.as_deref() == Some(who.name.as_str()) {
                return Err(NoVote::Requester(roles()));
            }
            if self.policy.exclude.contains(&who.name) {
                return Err(NoVote::Excluded(roles()));
            }
            if self.plan_digest != plan_digest {
                return Err(NoVote::Changed);
            }
            if self.votes.iter().any(|vote| vote.who == who.name) {
                return Err(NoVote::Twice(self.missing()));
            }
        }
        let mut next = self.clone();
        next.votes.push(Vote { who: who.name.clone(), approve, reason, at: now });
        if !approve {
            next.state = ApprovalState::Denied;
        } else if next.missing() == 0 {
            next.state = ApprovalState::Approved;
        }
        if next.state != ApprovalState::Pending {
            next.decided_at = Some(now);
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests;
