//! The kinds of runs that the rounds of a sweep go through: what a run of each does, and what people and the source do about it.

use std::collections::BTreeMap;

use domain::run::RunState::{AwaitingApproval, Cancelled, Failed, Held, Queued, Refused, Running, Succeeded, Superseded, Verifying};
use domain::run::{Run, RunState, Settlement};
use serde_json::{Value, json};

use super::stage::Stage;

const FIRST: &str = "first";
const SECOND: &str = "second";
const THIRD: &str = "third";

type Parts = &'static [(&'static str, &'static [RunState])];
type Next = fn(&Seen<'_>) -> Option<Deed>;

/// One kind of run: its alerts, its route, its runbook and its target bear its name.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Its alerts, which ask for one run each, and how each run may end: in the first of these states, unless something comes in between.
    pub(super) parts: Parts,
    /// What is done next about its runs as they stand.
    next: Next,
    /// What a person says of a step that nobody knows of, although it left its line.
    pub(super) says: Settlement,
    /// How a step does its work, in a word of the program.
    pub(super) work: &'static str,
    /// Whether its guards count runs on its target.
    pub(super) is_counted: bool,
    /// What its remedy says besides.
    remedy: fn() -> Value,
    /// What its step says besides.
    step: fn(&Stage, &Kind) -> Value,
    /// What its runbook says besides.
    runbook: fn(&Stage, &Kind) -> Value,
}

