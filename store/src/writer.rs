//! SQLite's one writing connection, and the commits that small transactions share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::SqliteConnection;
use tokio::sync::{Mutex, Notify, oneshot};

use crate::Error;
use crate::gate::{Gate, Line};
use crate::later::{Head, Later};

/// Transactions that share a commit, at most, and how long the first of them may have begun before.
const MOST_RIDERS: usize = 64;
const MOST_SHARED: Duration = Duration::from_millis(3);
/// How long one who is done waits for others to commit before it does so itself.
const RIDE: Duration = Duration::from_millis(5);

/// The one writing connection. Small transactions that come one after the other share a commit, because its sync takes longer than they do: one that is
/// done stays open for the next, which works within a savepoint, and everybody hears of the commit when it is made.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) conn: SqliteConnection,
    /// A transaction was begun and not committed.
    open: bool,
    /// Somebody works in it, or went away in the middle: whoever begins next takes their part back first.
    busy: bool,
    /// Who is done and waits for the commit. With any, the one at work has a savepoint.
    riders: Vec<oneshot::Sender<Result<(), String>>>,
    /// When the first of those who share it began.
    since: Instant,
    /// The store was closed: nobody begins any more.
    closed: bool,
    /// What waits to be carried out with the next statement.
    pub(crate) later: Later,
    /// Told of every commit.
    written: Arc<Notify>,
}

impl Writer {
    pub(crate) fn new(conn: SqliteConnection, written: Arc<Notify>) -> Self {
        Self { conn, open: false, busy: false, riders: Vec::new(), since: Instant::now(), closed: false, later: Later::default(), written }
    }

    /// One with which nobody writes.
    pub(crate) fn shut_from_the_start(conn: SqliteConnection) -> Self {
        Self { closed: true, ..Self::new(conn, Arc::default()) }
    }

    /// Begins a transaction, or a part of the one that others wait for.
    pub(crate) async fn begin(&mut self) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Unavailable("the store is closed".to_owned()));
        }
        self.take_back().await;
        self.busy = true;
        let head = match (self.open, self.later.head()) {
            (true, Head::Release) => Head::ReleaseAndSavepoint,
            (true, _) => Head::Savepoint,
            (false, _) => Head::Begin,
        };
        self.later.begin(head);
        if !self.open {
            self.open = true;
            self.since = Instant::now();
        }
        Ok(())
    }

    /// Carries out what waits.
    pub(crate) async fn settle(&mut self) -> sqlx::Result<()> {
        self.later.settle(&mut self.conn).await
    }

    /// Takes back what somebody left who went away in the middle; those who are done keep theirs. Whoever goes away in the middle of this leaves it to the
    /// next one.
    async fn take_back(&mut self) {
        if self.busy && self.open {
            // What was not carried out needs not be taken back.
            match self.later.head() {
                Head::Begin => {
                    self.later.reset(Head::None);
                    self.open = false;
                }
                Head::Savepoint => self.later.reset(Head::None),
                Head::Release | Head::ReleaseAndSavepoint => self.later.reset(Head::Release),
                Head::None => {
                    self.later.reset(Head::None);
                    return self.roll_back().await;
                }
            }
        }
        self.busy = false;
    }

    async fn roll_back(&mut self) {
        if self.riders.is_empty() {
            if sqlx::query("rollback").execute(&mut self.conn).await.is_err() {
                tracing::debug!("the last transaction had ended by itself");
            }
            (self.open, self.busy) = (false, false);
            return;
        }
        let back = async {
            sqlx::query("rollback to member").execute(&mut self.conn).await?;
            sqlx::query("release member").execute(&mut self.conn).await
        };
        match back.await {
            Ok(_) => self.busy = false,
            Err(_) => {
                // There is no savepoint: it was never made, and a commit keeps what is there; or the whole transaction is gone, and a commit fails.
                self.later.reset(Head::None);
                drop(self.flush().await);
            }
        }
    }

    /// Ends the work of the one who is at it: commits, or lets the next one do that for both.
    pub(crate) async fn commit(&mut self, share: bool) -> Result<Option<oneshot::Receiver<Result<(), String>>>, Error> {
        let alone = self.riders.is_empty();
        let share = share && self.riders.len() < MOST_RIDERS && self.since.elapsed() <= MOST_SHARED;
        if share || !alone {
            // What others will commit is carried out by then, so that its errors are its own.
            self.settle().await?;
        }
        if !alone {
            self.later.begin(Head::Release);
        }
        if !share {
            return self.flush().await.map(|()| None);
        }
        self.busy = false;
        let (told, done) = oneshot::channel();
        self.riders.push(told);
        Ok(Some(done))
    }

    /// Commits for everybody, and tells them.
    async fn flush(&mut self) -> Result<(), Error> {
        // Whoever goes away in the middle of it leaves it to the next one to find out.
        self.busy = true;
        let done = if self.later.head() == Head::Begin && !self.later.waits() {
            // Nothing was begun.
            self.later.reset(Head::None);
            Ok(())
        } else {
            self.later.add(false, |sql| {
                sql.push("commit");
            });
            self.settle().await
        };
        for rider in self.riders.drain(..) {
            // One who went away is stored all the same.
            let _gone = rider.send(done.as_ref().map(drop).map_err(ToString::to_string));
        }
        done?;
        (self.open, self.busy) = (false, false);
        self.written.notify_one();
        Ok(())
    }

    /// From now on nobody begins; what was told to be stored is.
    pub(crate) async fn shut(&mut self) -> Result<(), Error> {
        self.closed = true;
        // What was begun and dropped would keep the log from being moved.
        self.take_back().await;
        if self.open { self.flush().await } else { Ok(()) }
    }
}

