//! The JSON API: one file per resource. Reads ask the store; whatever changes something is an act in the inbox, like a button press.

mod acts;
mod agents;
mod approvals;
mod audit;
mod automation;
mod caller;
mod events;
mod incidents;
mod input;
mod runbooks;
pub(crate) mod runs;
pub(crate) mod stream;
pub(crate) mod tokens;

use axum::Router;

pub(crate) use self::caller::Caller;
use crate::error::ApiError;
use crate::gateway::App;

pub(crate) fn routes() -> Router<App> {
    let v1 = Router::new()
        .merge(incidents::routes())
        .merge(runs::routes())
        .merge(runbooks::routes())
        .merge(approvals::routes())
        .merge(automation::routes())
        .merge(events::routes())
        .merge(audit::routes())
        .merge(tokens::routes())
        .merge(agents::routes())
        .merge(stream::routes());
    Router::new().nest("/api/v1", v1)
}

/// Runs a question to the store, bounded in time.
///
/// # Errors
/// 503 if the store does not answer, 409 if somebody else was faster, 500 for a row that cannot be read.
pub(crate) async fn ask<T>(app: &App, question: impl Future<Output = Result<T, store::Error>>) -> Result<T, ApiError> {
    match tokio::time::timeout(app.settings.limits.store_time, question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ApiError::store_unavailable()),
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Conflict => {
                Self::Conflict { code: "conflict".to_owned(), detail: "Somebody else changed it at the same time. Look again.".to_owned() }
            }
            error if error.is_transient() => {
                tracing::error!(%error, "the store is unavailable");
                Self::store_unavailable()
            }
            error => Self::Internal(error.to_string()),
        }
    }
}
