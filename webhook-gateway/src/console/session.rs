//! Who is looking: the session behind the cookie, and the token that its forms must carry.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use domain::act::Identity;
use domain::id::SessionId;
use domain::permission::{Principal, Right};
use jiff::SignedDuration;
use sha2::{Digest, Sha256};
use store::SessionRow;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::api::ask;
use crate::error::ApiError;
use crate::gateway::App;

/// A session that was not used for this long is over.
const IDLE: SignedDuration = SignedDuration::from_hours(12);
/// A session is over after this long in any case.
const LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Its use is written down at most this often.
const TOUCH: SignedDuration = SignedDuration::from_mins(5);

/// A signed-in person with the right to look.
pub(super) struct Viewer {
    pub(super) principal: Principal,
    pub(super) session: SessionId,
    pub(super) csrf: String,
    /// Whether they may read the audit log.
    pub(super) may_audit: bool,
    /// Whether there are agents to show.
    pub(super) agents: bool,
}

/// Why somebody is not let in: a page sends them to sign in, a form or a stream gets a plain refusal.
pub(super) struct NotSignedIn;

impl IntoResponse for NotSignedIn {
    fn into_response(self) -> Response {
        Redirect::to("/login").into_response()
    }
}

impl FromRequestParts<App> for Viewer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let session = current(app, &parts.headers).await.map_err(IntoResponse::into_response)?;
        let session = session.ok_or_else(|| NotSignedIn.into_response())?;
        let rules = app.rules.load();
        let principal = rules.people.principals.get(&session.principal).cloned().ok_or_else(|| NotSignedIn.into_response())?;
        if !rules.people.has(&principal, Right::View) {
            let detail = format!("{} may not look: it takes a role with the right `view`.", principal.name);
            return Err(ApiError::Forbidden { code: "no_right".to_owned(), detail }.into_response());
        }
        let may_audit = rules.people.has(&principal, Right::Audit);
        Ok(Self { principal, session: session.id, csrf: session.csrf, may_audit, agents: app.agents.is_some() })
    }
}

impl Viewer {
    pub(super) fn identity(&self) -> Identity {
        let name = self.principal.name.clone();
        Identity { platform: "console".to_owned(), workspace: String::new(), user: name.clone(), display: name, barred: None }
    }

    /// Refuses a form that did not come from our own page.
    ///
    /// # Errors
    /// 403.
    pub(super) fn check_form(&self, app: &App, headers: &HeaderMap, csrf: &str) -> Result<(), ApiError> {
        let right = bool::from(self.csrf.as_bytes().ct_eq(csrf.as_bytes()));
        if right && same_origin(app, headers) {
            return Ok(());
        }
        let detail = "This form is not from this page, or the page is too old. Load it again and press once more.".to_owned();
        Err(ApiError::Forbidden { code: "cross_site".to_owned(), detail })
    }
}

/// Whether the browser says that a request comes from our own pages. `Origin: null` does not.
pub(super) fn same_origin(_app: &App, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin";
    }
    let host = text(header::HOST);
    match text(header::ORIGIN) {
        Some(origin) => origin.split_once("://").map(|(_, host)| host) == host && host.is_some(),
        None => true,
    }
}

/// Begins a session; gives the cookie that carries it.
///
/// # Errors
/// If there is no randomness or no store.
pub(super) async fn begin(app: &App, principal: &str) -> Result<HeaderValue, ApiError> {
    let now = app.clock.now();
    let (secret, csrf) = (random()?, random()?);
    let row = SessionRow {
        id: SessionId::new(now),
        secret_hash: Sha256::digest(secret.as_bytes()).to_vec(),
        principal: principal.to_owned(),
        csrf,
        created_at: now,
        last_seen: now,
        expires_at: now + LIFE,
    };
    ask(app, async {
        let mut tx = app.store.begin().await?;
        tx.prune_signin(now).await?;
        tx.insert_session(&row).await?;
        tx.commit().await
    })
    .await?;
    cookie(app, &format!("{}.{secret}", row.id.0.simple()), LIFE.as_secs())
}

/// Ends a session; gives the cookie that forgets it.
///
/// # Errors
/// If there is no store.
pub(super) async fn end(app: &App, session: SessionId) -> Result<HeaderValue, ApiError> {
    ask(app, async {
        let mut tx = app.store.begin().await?;
        tx.delete_session(session).await?;
        tx.commit().await
    })
    .await?;
    cookie(app, "", 0)
}

async fn current(app: &App, headers: &HeaderMap) -> Result<Option<SessionRow>, ApiError> {
    let Some((id, secret)) = given(app, headers) else { return Ok(None) };
    let found = ask(app, async { app.store.read().await?.session(id).await }).await?;
    let now = app.clock.now();
    let right = |row: &SessionRow| bool::from(Sha256::digest(secret.as_bytes()).as_slice().ct_eq(&row.secret_hash));
    let Some(row) = found.filter(right) else { return Ok(None) };
    if row.expires_at <= now || row.last_seen + IDLE <= now {
        return Ok(None);
    }
    if row.last_seen + TOUCH <= now {
        ask(app, async {
            let mut tx = app.store.begin().await?;
            tx.touch_session(id, now).await?;
            tx.commit().await
        })
        .await?;
    }
    Ok(Some(row))
}

fn given(app: &App, headers: &HeaderMap) -> Option<(SessionId, String)> {
    let name = cookie_name(app);
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    let value = all.filter_map(|pair| pair.trim().split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)?;
    let (id, secret) = value.split_once('.')?;
    Some((SessionId(Uuid::try_parse(id).ok()?), secret.to_owned()))
}

/// `__Host-` binds the cookie to this host and to HTTPS, where there is HTTPS.
fn cookie_name(app: &App) -> &'static str {
    if app.settings.https { "__Host-watchkeeper" } else { "watchkeeper" }
}

fn cookie(app: &App, value: &str, seconds: i64) -> Result<HeaderValue, ApiError> {
    let secure = if app.settings.https { "; Secure" } else { "" };
    let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}", cookie_name(app));
    HeaderValue::from_str(&text).map_err(|error| ApiError::Internal(error.to_string()))
}

fn random() -> Result<String, ApiError> {
    let mut bytes = [0_u8; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| ApiError::Internal("the system gives no randomness".to_owned()))?;
    Ok(hex::encode(bytes))
}
