//! Passwords, as Argon2id strings. Hashing takes a core for a moment, so it is kept off the request threads and bounded.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// Shortest password, in characters.
pub(super) const SHORTEST: usize = 12;
/// Longest password, in bytes: hashing is not for free.
const LONGEST: usize = 1024;
/// Hashes at once: each takes 19 MiB.
static TURNS: Semaphore = Semaphore::const_new(2);

/// What is stored of a password.
///
/// # Errors
/// If it is too short or too long.
pub(super) async fn hash(password: String) -> Result<String, ApiError> {
    if password.chars().count() < SHORTEST || password.len() > LONGEST {
        return Err(ApiError::Invalid(format!("A password takes {SHORTEST} characters or more.")));
    }
    heavy(move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()).map_err(|error| error.to_string()))
        .await?
        .map_err(ApiError::Internal)
}

/// Whether a password is the stored one. Without a stored one it takes as long, and is never right.
///
/// # Errors
/// If the work could not be done.
pub(super) async fn is(password: String, stored: Option<String>) -> Result<bool, ApiError> {
    if password.len() > LONGEST {
        return Ok(false);
    }
    heavy(move || {
        let Some(stored) = stored else {
            // The same work, so that time does not tell who has a password.
            drop(Argon2::default().hash_password(password.as_bytes()));
            return false;
        };
        PasswordHash::new(&stored).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    })
    .await
}

async fn heavy<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let _turn = TURNS.acquire().await.map_err(|error| ApiError::Internal(error.to_string()))?;
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::Internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_itself_and_nothing_else() {
        let stored = hash("correct horse battery".to_owned()).await.unwrap();
        assert!(stored.starts_with("$argon2id$"));
        assert!(is("correct horse battery".to_owned(), Some(stored.clone())).await.unwrap());
        assert!(!is("correct horse batterz".to_owned(), Some(stored)).await.unwrap());
        assert!(!is(String::new(), None).await.unwrap());
        assert!(hash("short".to_owned()).await.is_err());
    }
}
