//! Who may decide, once, and on what.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::act::Identity;
use crate::duration::Dur;
use crate::permission::{People, Principal, Right};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn people() -> People {
    let principal = |name: &str, roles: &[&str], human: bool| Principal {
        name: name.to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        identities: Vec::new(),
        human,
    };
    let all = [
        principal("ann", &["sre"], true),
        principal("bob", &["sre"], true),
        principal("cat", &["lead"], true),
        principal("robot", &["sre"], false),
    ];
    People {
        roles: BTreeMap::from([
            ("sre".to_owned(), BTreeSet::from([Right::Approve])),
            ("lead".to_owned(), BTreeSet::from([Right::Approve])),
        ]),
        principals: all.into_iter().map(|p| (p.name.clone(), p)).collect(),
    }
}

fn granted(name: &str) -> Granted {
    let identity =
        Identity { platform: "api".to_owned(), workspace: String::new(), user: name.to_owned(), display: String::new(), barred: None };
    people().check(&identity, Right::Approve).unwrap()
}

fn approval(quorum: u32, requester: Option<&str>) -> Approval {
    Approval {
        id: ApprovalId::new(at(0)),
        run: RunId::new(at(0)),
        incident: None,
        state: ApprovalState::Pending,
        plan_digest: "d".to_owned(),
        requester: requester.map(str::to_owned),
        policy: ApprovalPolicy {
            roles: BTreeSet::from(["sre".to_owned()]),
            quorum,
            expires: "15m".parse::<Dur>().unwrap(),
            exclude: BTreeSet::new(),
        },
        nonce: "n".to_owned(),
        created_at: at(0),
        expires_at: at(900),
        votes: Vec::new(),
        decided_at: None,
    }
}

fn yes(approval: &Approval, who: &str, now: i64) -> Result<Approval, NoVote> {
    approval.vote(&granted(who), true, None, "d", at(now))
}

#[test]
fn one_of_the_role_is_enough_for_a_quorum_of_one() {
    let approved = yes(&approval(1, None), "ann", 1).unwrap();
    assert_eq!((approved.state, approved.decided_at), (ApprovalState::Approved, Some(at(1))));
    assert_eq!(yes(&approved, "bob", 2).unwrap_err().to_string(), "Already approved by ann.");
}

#[test]
fn the_requester_cannot_approve_and_can_deny() {
    let mine = approval(1, Some("ann"));
    assert!(matches!(yes(&mine, "ann", 1), Err(NoVote::Requester(_))));
    let denied = mine.vote(&granted("ann"), false, Some("changed my mind".to_owned()), "d", at(1)).unwrap();
    assert_eq!(denied.state, ApprovalState::Denied);
}

#[test]
fn two_people_are_two_people() {
    let once = yes(&approval(2, None), "ann", 1).unwrap();
    assert_eq!(once.state, ApprovalState::Pending);
    assert_eq!(yes(&once, "ann", 2), Err(NoVote::Twice(1)));
    assert_eq!(yes(&once, "bob", 3).unwrap().state, ApprovalState::Approved);
}

#[test]
fn strangers_to_the_policy_machines_and_the_late_do_not_count() {
    assert!(matches!(yes(&approval(1, None), "cat", 1), Err(NoVote::NoRole(_))));
    assert_eq!(yes(&approval(1, None), "robot", 1), Err(NoVote::NotHuman));
    assert_eq!(yes(&approval(1, None), "ann", 900), Err(NoVote::Expired(at(900))));
    let mut excluding = approval(1, None);
    excluding.policy.exclude.insert("ann".to_owned());
    assert!(matches!(yes(&excluding, "ann", 1), Err(NoVote::Excluded(_))));
}

#[test]
fn another_plan_is_another_question() {
    let changed = approval(1, None).vote(&granted("ann"), true, None, "other", at(1));
    assert_eq!(changed, Err(NoVote::Changed));
}

#[test]
fn the_approval_digest_changes_with_everything_that_it_covers() {
    let base = approval(1, None);
    let mut others = vec![base.clone(); 5];
    others[0].plan_digest = "e".to_owned();
    others[1].requester = Some("ann".to_owned());
    others[2].policy.quorum = 2;
    others[3].expires_at = at(901);
    others[4].nonce = "m".to_owned();
    for other in others {
        assert_ne!(other.digest(), base.digest());
    }
    let mut voted = base.clone();
    voted.votes.push(Vote { who: "ann".to_owned(), approve: true, reason: None, at: at(1) });
    assert_eq!(voted.digest(), base.digest(), "votes are about the digest, not in it");
}