/// What is done about a run by somebody else than the server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    /// The source tells of the alert of this part.
    Fire(&'static str),
    /// The source tells that it is over.
    Resolve(&'static str),
    /// A person presses the button twice.
    Approve(&'static str),
    /// The same; and what is approved cannot start for now.
    ApproveHeldBack(&'static str),
    Deny(&'static str),
    Cancel(&'static str),
    /// What could not start can.
    LetStart,
    /// Somebody changes the runbook.
    Change,
    /// What work waits for happens.
    Open,
}

/// The runs of a kind as they stand in this round.
pub(super) struct Seen<'a> {
    pub(super) runs: &'a BTreeMap<&'static str, Run>,
    /// The words in the ledger.
    pub(super) words: &'a [&'a str],
    /// How often the runbook was changed.
    pub(super) version: u32,
    /// Whether what work waits for has happened.
    pub(super) is_open: bool,
}

impl Seen<'_> {
    fn is(&self, part: &str, state: RunState) -> bool {
        self.runs.get(part).is_some_and(|run| run.state == state)
    }

    fn is_over(&self, part: &str) -> bool {
        self.runs.get(part).is_some_and(|run| !run.state.is_active())
    }

    /// Whether it is being carried out, left its word and is not cancelled yet.
    fn works(&self, part: &str) -> bool {
        self.is(part, Running) && self.words.contains(&part) && self.runs[part].cancelled_by.is_none()
    }

    /// Whether it has its target, or had it.
    fn began(&self, part: &str) -> bool {
        self.words.contains(&part) || self.is_over(part)
    }

    /// Whether it was asked for again, because its plan changed.
    fn is_asked_again(&self, part: &str) -> bool {
        self.runs.get(part).is_some_and(|run| run.asked > 1)
    }

    /// Whether its plan is not what the rules say now.
    fn is_outdated(&self, part: &str) -> bool {
        let version = |run: &Run| run.plan.steps.first().and_then(|step| step.with["args"][3].as_str().map(str::to_owned));
        self.runs.get(part).is_some_and(|run| version(run) != Some(self.version.to_string()))
    }
}

fn nothing(_: &Stage, _: &Kind) -> Value {
    json!({})
}

fn asks_first() -> Value {
    json!({ "mode": "approve" })
}

fn waits_first() -> Value {
    json!({ "hold": "60s" })
}

fn in_two_seconds(_: &Stage, _: &Kind) -> Value {
    json!({ "timeout": "2s" })
}

/// A check that never passes.
fn never_well(within: &str) -> Value {
    json!({ "verify": { "uses": "http.check", "with": { "url": "http://127.0.0.1:9/" }, "within": within, "every": "200ms" } })
}

/// A run by itself, of one step, that does its work.
const PLAIN: Kind = Kind {
    name: "",
    parts: &[(FIRST, &[Succeeded])],
    next: |_| None,
    says: Settlement::Ran,
    work: "well",
    is_counted: false,
    remedy: || json!({}),
    step: nothing,
    runbook: nothing,
};

/// A run that is over before it begins, because of what is done about it while it waits.
const fn not_begun(name: &'static str, remedy: fn() -> Value, next: Next, ends: Parts) -> Kind {
    Kind { name, parts: ends, next, remedy, ..PLAIN }
}

/// A step that its time limit ends, so that nobody knows of it, and what a person says then.
const fn lost(name: &'static str, says: Settlement, ends: Parts) -> Kind {
    Kind { name, says, parts: ends, work: "hangs", step: in_two_seconds, ..PLAIN }
}

/// All kinds. `arrows.rs` says which turn in a run's life each is there for.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "three-steps",
        runbook: |stage, kind| {
            let steps: Vec<Value> = ["one", "two", "three"].iter().map(|word| stage.step(kind, word, word, "demo")).collect();
            json!({ "steps": steps })
        },
        ..PLAIN
    },
    Kind {
        name: "approved",
        next: |seen| seen.is(FIRST, AwaitingApproval).then_some(Deed::Approve(FIRST)),
        remedy: asks_first,
        runbook: |stage, _| json!({ "verify": { "uses": "http.check", "with": { "url": stage.well }, "within": "60s", "every": "100ms" } }),
        ..PLAIN
    },
    not_begun("denied", asks_first, |seen| seen.is(FIRST, AwaitingApproval).then_some(Deed::Deny(FIRST)), &[(FIRST, &[Refused])]),
    Kind {
        name: "expired",
        parts: &[(FIRST, &[Refused])],
        remedy: asks_first,
        runbook: |_, _| json!({ "approval": { "roles": ["sre"], "expires": "2s" } }),
        ..PLAIN
    },
    not_begun("withdrawn", asks_first, |seen| seen.is(FIRST, AwaitingApproval).then_some(Deed::Resolve(FIRST)), &[(FIRST, &[Superseded])]),
    not_begun("called-off", asks_first, |seen| seen.is(FIRST, AwaitingApproval).then_some(Deed::Cancel(FIRST)), &[(FIRST, &[Cancelled])]),
    Kind {
        name: "keeps-changing",
        parts: &[(FIRST, &[Cancelled])],
        next: |seen| match () {
            () if seen.is(FIRST, Held) => Some(Deed::Cancel(FIRST)),
            () if seen.is(FIRST, AwaitingApproval) && seen.is_outdated(FIRST) => Some(Deed::Approve(FIRST)),
            () if seen.is(FIRST, AwaitingApproval) => Some(Deed::Change),
            () => None,
        },
        remedy: asks_first,
        ..PLAIN
    },
    not_begun("over-in-time", waits_first, |seen| seen.is(FIRST, Queued).then_some(Deed::Resolve(FIRST)), &[(FIRST, &[Superseded])]),
    not_begun("stopped-in-time", waits_first, |seen| seen.is(FIRST, Queued).then_some(Deed::Cancel(FIRST)), &[(FIRST, &[Cancelled])]),
    // Two more wait for the target that the first one has; what one of them is for is over before it comes to that.
    Kind {
        name: "behind",
        parts: &[(FIRST, &[Succeeded]), (SECOND, &[Succeeded]), (THIRD, &[Superseded, Succeeded])],
        next: |seen| match () {
            () if seen.runs.contains_key(SECOND) && !seen.runs.contains_key(THIRD) => Some(Deed::Fire(THIRD)),
            () if seen.began(FIRST) && !seen.runs.contains_key(SECOND) => Some(Deed::Fire(SECOND)),
            () if seen.is(THIRD, Held) => Some(Deed::Resolve(THIRD)),
            () if seen.is_over(THIRD) && !seen.is(SECOND, Queued) && !seen.is_open => Some(Deed::Open),
            () => None,
        },
        work: "gated",
        ..PLAIN
    },
    // Its plan changes while it waits for the target that the first one has.
    Kind {
        name: "changed-behind",
        parts: &[(FIRST, &[Succeeded]), (SECOND, &[Succeeded])],
        next: |seen| match () {
            () if seen.is(FIRST, AwaitingApproval) => Some(Deed::Approve(FIRST)),
            () if seen.began(FIRST) && !seen.runs.contains_key(SECOND) => Some(Deed::Fire(SECOND)),
            () if seen.is_asked_again(SECOND) && !seen.is_open => Some(Deed::Open),
            () if seen.is(SECOND, AwaitingApproval) => Some(Deed::Approve(SECOND)),
            () if seen.is(SECOND, Held) && !seen.is_asked_again(SECOND) && !seen.is_outdated(SECOND) => Some(Deed::Change),
            () => None,
        },
        work: "gated",
        remedy: asks_first,
        ..PLAIN
    },
    Kind {
        name: "changed-before-start",
        next: |seen| match () {
            () if seen.is(FIRST, AwaitingApproval) && !seen.is_asked_again(FIRST) => Some(Deed::ApproveHeldBack(FIRST)),
            () if seen.is(FIRST, AwaitingApproval) => Some(Deed::Approve(FIRST)),
            () if seen.is(FIRST, Queued) && !seen.is_asked_again(FIRST) && !seen.is_outdated(FIRST) => Some(Deed::Change),
            () => Some(Deed::LetStart),
        },
        remedy: asks_first,
        ..PLAIN
    },
    Kind {
        name: "spent",
        parts: &[(FIRST, &[Succeeded]), (SECOND, &[Refused])],
        next: |seen| (seen.is_over(FIRST) && !seen.runs.contains_key(SECOND)).then_some(Deed::Fire(SECOND)),
        is_counted: true,
        runbook: |_, _| json!({ "guards": { "max_runs": { "count": 1, "per": "1h" } } }),
        ..PLAIN
    },
    Kind {
        name: "cooled-and-spent",
        parts: &[(FIRST, &[Succeeded]), (SECOND, &[Refused])],
        next: |seen| (seen.is_over(FIRST) && !seen.runs.contains_key(SECOND)).then_some(Deed::Fire(SECOND)),
        is_counted: true,
        runbook: |_, _| json!({ "guards": { "cooldown": "6s", "max_runs": { "count": 1, "per": "1h" } } }),
        ..PLAIN
    },
    Kind {
        name: "retried",
        work: "well-at-last",
        step: |_, _| json!({ "effect": "idempotent", "retry": { "attempts": 2, "delay": "100ms" } }),
        ..PLAIN
    },
    Kind {
        name: "failed",
        parts: &[(FIRST, &[Failed])],
        says: Settlement::DidNotRun,
        work: "badly",
        runbook: |_, _| json!({ "on_failure": { "escalate": "now" } }),
        ..PLAIN
    },
    Kind { name: "not-verified", parts: &[(FIRST, &[Failed])], runbook: |_, _| never_well("1s"), ..PLAIN },
    Kind {
        name: "check-cancelled",
        parts: &[(FIRST, &[Cancelled])],
        next: |seen| seen.is(FIRST, Verifying).then_some(Deed::Cancel(FIRST)),
        runbook: |_, _| never_well("60s"),
        ..PLAIN
    },
    Kind {
        name: "step-cancelled",
        parts: &[(FIRST, &[Cancelled, Succeeded])],
        next: |seen| seen.works(FIRST).then_some(Deed::Cancel(FIRST)),
        work: "hangs",
        ..PLAIN
    },
    // It was asked for, not answered and cancelled: nobody knows whether the other side acts on it.
    Kind {
        name: "question-cancelled",
        parts: &[(FIRST, &[Cancelled, Succeeded])],
        next: |seen| seen.works(FIRST).then_some(Deed::Cancel(FIRST)),
        runbook: |stage, kind| json!({ "steps": [stage.question(kind, FIRST)] }),
        ..PLAIN
    },
    lost("lost-ran", Settlement::Ran, &[(FIRST, &[Succeeded])]),
    lost("lost-did-not-run", Settlement::DidNotRun, &[(FIRST, &[Failed])]),
    lost("lost-aborted", Settlement::Abort, &[(FIRST, &[Failed])]),
    Kind { work: "hangs-at-first", ..lost("lost-again", Settlement::Again, &[(FIRST, &[Succeeded])]) },
    // Once its check says that it did not happen, once that it did.
    Kind {
        name: "checked",
        work: "late",
        step: |stage, kind| {
            let retry = json!({ "attempts": 3, "delay": "100ms" });
            json!({ "timeout": "2s", "effect": "checkable", "check": stage.check(kind, FIRST), "retry": retry })
        },
        ..PLAIN
    },
];

impl Kind {
    /// What is done next.
    pub(super) fn next(&self, seen: &Seen<'_>) -> Option<Deed> {
        (self.next)(seen)
    }

    pub(super) fn route(&self) -> Value {
        let remedy = with(json!({ "runbook": self.name, "mode": "auto" }), (self.remedy)());
        json!({ "name": self.name, "match": [format!("alertname={:?}", self.name)], "incident": { "group_by": ["part"] }, "remedy": remedy })
    }

    pub(super) fn runbook(&self, stage: &Stage) -> Value {
        let step = with(stage.step(self, "work", "{{ labels.part }}", &stage.target(self)), (self.step)(stage, self));
        with(json!({ "approval": { "roles": ["sre"] }, "steps": [step] }), (self.runbook)(stage, self))
    }
}

/// A map, and entries in the place of some of its own.
fn with(mut map: Value, more: Value) -> Value {
    if let (Value::Object(map), Value::Object(more)) = (&mut map, more) {
        map.extend(more);
    }
    map
}
