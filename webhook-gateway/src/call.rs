//! Calls of the API that come another way than by HTTP (NATS): the same routes, guards, credentials and answers.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use bytes::Bytes;
use domain::inbox::{HttpRequest, HttpResponse};
use tower::ServiceExt;

/// Longest answer, in bytes.
const MOST: usize = 1024 * 1024;

/// Answers a `POST` as if it had come by HTTP.
pub async fn call(router: Router, request: HttpRequest) -> HttpResponse {
    let mut http = Request::post(request.path);
    for (name, value) in request.headers {
        http = http.header(name, value);
    }
    let Ok(http) = http.body(Body::from(request.body)) else {
        return HttpResponse::text(StatusCode::BAD_REQUEST.as_u16(), "a header or the path cannot be sent");
    };
    let Ok(response) = router.oneshot(http).await;
    let (parts, body) = response.into_parts();
    let told = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = match told {
        kind if kind.starts_with("application/problem+json") => "application/problem+json",
        kind if kind.starts_with("application/json") => "application/json",
        _ => "text/plain; charset=utf-8",
    };
    let body = to_bytes(body, MOST).await.unwrap_or_else(|_| Bytes::new());
    HttpResponse { status: parts.status.as_u16(), content_type, body }
}
