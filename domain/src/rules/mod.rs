//! The rule set: all configuration that decides, compiled. Immutable, known by its digest.
//!
//! `tree` reads YAML with places, `decode` turns it into the structs of `schema`, `compile` makes a [`RuleSet`] of them or says everything that is
//! wrong. The server reads its own part of the same files with the same tools.

pub mod decode;
pub mod problem;
pub mod report;
pub mod schema;
pub mod tree;

mod compile;
mod model;
#[cfg(test)]
mod tests;
mod yaml;

pub use compile::{BUILT_IN_ROLES, CATCH_ALL, compile, compile_tree};
pub use model::{
    Channel, Channels, IncidentRule, Mode, ParamSpec, ParamType, Remedy, Route, RuleSet, Runbook, Severity, SourceRule, StepSpec,
    VerifySpec,
};
pub use problem::Problem;
pub use report::Report;
pub use schema::json_schema;
