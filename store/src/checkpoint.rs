//! Moves SQLite's log into its file beside the writer, so that no commit has to wait for it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::SqliteConnection;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::gate::{Gate, Line};

/// After a commit this long passes before the log is looked at.
const PAUSE: Duration = Duration::from_millis(250);
/// Pages in the log below which moving them is not worth the two syncs.
const WORTH: i64 = 1_000;
/// A log that is longer than this must come to its end, so that it begins anew: then writers wait while the last few pages are moved.
const LONG: i64 = 12_000;
/// So many new pages between two looks are a rush. To move them beside the writers slows every commit, for their syncs wait for each other; one short
/// stop delays fewer.
const RUSH: i64 = 8_000;
/// So few that they are moved in about a millisecond.
const FEW: i64 = 100;
/// Each pass leaves what was written during the last one, which is less.
const PASSES: usize = 6;

/// Bytes that the log has from the start: a little more than it grows to before it first begins anew, where little is written.
const ROOM: u64 = 6 << 20;

/// Makes the log of a database that is open as long as it will be, before anything waits for it. To sync what was written over bytes of a file takes less
/// than to sync a file that grew, whose length and blocks the file system has to write down as well: a fifth of a small commit. The zeros are no frames to SQLite, whose
/// checksums they do not have (sqlite.org/fileformat2.html#walformat).
///
/// # Errors
/// If that cannot be written; then the log is as it was.
pub(crate) fn lengthen(log: &Path) -> io::Result<()> {
    let mut file = File::options().append(true).open(log)?;
    let length = file.metadata()?.len();
    let written = io::copy(&mut io::repeat(0).take(ROOM.saturating_sub(length)), &mut file).and_then(|_| file.sync_all());
    if written.is_err() {
        file.set_len(length)?;
    }
    written
}

/// The task that does it. It ends with this value.
#[derive(Debug)]
pub(crate) struct Checkpoints(JoinHandle<()>);

impl Checkpoints {
    /// Begins. `written` is notified after every commit.
    pub(crate) fn start(mut conn: SqliteConnection, gate: Arc<Gate>, written: Arc<Notify>) -> Self {
        Self(tokio::spawn(async move {
            loop {
                written.notified().await;
                tokio::time::sleep(PAUSE).await;
                if let Err(error) = shorten(&mut conn, &gate).await {
                    // The writer does it itself when the log gets very long.
                    tracing::warn!(%error, "the log could not be moved into the database file");
                }
            }
        }))
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn shorten(conn: &mut SqliteConnection, gate: &Arc<Gate>) -> sqlx::Result<()> {
    let (mut pages, mut moved) = checkpoint(conn, "pragma wal_checkpoint(noop)").await?;
    let rush = pages - moved > RUSH;
    for _ in 0..PASSES {
        if rush || pages < WORTH || pages - moved < FEW {
            break;
        }
        (pages, moved) = checkpoint(conn, "pragma wal_checkpoint(passive)").await?;
    }
    // That the last pass moved all that it found says nothing: the log has grown meanwhile.
    if rush || pages > LONG {
        let _nobody_writes = gate.enter(Line::Other).await;
        checkpoint(conn, "pragma wal_checkpoint(passive)").await?;
    }
    Ok(())
}

/// How many pages the log has, and how many of them were moved.
async fn checkpoint(conn: &mut SqliteConnection, pragma: &'static str) -> sqlx::Result<(i64, i64)> {
    let (_busy, pages, moved): (i64, i64, i64) = sqlx::query_as(pragma).fetch_one(conn).await?;
    Ok((pages, moved))
}
