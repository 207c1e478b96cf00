//! Statements that wait to go to SQLite together with the next one. Every trip there wakes another thread and then this one, which takes longer
//! than most statements do.

use futures::TryStreamExt;
use sqlx::{Either, Executor, QueryBuilder, SqlSafeStr, SqlStr, Sqlite, SqliteConnection};

/// The table of the writing connection that takes no row: to insert one is how a statement that waits says that it found something else than it should.
pub(crate) const UNEXPECTED: &str = "create temp table unexpected (row integer constraint not_as_expected check (false))";
/// How the error of such an insert ends.
pub(crate) const NOT_AS_EXPECTED: &str = "not_as_expected";

/// What waits, in order.
#[derive(Default)]
pub(crate) struct Later {
    head: Head,
    sql: QueryBuilder<Sqlite>,
    /// How many there are, without those of the head.
    statements: usize,
    binds: bool,
}

/// The statement about the transaction itself that waits first of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Head {
    #[default]
    None,
    Begin,
    Savepoint,
    /// Of the one before.
    Release,
    ReleaseAndSavepoint,
}

impl Head {
    fn sql(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Begin => "begin immediate;",
            Self::Savepoint => "savepoint member;",
            Self::Release => "release member;",
            Self::ReleaseAndSavepoint => "release member;savepoint member;",
        }
    }

    fn statements(self) -> usize {
        self.sql().matches(';').count()
    }
}

impl Later {
    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// Forgets what waits, but for this.
    pub(crate) fn reset(&mut self, head: Head) {
        *self = Self { head, ..Self::default() };
    }

    /// Sets what goes first; nothing else may wait.
    pub(crate) fn begin(&mut self, head: Head) {
        debug_assert!(!self.waits(), "something waits that belongs to the transaction before");
        self.head = head;
    }

    /// Whether anything but the head waits.
    pub(crate) fn waits(&self) -> bool {
        self.statements > 0
    }

    /// Adds a statement, with its values if it has any.
    pub(crate) fn add(&mut self, binds: bool, statement: impl FnOnce(&mut QueryBuilder<Sqlite>)) {
        if !self.waits() {
            self.sql.push(self.head.sql());
        }
        statement(&mut self.sql);
        self.sql.push(";");
        self.statements += 1;
        self.binds |= binds;
    }

    /// Adds a statement that must change one row; else it, or whatever it goes with, is a conflict.
    pub(crate) fn add_one(&mut self, statement: impl FnOnce(&mut QueryBuilder<Sqlite>)) {
        self.add(true, statement);
        self.add(false, |sql| {
            sql.push("insert into unexpected select 1 where changes() <> 1");
        });
    }

    /// Adds a query that must find something, in the same way.
    pub(crate) fn add_found(&mut self, query: impl FnOnce(&mut QueryBuilder<Sqlite>)) {
        self.add_unless("not exists (", query);
    }

    /// Adds a query that must find nothing, in the same way.
    pub(crate) fn add_none(&mut self, query: impl FnOnce(&mut QueryBuilder<Sqlite>)) {
        self.add_unless("exists (", query);
    }

    fn add_unless(&mut self, conflict: &'static str, query: impl FnOnce(&mut QueryBuilder<Sqlite>)) {
        self.add(true, |sql| {
            sql.push("insert into unexpected select 1 where ").push(conflict);
            query(sql);
            sql.push(")");
        });
    }

    /// Everything, as one query.
    pub(crate) fn take(&mut self) -> QueryBuilder<Sqlite> {
        let mut all = std::mem::take(self);
        if !all.waits() {
            all.sql.push(all.head.sql());
        }
        all.sql
    }

    /// Carries out what waits.
    pub(crate) async fn settle(&mut self, conn: &mut SqliteConnection) -> sqlx::Result<()> {
        let mut left = self.head.statements() + self.statements;
        if left == 0 {
            return Ok(());
        }
        let mut all = self.take();
        let mut answers = conn.fetch_many(all.build());
        // The last answer is the end: SQLite's thread says so in a second message, which would be waited for too.
        while left > 0
            && let Some(answer) = answers.try_next().await?
        {
            left -= usize::from(matches!(answer, Either::Left(_)));
        }
        debug_assert_eq!(left, 0, "fewer answers than statements");
        Ok(())
    }

    /// Puts what waits before a statement whose values have numbers: those must be the first, so values that wait go ahead of it.
    pub(crate) async fn before(&mut self, conn: &mut SqliteConnection, sql: impl SqlSafeStr) -> sqlx::Result<SqlStr> {
        if self.binds {
            self.settle(conn).await?;
        }
        let sql = sql.into_sql_str();
        if !self.waits() && self.head == Head::None {
            return Ok(sql);
        }
        let mut all = self.take();
        all.push(sql.as_str());
        Ok(all.into_sql())
    }
}

impl std::fmt::Debug for Later {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Later").field("head", &self.head).field("sql", &self.sql.sql().as_str()).finish()
    }
}
