//! Orders for agents on other hosts, and their reports: what is signed, and when an agent obeys.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::action::{ActionError, ActionOutput, Effect};
use crate::id::RunId;
use crate::plan::Target;
use crate::printed::Source;
use crate::run::Fence;

/// The issuer of orders, and the audience of reports.
pub const SERVER: &str = "watchkeeper";

/// What a server tells an agent to carry out: the claims of a signed token (RFC 7519).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// [`SERVER`].
    pub iss: String,
    /// The agent that it is for; nobody else obeys it.
    pub aud: String,
    /// The execution: an agent carries out each once, however often it is told.
    pub jti: String,
    /// Seconds since 1970: when it was signed.
    pub iat: i64,
    /// Seconds since 1970: from then on it may not begin any more.
    pub exp: i64,
    /// The run.
    pub run: RunId,
    /// The step's id in the plan.
    pub step: String,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// For targets that drop repeats.
    pub key: String,
    /// The action.
    pub uses: String,
    /// Its parameters, rendered.
    pub with: Value,
    /// The target as the server's inventory has it.
    pub target: Target,
    /// What may follow an unknown outcome.
    pub effect: Effect,
    /// When the attempt is over, in seconds since 1970.
    pub deadline: i64,
    /// Digest of the plan that it belongs to.
    pub plan_digest: String,
    /// Digests of the approvals that the run rests on.
    pub approvals: Vec<String>,
    /// The target's fence.
    pub fence: Option<Fence>,
}

/// Ends what an order began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// [`SERVER`].
    pub iss: String,
    /// The agent.
    pub aud: String,
    /// `cancel/` and the execution.
    pub jti: String,
    /// Seconds since 1970.
    pub iat: i64,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The agent.
    pub iss: String,
    /// [`SERVER`].
    pub aud: String,
    /// The execution.
    pub jti: String,
    /// Seconds since 1970.
    pub iat: i64,
    /// How it ended.
    pub ended: Ended,
}

/// A piece of what an order's command prints, for people who watch. Nothing rests on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The agent.
    pub iss: String,
    /// [`SERVER`].
    pub aud: String,
    /// The execution.
    pub jti: String,
    /// Seconds since 1970.
    pub iat: i64,
    /// Where it was printed to.
    pub source: Source,
    /// See [`crate::printed::Printed`].
    pub offset: u64,
    /// See [`crate::printed::Printed`].
    pub oldest: bool,
    /// The bytes, as base64.
    pub text: String,
}

/// How an order ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Well.
    Done(ActionOutput),
    /// It did not work, and that is known.
    Failed(String),
    /// The agent did not obey: nothing happened.
    Refused(String),
    /// Nobody knows whether it happened.
    Unknown(String),
}

impl From<Result<ActionOutput, ActionError>> for Ended {
    fn from(ended: Result<ActionOutput, ActionError>) -> Self {
        match ended {
            Ok(output) => Self::Done(output),
            Err(ActionError::Failed(why) | ActionError::NeverBegan(why)) => Self::Failed(why),
            Err(ActionError::Refused(why)) => Self::Refused(why),
            Err(ActionError::Unknown(why)) => Self::Unknown(why),
        }
    }
}

impl From<Ended> for Result<ActionOutput, ActionError> {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Done(output) => Ok(output),
            Ended::Failed(why) => Err(ActionError::Failed(why)),
            Ended::Refused(why) => Err(ActionError::Refused(why)),
            Ended::Unknown(why) => Err(ActionError::Unknown(why)),
        }
    }
}

/// Why an agent does not obey. Nothing happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disobeyed {
    /// Of somebody else.
    #[error("the order is for the agent {0}, not for this one")]
    NotMine(String),
    /// Too late.
    #[error("the order expired at {0} before it could begin")]
    Expired(Timestamp),
    /// Not on the agent's own list.
    #[error("the agent's own list of `actions` lacks {0}")]
    Action(String),
    /// Not in the agent's own inventory.
    #[error("the agent's own `targets` lack {0}")]
    NoTarget(String),
    /// The two inventories differ.
    #[error("the agent's own target {0} is not what the order says: make both inventories the same")]
    OtherTarget(String),
    /// A later run was there.
    #[error("the order's fence {0} is lower than {1}, which a later run of this target has: it comes too late")]
    Fence(Fence, Fence),
}

