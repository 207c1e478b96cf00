-- SQLite's alone: PostgreSQL logs rows, not pages, and keeps what it has.
select 1;
