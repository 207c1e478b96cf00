//! Who may do what. `check` is the only maker of `Granted`, and what needs a right takes a `Granted`.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::act::{Barred, Identity};

/// Something that a role allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// See incidents, runs and their history.
    View,
    /// Take an incident.
    Acknowledge,
    /// Resolve, reopen and close incidents.
    Resolve,
    /// Write on a timeline.
    Note,
    /// Ask for runs and cancel them.
    Run,
    /// Decide approvals whose policy names one of the person's roles.
    Approve,
    /// Stop and restart all automation.
    Pause,
    /// Read the audit log.
    Audit,
    /// Make tokens, reload the configuration.
    Admin,
}

impl Right {
    /// All of them, in order.
    pub const ALL: [Self; 9] =
        [Self::View, Self::Acknowledge, Self::Resolve, Self::Note, Self::Run, Self::Approve, Self::Pause, Self::Audit, Self::Admin];
}

/// A person or program that Watchkeeper knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Principal {
    /// Unique name, as in the configuration.
    pub name: String,
    /// The roles that it has.
    pub roles: BTreeSet<String>,
    /// Its identities: (platform, workspace, user id).
    pub identities: Vec<(String, String, String)>,
    /// False for service accounts, which never count towards a quorum.
    pub human: bool,
}

/// Everybody, and what the roles allow. Part of the rule set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct People {
    /// Role name to rights.
    pub roles: BTreeMap<String, BTreeSet<Right>>,
    /// By name.
    pub principals: BTreeMap<String, Principal>,
}

/// Why somebody may not. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The identity may never act.
    #[error("{}", barred_text(*.0))]
    Barred(Barred),
    /// Nobody linked the identity.
    #[error("I do not know you here. Ask an administrator to add `{platform}: \"{workspace}{user}\"` to your entry under `principals`.")]
    NotLinked {
        /// Platform.
        platform: String,
        /// Workspace and a slash, or nothing.
        workspace: String,
        /// User id.
        user: String,
    },
    /// Known, but without the right.
    #[error("{name} may not {right:?} here: it takes one of the roles {roles}. Ask somebody who has one, or an administrator.")]
    NoRight {
        /// Who.
        name: String,
        /// What.
        right: Right,
        /// The roles that may, joined.
        roles: String,
    },
}

impl Denied {
    /// A stable word for metrics and the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Barred(_) => "barred",
            Self::NotLinked { .. } => "not_linked",
            Self::NoRight { .. } => "no_right",
        }
    }
}

/// Proof that `check` said yes. Cannot be made elsewhere.
#[derive(Clone, Debug)]
pub struct Granted {
    principal: Principal,
    right: Right,
}

impl Granted {
    /// Who may.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What they may.
    pub fn right(&self) -> Right {
        self.right
    }
}

impl People {
    /// The principal behind an identity.
    ///
    /// # Errors
    /// [`Denied::Barred`] and [`Denied::NotLinked`].
    pub fn resolve(&self, identity: &Identity) -> Result<&Principal, Denied> {
        if let Some(barred) = identity.barred {
            return Err(Denied::Barred(barred));
        }
        let of_platform = |p: &&Principal| {
            p.identities.iter().any(|(platform, workspace, user)| {
                *platform == identity.platform && *workspace == identity.workspace && *user == identity.user
            })
        };
        // The console and the API know their people by principal name: they signed in.
        let own = matches!(identity.platform.as_str(), "console" | "api");
        let found = if own { self.principals.get(&identity.user) } else { self.principals.values().find(of_platform) };
        found.ok_or_else(|| Denied::NotLinked {
            platform: identity.platform.clone(),
            workspace: if identity.workspace.is_empty() { String::new() } else { format!("{}/", identity.workspace) },
            user: identity.user.clone(),
        })
    }

    /// Whether the person behind `identity` has `right`.
    ///
    /// # Errors
    /// Says who may, or how to be linked.
    pub fn check(&self, identity: &Identity, right: Right) -> Result<Granted, Denied> {
        let principal = self.resolve(identity)?;
        if self.has(principal, right) {
            return Ok(Granted { principal: principal.clone(), right });
        }
        let roles: Vec<&str> = self.roles.iter().filter(|(_, rights)| rights.contains(&right)).map(|(name, _)| name.as_str()).collect();
        Err(Denied::NoRight { name: principal.name.clone(), right, roles: roles.join(", ") })
    }

    /// Whether one of the principal's roles allows `right`.
    pub fn has(&self, principal: &Principal, right: Right) -> bool {
        principal.roles.iter().filter_map(|role| self.roles.get(role)).any(|rights| rights.contains(&right))
    }

    /// The humans who have one of `roles` and the right to approve.
    pub fn approvers<'a>(&'a self, roles: &'a BTreeSet<String>) -> impl Iterator<Item = &'a Principal> {
        self.principals.values().filter(|p| p.human && !p.roles.is_disjoint(roles) && self.has(p, Right::Approve))
    }
}

fn barred_text(barred: Barred) -> &'static str {
    match barred {
        Barred::Bot => "Bots cannot decide. A person has to press the button.",
        Barred::Guest => "Guests of the workspace cannot decide. Ask a full member.",
        Barred::Stranger => "Only members of the configured workspace can decide.",
    }
}
