//! Everything that comes in by HTTP: alert sources, the API, the chat platforms' own routes, and what operators ask for.
//!
//! An edge: it checks who sends, bounds what is sent, turns it into events and answers after they are stored. It decides nothing.

mod api;
mod auth;
mod body;
mod call;
mod chat;
mod console;
mod error;
mod gateway;
mod guard;
mod health;
mod ingest;
mod json;
mod meters;
mod ops;
mod own;
mod refusals;
mod serve;
mod settings;
mod signature;
pub mod sources;
mod tls;
pub mod tokens;

#[cfg(test)]
mod tests;

pub use auth::{AuthError, Credential, HashedSecret, SourceAuth};
pub use call::call;
pub use console::{ConsoleSettings, LoginLinks, NoLink};
pub use error::ApiError;
pub use gateway::{Gateway, Reload};
pub use health::{Check, Health, HealthProbe};
pub use serve::{Connections, Peers, Stop, serve};
pub use settings::{Limits, Settings, SourceSettings, SourceTable};
pub use tls::TlsFiles;
