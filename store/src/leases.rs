//! What only one process may hold at a time.

use jiff::SignedDuration;

use crate::codec::clean;
use crate::gate::Line;
use crate::sight::is_over;
use crate::tx::{exec, row};
use crate::{Error, Store};

impl Store {
    /// Takes or renews the lease of this name for `lease`: its number, which rises with every new holder, or `None` while somebody else has it.
    /// Trust it for two thirds of that time since the call, by the monotonic clock.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn take_lease(&self, name: &str, lease: SignedDuration) -> Result<Option<i64>, Error> {
        let name = clean(name);
        let mut tx = self.core.begin(Line::Other).await?;
        let now = tx.db_now().await?;
        let (instance, start) = (self.core.instance.clone(), self.core.start.to_string());
        let until = now.saturating_add(i64::try_from(lease.as_micros()).unwrap_or(i64::MAX));
        exec!(
            tx,
            "insert into leases (name, instance, start_id, n, stamp, lease_until) values ($1, '', '', 0, 0, 0) on conflict (name) do nothing",
            &*name
        );
        let sql = format!("select start_id, n, stamp, lease_until from leases where name = $1{}", tx.lock(" for update"));
        let found: Option<(String, i64, i64, i64)> = row!(tx, sqlx::AssertSqlSafe(sql.as_str()), &*name);
        let Some((holder, n, stamp, held_until)) = found else { return Err(Error::Retry) };
        let ours = holder == start;
        // On SQLite whoever else held it is no more: the file is ours. Zero says that it was given back.
        let free = ours || held_until == 0 || !tx.is_postgres() || {
            let unchanged = self.core.sightings.unchanged(&format!("lease {name}"), stamp);
            if self.core.server_time() { is_over(held_until, now, unchanged, lease) } else { held_until < now }
        };
        if !free {
            return Ok(None);
        }
        let n = if ours { n } else { n + 1 };
        exec!(
            tx,
            "update leases set instance = $1, start_id = $2, n = $3, stamp = stamp + 1, lease_until = $4 where name = $5",
            instance,
            start,
            n,
            until,
            &*name
        );
        tx.commit().await?;
        Ok(Some(n))
    }

    /// Gives a lease back, so that another may take it at once.
    ///
    /// # Errors
    /// As any use of the database.
    pub async fn release_lease(&self, name: &str) -> Result<(), Error> {
        let mut tx = self.core.begin(Line::Other).await?;
        let start = self.core.start.to_string();
        exec!(tx, "update leases set lease_until = 0, stamp = stamp + 1 where name = $1 and start_id = $2", clean(name), start);
        tx.commit().await
    }
}