/// Whether the agent `me`, with these actions and this target of its own, obeys an order whose signature is good. `highest` is the highest fence
/// that it ever saw of the target.
///
/// # Errors
/// Why not.
pub fn obey(
    order: &Order,
    me: &str,
    actions: &BTreeSet<String>,
    own: Option<&Target>,
    highest: Option<Fence>,
    now: Timestamp,
) -> Result<(), Disobeyed> {
    if order.aud != me || order.iss != SERVER {
        return Err(Disobeyed::NotMine(order.aud.clone()));
    }
    if order.exp <= now.as_second() {
        return Err(Disobeyed::Expired(Timestamp::from_second(order.exp).unwrap_or(Timestamp::UNIX_EPOCH)));
    }
    if !actions.contains(&order.uses) {
        return Err(Disobeyed::Action(order.uses.clone()));
    }
    let name = &order.target.name;
    let own = own.ok_or_else(|| Disobeyed::NoTarget(name.clone()))?;
    let mut told = order.target.clone();
    told.fields.remove("agent");
    if *own != told {
        return Err(Disobeyed::OtherTarget(name.clone()));
    }
    match (order.fence, highest) {
        (Some(fence), Some(highest)) if fence < highest => Err(Disobeyed::Fence(fence, highest)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        let now = Timestamp::UNIX_EPOCH;
        Order {
            iss: SERVER.to_owned(),
            aud: "edge".to_owned(),
            jti: "x".to_owned(),
            iat: 0,
            exp: 60,
            run: RunId::new(now),
            step: "s".to_owned(),
            attempt: 1,
            key: "k".to_owned(),
            uses: "command".to_owned(),
            with: Value::Null,
            target: Target {
                name: "api".to_owned(),
                kind: "systemd".to_owned(),
                fields: [("unit".to_owned(), "api.service".into()), ("agent".to_owned(), "edge".into())].into(),
            },
            effect: Effect::AtMostOnce,
            deadline: 60,
            plan_digest: "d".to_owned(),
            approvals: vec![],
            fence: Some(Fence { epoch: 1, n: 5 }),
        }
    }

    #[test]
    fn an_agent_obeys_what_its_own_lists_hold_and_nothing_else() {
        let actions = BTreeSet::from(["command".to_owned()]);
        let own = Target { name: "api".to_owned(), kind: "systemd".to_owned(), fields: [("unit".to_owned(), "api.service".into())].into() };
        let at = |second| Timestamp::from_second(second).unwrap();
        let fence = |epoch, n| Some(Fence { epoch, n });
        let good = |order: &Order| obey(order, "edge", &actions, Some(&own), fence(1, 5), at(59));
        assert_eq!(good(&order()), Ok(()));
        assert!(matches!(obey(&order(), "other", &actions, Some(&own), None, at(0)), Err(Disobeyed::NotMine(_))));
        assert!(matches!(good(&Order { iss: "edge".to_owned(), ..order() }), Err(Disobeyed::NotMine(_))));
        assert!(matches!(obey(&order(), "edge", &actions, Some(&own), None, at(60)), Err(Disobeyed::Expired(_))));
        assert!(matches!(good(&Order { uses: "http.request".to_owned(), ..order() }), Err(Disobeyed::Action(_))));
        assert!(matches!(obey(&order(), "edge", &actions, None, None, at(0)), Err(Disobeyed::NoTarget(_))));
        let mut other = order();
        other.target.fields.insert("unit".to_owned(), "sshd.service".into());
        assert!(matches!(good(&other), Err(Disobeyed::OtherTarget(_))));
        for lower in [fence(1, 4), fence(0, 9)] {
            assert!(matches!(good(&Order { fence: lower, ..order() }), Err(Disobeyed::Fence(..))), "{lower:?}");
        }
        assert_eq!(good(&Order { fence: fence(2, 0), ..order() }), Ok(()));
    }
}
