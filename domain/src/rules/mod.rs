//! The rule set: all configuration that decides, compiled. Immutable, known by its digest.

mod model;

pub use model::{
    Channel, Channels, IncidentRule, Mode, ParamSpec, ParamType, Remedy, Route, RuleSet, Runbook, Severity, SourceRule, StepSpec, VerifySpec,
};
