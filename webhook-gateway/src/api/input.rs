//! Reads what callers send: JSON bodies, query strings and ids, each refused with a problem document.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::body::{Bounds, read};
use crate::error::ApiError;
use crate::gateway::App;
use crate::json;

/// A JSON body. Put it after `Caller`: the body of somebody unknown is not read.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let limits = &app.settings.limits;
        let bounds = Bounds { limit: limits.body, within: limits.body_time, budget: &app.proven, proven: true };
        let body = read(&parts.headers, body, &bounds).await?;
        // Nothing to say is an empty object.
        let bytes = if body.is_empty() { &b"{}"[..] } else { &body };
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
        if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
            return Err(ApiError::Unsupported("Send `Content-Type: application/json`."));
        }
        json::bounded(bytes).map_err(|bound| ApiError::Invalid(format!("The body is {bound}.")))?;
        serde_json::from_slice(bytes).map(Self).map_err(|error| ApiError::Invalid(format!("The body does not fit: {error}")))
    }
}

/// The query string; with `deny_unknown_fields` an unknown word in it is an error.
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, app).await {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(error) => Err(ApiError::Invalid(format!("The query does not fit: {}", error.body_text()))),
        }
    }
}

/// The variable part of the path: an id or a name.
pub(crate) struct Named<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Named<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, app).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(ApiError::NotFound("id: the path wants another form of it")),
        }
    }
}

/// Entries per page when the caller does not say, and at most.
const PAGE: i64 = 50;
const MAX_PAGE: i64 = 500;

/// The number of entries to answer with.
pub(crate) fn page(asked: Option<i64>) -> i64 {
    asked.unwrap_or(PAGE).clamp(1, MAX_PAGE)
}
