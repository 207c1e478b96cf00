-- Obligations. A finished job is deleted; one that failed for good stays as `dead`.

create table jobs (
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
);
create unique index jobs_key on jobs (kind, key) where state <> 'dead';
create index jobs_due on jobs (urgency, due_at) where state = 'waiting';
create index jobs_lease on jobs (lease_until) where state = 'claimed';
