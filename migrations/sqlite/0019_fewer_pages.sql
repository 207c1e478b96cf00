-- A commit writes every page that it touched into the log and waits for all of them: what can be found in one tree is not kept in two. A new alert with
-- its incident and card touched 26 pages and touches 21. PostgreSQL logs rows, not pages, and keeps what it has.

-- The number is the row's own. None is given out twice, even where the incident that had it is gone.
create table incidents_anew (
    number integer primary key autoincrement,
    id text not null unique,
    source text not null,
    group_key text not null,
    state text not null,
    severity_name text not null,
    search text not null,
    resolved_at bigint,
    version bigint not null,
    doc text not null
);
insert into incidents_anew (number, id, source, group_key, state, severity_name, search, resolved_at, version, doc)
    select number, id, source, group_key, state, severity_name, search, resolved_at, version, doc from incidents order by number;
insert into sqlite_sequence (name, seq) select 'incidents_anew', 0 where not exists (select 1 from sqlite_sequence where name = 'incidents_anew');
update sqlite_sequence set seq = max(seq, (select last from numbers)) where name = 'incidents_anew';
drop table incidents;
drop table numbers;
alter table incidents_anew rename to incidents;
create index incidents_open_number on incidents (number) where state in ('open', 'acknowledged', 'mitigated');
-- One open incident per source and grouping key, whoever opens it; beside it those that are resolved and may be joined.
create unique index incidents_latest on incidents
    (source, group_key, (case when state in ('open', 'acknowledged', 'mitigated') then 0 else number end)) where state <> 'closed';

create table jobs_anew (
    id text primary key,
    kind text not null,
    key text not null,
    state text not null,
    urgency bigint not null,
    due_at bigint not null,
    payload text not null,
    revision bigint not null default 1,
    attempts bigint not null default 0,
    error text,
    -- The claim's number, and the revision that it took.
    claim bigint not null default 0,
    claimed_revision bigint not null default 0,
    instance text,
    start_id text,
    lease_until bigint,
    created_at bigint not null
) without rowid;
insert into jobs_anew (id, kind, key, state, urgency, due_at, payload, revision, attempts, error, claim, claimed_revision, instance, start_id, lease_until, created_at)
    select id, kind, key, state, urgency, due_at, payload, revision, attempts, error, claim, claimed_revision, instance, start_id, lease_until, created_at from jobs;
drop table jobs;
alter table jobs_anew rename to jobs;
create unique index jobs_key on jobs (kind, key) where state <> 'dead';
create index jobs_state on jobs (state, urgency, due_at);
