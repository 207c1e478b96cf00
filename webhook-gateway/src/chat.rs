//! Mounts the chat platforms' own routes: headers and bytes go over as they are, the platform's answer comes back.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use domain::inbox::{HttpInbound, HttpRequest};

use crate::body::{Bounds, read};
use crate::error::ApiError;
use crate::gateway::App;

/// Every POST path of every platform.
pub(crate) fn routes(platforms: &[Arc<dyn HttpInbound>]) -> Router<App> {
    let mut router = Router::new();
    for platform in platforms {
        for path in platform.paths() {
            let platform = Arc::clone(platform);
            router = router.route(
                path,
                post(move |State(app): State<App>, request: Request| async move { hand_over(&app, &*platform, path, request).await }),
            );
        }
    }
    router
}

/// The platform checks its signature over the bytes, so nothing is known of the sender here.
async fn hand_over(app: &App, platform: &dyn HttpInbound, path: &str, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let limits = &app.settings.limits;
    let bounds = Bounds { limit: limits.body, within: limits.body_time, budget: &app.unproven, proven: false };
    let body = read(&parts.headers, body, &bounds).await?;
    let request = HttpRequest { path: path.to_owned(), headers: text_headers(&parts.headers), body };
    let answer = platform.handle(request).await;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Ok((status, [(header::CONTENT_TYPE, answer.content_type)], Body::from(answer.body)).into_response())
}

/// Names in lower case, values that are text.
pub(crate) fn text_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let text =
        |(name, value): (&header::HeaderName, &header::HeaderValue)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()));
    headers.iter().filter_map(text).collect()
}
