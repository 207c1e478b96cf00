//! What every answer passes: security headers, counting, and the net under a panic.

use std::any::Any;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::gateway::App;

/// Set unless the route has set its own. A page of the console brings a policy that fits it.
const HEADERS: [(HeaderName, HeaderValue); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];
/// A connection that is kept would be cut when the door closes, perhaps with a request under way.
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds the headers, counts the request and measures it. Labels are route patterns, never paths.
pub(crate) async fn every(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().as_str().to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(value);
    }
    if app.settings.https {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    if app.stopping.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, CLOSE);
    }
    let known = matches!(method.as_str(), "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS");
    let method = if known { method } else { "other".to_owned() };
    let code = response.status().as_str().to_owned();
    metrics::counter!("watchkeeper_http_requests_total", "route" => route.clone(), "method" => method, "code" => code).increment(1);
    metrics::histogram!("watchkeeper_http_request_duration_seconds", "route" => route).record(began.elapsed());
    response
}

/// A panic in a handler is a fault like any other: the answer says a number, the log says the rest.
#[expect(clippy::needless_pass_by_value, reason = "the shape that tower-http asks for")]
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    ApiError::Internal(format!("a handler panicked: {}", text.unwrap_or("no text"))).into_response()
}
