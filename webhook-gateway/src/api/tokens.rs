//! `/api/v1/tokens`: make, list and revoke tokens. The secret is shown once, in the answer that made it.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use domain::audit::{AuditDecision, NewAudit};
use domain::duration::Dur;
use domain::id::TokenId;
use domain::permission::{Principal, Right};
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use store::TokenRow;

use super::input::{Body, Named};
use super::{Caller, ask};
use crate::error::ApiError;
use crate::gateway::App;
use crate::tokens::Token;

/// How long a token lives when nobody says.
const LIFE: Dur = Dur::from_hours(90 * 24);
/// And at most.
const MAX_LIFE: Dur = Dur::from_hours(366 * 24);
/// Longest name, in characters.
const MAX_NAME: usize = 100;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/tokens", get(list).post(create)).route("/tokens/{id}", delete(revoke))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// What people call it.
    name: String,
    /// For whom: the caller, or a service account.
    principal: Option<String>,
    /// What it may do.
    rights: BTreeSet<Right>,
    /// `90d`
    expires_in: Option<Dur>,
}

/// `POST /tokens` with `{name, rights, principal?, expires_in?}`: 201 with `{id, token, expires_at}`.
///
/// Everybody may make tokens for themselves, never with more rights or a longer life than the token that they call with has. Those of service
/// accounts need the right `admin`. Nobody makes tokens of other people: an approval is somebody's own word.
async fn create(State(app): State<App>, caller: Caller, Body(wanted): Body<Wanted>) -> Result<Response, ApiError> {
    let now = app.clock.now();
    let name = domain::text::clean_line(wanted.name.trim(), MAX_NAME);
    if name.is_empty() || wanted.rights.is_empty() {
        return Err(ApiError::Invalid("A token needs a `name` and at least one of the `rights`.".to_owned()));
    }
    let principal = owner(&app, &caller, wanted.principal.as_deref()).await?;
    let allowed = if principal.name == caller.principal.name { caller.rights.clone() } else { rights_of(&app, &principal) };
    if let Some(right) = wanted.rights.difference(&allowed).next() {
        let detail = format!("{right:?} is more than a token for {} can be given here.", principal.name);
        return Err(ApiError::Forbidden { code: "token_scope".to_owned(), detail });
    }
    let expires_at = end(now, wanted.expires_in.unwrap_or(LIFE), caller.expires_at.filter(|_| principal.name == caller.principal.name));
    let order = Order { principal: principal.name, name, rights: wanted.rights, expires_at };
    let mut audit = caller.row(now, "token.create", "", AuditDecision::Allowed, "created");
    audit.detail = json!({"by": caller.token});
    let token = make(&app, &order, audit).await?;
    let body = json!({"id": token.id, "token": token.reveal().expose_secret(), "principal": order.principal, "expires_at": expires_at});
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// A token that is to be made.
pub(crate) struct Order {
    /// Whose it is.
    pub(crate) principal: String,
    /// What people call it.
    pub(crate) name: String,
    /// What it may do: no more than its principal.
    pub(crate) rights: BTreeSet<Right>,
    /// Until when.
    pub(crate) expires_at: Timestamp,
}

/// Makes a token. `audit` says who made it; what was made is added to its `detail`.
///
/// # Errors
/// If there is no randomness or no store.
pub(crate) async fn make(app: &App, order: &Order, mut audit: NewAudit) -> Result<Token, ApiError> {
    let token = Token::mint(audit.at).map_err(ApiError::Internal)?;
    let row = TokenRow {
        id: token.id,
        secret_hash: token.hash().to_vec(),
        principal: order.principal.clone(),
        name: order.name.clone(),
        rights: order.rights.clone(),
        created_at: audit.at,
        expires_at: Some(order.expires_at),
        revoked_at: None,
        last_used: None,
    };
    audit.object = format!("token:{}", token.id);
    for (name, value) in [
        ("principal", json!(row.principal)),
        ("name", json!(row.name)),
        ("rights", json!(row.rights)),
        ("expires_at", json!(row.expires_at)),
    ] {
        audit.detail[name] = value;
    }
    ask(app, async {
        let mut tx = app.store.begin().await?;
        tx.insert_token(&row).await?;
        tx.audit(&audit).await?;
        tx.commit().await
    })
    .await?;
    Ok(token)
}

/// `GET /tokens`: one's own, or with the right `admin` everybody's; never the secrets.
async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    caller.needs(&app, Right::View).await?;
    let all = ask(&app, async { app.store.read().await?.tokens().await }).await?;
    let seen = |row: &&TokenRow| row.principal == caller.principal.name || caller.rights.contains(&Right::Admin);
    let items: Vec<Value> = all.iter().filter(seen).map(view).collect();
    Ok(Json(json!({"items": items})))
}

/// `DELETE /tokens/{id}`: 204. One's own, or with the right `admin` anybody's; for good, and at once.
async fn revoke(State(app): State<App>, caller: Caller, Named(id): Named<TokenId>) -> Result<StatusCode, ApiError> {
    let found = ask(&app, async { app.store.read().await?.token(id).await }).await?;
    let own = |row: &TokenRow| row.principal == caller.principal.name;
    if !found.as_ref().is_some_and(own) {
        caller.needs(&app, Right::Admin).await?;
    }
    let now = app.clock.now();
    let audit = caller.row(now, "token.revoke", &format!("token:{id}"), AuditDecision::Allowed, "revoked");
    if end_of_life(&app, id, &audit).await? { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::NotFound("active token")) }
}

/// Revokes a token; says whether there was one to revoke.
///
/// # Errors
/// If there is no store.
pub(crate) async fn end_of_life(app: &App, id: TokenId, audit: &NewAudit) -> Result<bool, ApiError> {
    ask(app, async {
        let mut tx = app.store.begin().await?;
        let revoked = tx.revoke_token(id, audit.at).await?;
        if revoked {
            tx.audit(audit).await?;
        }
        tx.commit().await?;
        Ok(revoked)
    })
    .await
}

/// For whom the caller may make a token.
async fn owner(app: &App, caller: &Caller, name: Option<&str>) -> Result<Principal, ApiError> {
    let Some(name) = name.filter(|name| *name != caller.principal.name) else { return Ok(caller.principal.clone()) };
    caller.needs(app, Right::Admin).await?;
    let found = app.rules.load().people.principals.get(name).cloned().ok_or(ApiError::NotFound("principal"))?;
    if found.human {
        let detail = format!("Only {name} can make tokens of {name}: in the console, on their own page.");
        return Err(ApiError::Forbidden { code: "not_yours".to_owned(), detail });
    }
    Ok(found)
}

fn rights_of(app: &App, principal: &Principal) -> BTreeSet<Right> {
    let rules = app.rules.load();
    Right::ALL.into_iter().filter(|right| rules.people.has(principal, *right)).collect()
}

/// The end of a token's life, never behind that of the token which made it.
fn end(now: Timestamp, life: Dur, maker: Option<Timestamp>) -> Timestamp {
    let span = SignedDuration::try_from(life.min(MAX_LIFE).as_std()).unwrap_or_default();
    let end = now.checked_add(span).unwrap_or(now);
    maker.map_or(end, |maker| end.min(maker))
}

fn view(row: &TokenRow) -> Value {
    json!({
        "id": row.id,
        "principal": row.principal,
        "name": row.name,
        "rights": row.rights,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
        "last_used": row.last_used,
    })
}
