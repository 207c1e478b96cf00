//! One error for every refusal that this crate answers: a problem document (RFC 9457) with a stable `code`.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::inbox::InboxError;
use domain::permission::Denied;
use serde_json::json;

/// Why a request was not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No credentials, or wrong ones. Never says which.
    #[error("No valid credentials.")]
    Unauthorized,
    /// Known, but not allowed.
    #[error("{detail}")]
    Forbidden {
        /// A stable word.
        code: String,
        /// What to do.
        detail: String,
    },
    /// There is no such thing.
    #[error("There is no such {0}.")]
    NotFound(&'static str),
    /// The path exists, the method does not.
    #[error("This path does not answer that method.")]
    Method,
    /// The request cannot be understood.
    #[error("{0}")]
    Invalid(String),
    /// The body is larger than the route takes.
    #[error("The body is larger than the {0} bytes that this route takes.")]
    TooLarge(usize),
    /// The body is compressed, or of a type that the route does not take.
    #[error("{0}")]
    Unsupported(&'static str),
    /// What was asked for does not fit the present state.
    #[error("{detail}")]
    Conflict {
        /// A stable word.
        code: String,
        /// What to do.
        detail: String,
    },
    /// Not now. Always 503 and never 429: Alertmanager tries again only after a 5xx.
    #[error("{detail}")]
    Busy {
        /// A stable word.
        code: &'static str,
        /// What is short.
        detail: String,
    },
    /// A fault of ours. The caller learns a number, the log says the rest.
    #[error("internal fault: {0}")]
    Internal(String),
}

/// Seconds after which a refused sender may come back.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

impl ApiError {
    /// Status, title and stable code.
    fn parts(&self) -> (StatusCode, &'static str, &str) {
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "Unauthorized", "unauthorized"),
            Self::Forbidden { code, .. } => (StatusCode::FORBIDDEN, "Forbidden", code),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "Not found", "not_found"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", "method_not_allowed"),
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "Bad request", "invalid"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "Too large", "too_large"),
            Self::Unsupported(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported", "unsupported"),
            Self::Conflict { code, .. } => (StatusCode::CONFLICT, "Conflict", code),
            Self::Busy { code, .. } => (StatusCode::SERVICE_UNAVAILABLE, "Try again", code),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "Internal error", "internal"),
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.parts().0
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        static FAULTS: AtomicU64 = AtomicU64::new(1);
        let (status, title, code) = self.parts();
        let detail = match &self {
            Self::Internal(why) => {
                let fault = FAULTS.fetch_add(1, Ordering::Relaxed);
                tracing::error!(fault, error = %why, "a request failed inside");
                format!("Something failed inside. The log says what, under fault {fault}.")
            }
            told => told.to_string(),
        };
        let body = json!({"type": "about:blank", "title": title, "status": status.as_u16(), "code": code, "detail": detail});
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response();
        match self {
            Self::Busy { .. } => _ = response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER),
            Self::Unauthorized => _ = response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            _ => {}
        }
        response
    }
}

impl From<InboxError> for ApiError {
    fn from(error: InboxError) -> Self {
        match error {
            InboxError::Overloaded => Self::Busy { code: "overloaded", detail: "Too much at once: send it again.".to_owned() },
            InboxError::Unavailable(why) => {
                tracing::error!(error = %why, "the store is unavailable");
                Self::store_unavailable()
            }
        }
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        Self::Forbidden { code: denied.code().to_owned(), detail: denied.to_string() }
    }
}

impl ApiError {
    /// The store cannot be reached.
    pub(crate) fn store_unavailable() -> Self {
        Self::Busy { code: "store_unavailable", detail: "The store is unavailable: nothing was recorded. Try again.".to_owned() }
    }

    /// The store does not answer in time.
    pub(crate) fn store_slow() -> Self {
        let detail = "The store is slow: it may be recorded all the same. Look before you try again; a webhook may always be sent again.";
        Self::Busy { code: "store_unavailable", detail: detail.to_owned() }
    }
}
