//! Signing in: sessions of browsers, tokens of programs, passwords, and one-time links. Secrets come here hashed.

use std::collections::BTreeSet;

use domain::id::{SessionId, TokenId};
use domain::permission::Right;
use jiff::Timestamp;

use crate::codec::{clean, from_doc, id, maybe_time, micros, time, to_doc};
use crate::tx::{exec, row, rows};
use crate::{Error, Tx};

/// A signed-in browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Its id, part of the cookie.
    pub id: SessionId,
    /// Hash of the cookie's secret part.
    pub secret_hash: Vec<u8>,
    /// Who.
    pub principal: String,
    /// What its forms must carry.
    pub csrf: String,
    /// Since when.
    pub created_at: Timestamp,
    /// When it was last used.
    pub last_seen: Timestamp,
    /// Until when, at the latest.
    pub expires_at: Timestamp,
}

/// An API token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// Its id, the public part.
    pub id: TokenId,
    /// Hash of the secret part.
    pub secret_hash: Vec<u8>,
    /// On whose behalf it acts.
    pub principal: String,
    /// What people call it.
    pub name: String,
    /// What it may do, within its principal's rights.
    pub rights: BTreeSet<Right>,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when; `None` for ever.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used.
    pub last_used: Option<Timestamp>,
}

type Session = (String, Vec<u8>, String, String, i64, i64, i64);
type Token = (String, Vec<u8>, String, String, String, i64, Option<i64>, Option<i64>, Option<i64>);

impl Tx {
    /// Stores a new session.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is stored already.
    pub async fn insert_session(&mut self, session: &SessionRow) -> Result<(), Error> {
        exec!(
            self,
            "insert into sessions (id, secret_hash, principal, csrf, created_at, last_seen, expires_at) values ($1, $2, $3, $4, $5, $6, $7)",
            session.id.to_string(),
            &session.secret_hash[..],
            clean(&session.principal),
            &session.csrf,
            micros(session.created_at),
            micros(session.last_seen),
            micros(session.expires_at)
        );
        Ok(())
    }

    /// A session, expired or not.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn session(&mut self, session: SessionId) -> Result<Option<SessionRow>, Error> {
        let found: Option<Session> = row!(
            self,
            "select id, secret_hash, principal, csrf, created_at, last_seen, expires_at from sessions where id = $1",
            session.to_string()
        );
        let one = |(text, secret_hash, principal, csrf, created, seen, expires): Session| {
            Ok(SessionRow {
                id: id("sessions", &text)?,
                secret_hash,
                principal,
                csrf,
                created_at: time("sessions", &text, created)?,
                last_seen: time("sessions", &text, seen)?,
                expires_at: time("sessions", &text, expires)?,
            })
        };
        found.map(one).transpose()
    }

    /// Notes that a session was used.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn touch_session(&mut self, session: SessionId, last_seen: Timestamp) -> Result<(), Error> {
        exec!(self, "update sessions set last_seen = $1 where id = $2", micros(last_seen), session.to_string());
        Ok(())
    }

    /// Ends a session. False if there is none.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn delete_session(&mut self, session: SessionId) -> Result<bool, Error> {
        Ok(exec!(self, "delete from sessions where id = $1", session.to_string()) > 0)
    }

    /// Ends all sessions of somebody; how many there were.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn delete_sessions_of(&mut self, principal: &str) -> Result<u64, Error> {
        Ok(exec!(self, "delete from sessions where principal = $1", clean(principal)))
    }

    /// Forgets what has expired: sessions and used links.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn prune_signin(&mut self, now: Timestamp) -> Result<(), Error> {
        exec!(self, "delete from sessions where expires_at < $1", micros(now));
        exec!(self, "delete from used_links where expires_at < $1", micros(now));
        Ok(())
    }

    /// Stores a new token.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is stored already.
    pub async fn insert_token(&mut self, token: &TokenRow) -> Result<(), Error> {
        exec!(
            self,
            "insert into tokens (id, secret_hash, principal, name, rights, created_at, expires_at, revoked_at, last_used) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            token.id.to_string(),
            &token.secret_hash[..],
            clean(&token.principal),
            clean(&token.name),
            to_doc(&token.rights)?,
            micros(token.created_at),
            token.expires_at.map(micros),
            token.revoked_at.map(micros),
            token.last_used.map(micros)
        );
        Ok(())
    }

    /// A token, revoked or expired or not.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn token(&mut self, token: TokenId) -> Result<Option<TokenRow>, Error> {
        let found: Option<Token> = row!(
            self,
            "select id, secret_hash, principal, name, rights, created_at, expires_at, revoked_at, last_used from tokens where id = $1",
            token.to_string()
        );
        found.map(token_row).transpose()
    }

    /// All tokens, oldest first.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn tokens(&mut self) -> Result<Vec<TokenRow>, Error> {
        let found: Vec<Token> = rows!(
            self,
            "select id, secret_hash, principal, name, rights, created_at, expires_at, revoked_at, last_used from tokens order by created_at, id"
        );
        found.into_iter().map(token_row).collect()
    }

    /// Notes that a token was used.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn touch_token(&mut self, token: TokenId, last_used: Timestamp) -> Result<(), Error> {
        exec!(self, "update tokens set last_used = $1 where id = $2", micros(last_used), token.to_string());
        Ok(())
    }

    /// Revokes a token for good. False if there is none, or it was revoked before.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn revoke_token(&mut self, token: TokenId, at: Timestamp) -> Result<bool, Error> {
        Ok(exec!(self, "update tokens set revoked_at = $1 where id = $2 and revoked_at is null", micros(at), token.to_string()) > 0)
    }

    /// Sets somebody's password: its argon2 string.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn set_password(&mut self, principal: &str, argon2: &str) -> Result<(), Error> {
        let now = micros(self.core.clock.now());
        exec!(
            self,
            "insert into passwords (principal, hash, changed_at) values ($1, $2, $3) \
             on conflict (principal) do update set hash = excluded.hash, changed_at = excluded.changed_at",
            clean(principal),
            argon2,
            now
        );
        Ok(())
    }

    /// Somebody's argon2 string, if they set a password.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn password(&mut self, principal: &str) -> Result<Option<String>, Error> {
        let found: Option<(String,)> = row!(self, "select hash from passwords where principal = $1", clean(principal));
        Ok(found.map(|(hash,)| hash))
    }

    /// Uses a one-time link. True for the first who does, once this transaction lasts.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn use_link(&mut self, jti: &str, expires: Timestamp) -> Result<bool, Error> {
        let used = exec!(
            self,
            "insert into used_links (jti, expires_at) values ($1, $2) on conflict (jti) do nothing",
            clean(jti),
            micros(expires)
        );
        Ok(used == 1)
    }
}

fn token_row((text, secret_hash, principal, name, rights, created, expires, revoked, used): Token) -> Result<TokenRow, Error> {
    Ok(TokenRow {
        id: id("tokens", &text)?,
        secret_hash,
        principal,
        name,
        rights: from_doc("tokens", &text, &rights)?,
        created_at: time("tokens", &text, created)?,
        expires_at: maybe_time("tokens", &text, expires)?,
        revoked_at: maybe_time("tokens", &text, revoked)?,
        last_used: maybe_time("tokens", &text, used)?,
    })
}
