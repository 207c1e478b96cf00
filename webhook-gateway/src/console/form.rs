//! Forms of pages, read within the bounds of every other body: who sends one has often proved nothing yet.

use axum::body::Body;
use axum::extract::{self, FromRequest, Request};
use serde::de::DeserializeOwned;

use crate::body::{Bounds, read};
use crate::error::ApiError;
use crate::gateway::App;

/// The longest form, in bytes: a note of 4,000 characters, each of which may be written as twelve.
const LONGEST: usize = 64 * 1024;

/// The fields of a form.
pub(super) struct Form<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<App> for Form<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bounds = Bounds { limit: LONGEST, within: app.settings.limits.body_time, budget: &app.unproven, proven: false };
        let body = read(&parts.headers, body, &bounds).await?;
        let request = Request::from_parts(parts, Body::from(body));
        match extract::Form::from_request(request, app).await {
            Ok(extract::Form(fields)) => Ok(Self(fields)),
            Err(error) => Err(ApiError::Invalid(format!("The form does not fit: {}", error.body_text()))),
        }
    }
}
