//! The console: pages for people, drawn from the same card as every chat, kept current over server-sent events.
//!
//! Pages change nothing by GET: link previews and mail scanners follow links. Every form carries the session's own token.

mod account;
mod acts;
mod agents;
mod approvals;
mod assets;
mod audit;
mod card;
mod form;
mod incident;
mod incidents;
mod layout;
mod link;
mod live;
mod login;
mod password;
mod run;
mod session;
mod words;

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use secrecy::SecretSlice;

use crate::gateway::App;

pub use self::link::{LoginLinks, NoLink};

/// What the console is told at start.
#[derive(Clone)]
pub struct ConsoleSettings {
    /// Signs one-time sign-in links: the first key signs, all of them check.
    pub link_keys: Vec<SecretSlice<u8>>,
}

/// All pages.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(async || Redirect::to("/incidents")))
        .merge(assets::routes())
        .merge(login::routes())
        .merge(account::routes())
        .merge(incidents::routes())
        .merge(incident::routes())
        .merge(approvals::routes())
        .merge(run::routes())
        .merge(agents::routes())
        .merge(audit::routes())
        .merge(acts::routes())
        .merge(live::routes())
}
