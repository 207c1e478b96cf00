//! Who calls the API: the owner of a token, with what both the token and its principal allow.

use std::collections::BTreeSet;

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::header;
use axum::http::request::Parts;
use domain::act::Identity;
use domain::audit::{AuditDecision, NewAudit};
use domain::id::TokenId;
use domain::permission::{Principal, Right};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::ask;
use crate::auth::Refusal;
use crate::error::ApiError;
use crate::gateway::App;
use crate::tokens::{Token, effective};

/// A token's use is noted this often: it tells which tokens nobody needs any more, not who did what.
const USE_NOTED: SignedDuration = SignedDuration::from_mins(1);

/// A caller who proved who they are.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    /// What the token allows, of what the principal may.
    pub(crate) rights: BTreeSet<Right>,
    pub(crate) token: TokenId,
    /// When the token ends; `None` for ever.
    pub(crate) expires_at: Option<Timestamp>,
    /// What is called, for the audit log.
    call: String,
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let refuse = |why| {
            app.refusals.count("api", why);
            ApiError::Unauthorized
        };
        let Some(value) = parts.headers.get(header::AUTHORIZATION) else { return Err(refuse(Refusal::Absent)) };
        let text = value.to_str().ok().and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let given = text.and_then(|(_, token)| Token::read(token.trim())).ok_or_else(|| refuse(Refusal::Wrong))?;
        let stored = ask(app, async { app.store.read().await?.token(given.id).await }).await?;
        let now = app.clock.now();
        // The hash is compared before anything else is looked at: whoever has no secret learns nothing of the token.
        let stored = stored.filter(|stored| given.is(&stored.secret_hash)).ok_or_else(|| refuse(Refusal::Wrong))?;
        if stored.revoked_at.is_some() || stored.expires_at.is_some_and(|end| end <= now) {
            return Err(refuse(Refusal::Wrong));
        }
        let rules = app.rules.load();
        let principal = rules.people.principals.get(&stored.principal).ok_or_else(|| refuse(Refusal::Wrong))?.clone();
        let may: BTreeSet<Right> = Right::ALL.into_iter().filter(|right| rules.people.has(&principal, *right)).collect();
        if stored.last_used.is_none_or(|at| now.duration_since(at) >= USE_NOTED) {
            note_use(app, stored.id, now);
        }
        let path = parts.extensions.get::<OriginalUri>().map_or(parts.uri.path(), |original| original.path());
        Ok(Self {
            rights: effective(&stored.rights, &may),
            token: stored.id,
            expires_at: stored.expires_at,
            call: format!("{} {path}", parts.method),
            principal,
        })
    }
}

/// In the background: nobody waits for it, and nothing depends on it.
fn note_use(app: &App, token: TokenId, now: Timestamp) {
    let store = app.store.clone();
    tokio::spawn(async move {
        let noted = async {
            let mut tx = store.begin().await?;
            tx.touch_token(token, now).await?;
            tx.commit().await
        };
        if let Err(error) = noted.await {
            tracing::debug!(%error, "the use of a token could not be noted");
        }
    });
}

impl Caller {
    /// The caller as an actor.
    pub(crate) fn identity(&self) -> Identity {
        let name = self.principal.name.clone();
        Identity { platform: "api".to_owned(), workspace: String::new(), user: name.clone(), display: name, barred: None }
    }

    /// Refuses a caller without `right`, and writes that down: they are known.
    ///
    /// # Errors
    /// 403, saying whether it is the token or the person that lacks it.
    pub(crate) async fn needs(&self, app: &App, right: Right) -> Result<(), ApiError> {
        if self.rights.contains(&right) {
            return Ok(());
        }
        let rules = app.rules.load_full();
        let refusal = match rules.people.check(&self.identity(), right) {
            Err(denied) => denied.into(),
            Ok(_) => self.out_of_scope(right),
        };
        self.write_down(app, &refusal).await?;
        Err(refusal)
    }

    /// Refuses a caller whose token does not allow `right`. Whether the person may is for the handlers to say and to write down.
    ///
    /// # Errors
    /// 403.
    pub(crate) async fn scope_allows(&self, app: &App, right: Right) -> Result<(), ApiError> {
        let rules = app.rules.load_full();
        if self.rights.contains(&right) || !rules.people.has(&self.principal, right) {
            return Ok(());
        }
        let refusal = self.out_of_scope(right);
        self.write_down(app, &refusal).await?;
        Err(refusal)
    }

    fn out_of_scope(&self, right: Right) -> ApiError {
        let detail = format!(
            "This token does not allow {right:?}. Make one that does: on your own page of the console, or by `watchkeeper token create`."
        );
        ApiError::Forbidden { code: "token_scope".to_owned(), detail }
    }

    async fn write_down(&self, app: &App, refusal: &ApiError) -> Result<(), ApiError> {
        let ApiError::Forbidden { code, .. } = refusal else { return Ok(()) };
        metrics::counter!("watchkeeper_authz_denied_total", "reason" => code.clone()).increment(1);
        let row = self.row(app.clock.now(), &self.call, "api", AuditDecision::Refused, code);
        ask(app, async {
            let mut tx = app.store.begin().await?;
            tx.audit(&row).await?;
            tx.commit().await
        })
        .await
    }

    /// A row of the audit log about something that this caller did.
    pub(crate) fn row(&self, at: Timestamp, action: &str, object: &str, decision: AuditDecision, reason: &str) -> NewAudit {
        NewAudit {
            at,
            actor: format!("principal:{}", self.principal.name),
            action: action.to_owned(),
            object: object.to_owned(),
            decision,
            reason: reason.to_owned(),
            detail: json!({"token": self.token}),
        }
    }
}