/// Waits for the commit that somebody else makes; makes it if nobody does.
pub(crate) async fn ride(
    mut done: oneshot::Receiver<Result<(), String>>,
    gate: &Arc<Gate>,
    writer: &Arc<Mutex<Writer>>,
) -> Result<(), Error> {
    if let Ok(told) = tokio::time::timeout(RIDE, &mut done).await {
        return arrived(told);
    }
    {
        let _pass = gate.enter(Line::Ingest).await;
        let mut writer = writer.lock().await;
        writer.take_back().await;
        if !writer.riders.is_empty() {
            // Everybody hears of it by their own channel.
            drop(writer.flush().await);
        }
    }
    arrived(done.await)
}

fn arrived(told: Result<Result<(), String>, oneshot::error::RecvError>) -> Result<(), Error> {
    match told {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(Error::Unavailable(why)),
        Err(_) => Err(Error::Unavailable("nobody can tell whether it was stored".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection;

    use super::*;

    async fn write(writer: &mut Writer, n: i64) {
        writer.begin().await.unwrap();
        writer.later.add(true, |sql| {
            sql.push("insert into t (n) values (").push_bind(n).push(")");
        });
        writer.settle().await.unwrap();
    }

    /// Whoever begins takes back what somebody left, and may go away in the middle of that.
    #[tokio::test]
    async fn what_was_left_is_taken_back_until_that_is_done() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::query("create table t (n integer)").execute(&mut conn).await.unwrap();
        let mut writer = Writer::new(conn, Arc::default());
        for riders in [false, true] {
            write(&mut writer, 1).await;
            writer.since = Instant::now();
            let told = writer.commit(riders).await.unwrap();
            write(&mut writer, 2).await;
            if tokio::time::timeout(Duration::ZERO, writer.begin()).await.is_err() {
                assert!(writer.busy && writer.open, "it is still to be taken back");
            }
            write(&mut writer, 3).await;
            assert!(writer.commit(false).await.unwrap().is_none());
            if let Some(told) = told {
                told.await.unwrap().unwrap();
            }
            let kept: Vec<(i64,)> = sqlx::query_as("select n from t order by n").fetch_all(&mut writer.conn).await.unwrap();
            assert_eq!(kept, [(1,), (3,)]);
            sqlx::query("delete from t").execute(&mut writer.conn).await.unwrap();
        }
    }
}
