-- Runs of runbooks, their journal, and what they wait for.

create table runs (
    id text primary key,
    incident text,
    runbook text not null,
    state text not null,
    created_at bigint not null,
    finished_at bigint,
    version bigint not null,
    doc text not null
);
create index runs_incident on runs (incident);
create index runs_active on runs (created_at) where state in ('held', 'awaiting_approval', 'queued', 'running', 'verifying', 'unknown');

-- What a run changes, for cooldowns and budgets.
create table run_targets (
    run_id text not null,
    runbook text not null,
    target text not null,
    primary key (run_id, target)
);
create index run_targets_target on run_targets (target, runbook);

-- One run at a time per target.
create table target_locks (
    target text primary key,
    run_id text not null,
    at bigint not null
);
create index target_locks_run on target_locks (run_id);

-- The intent is stored before anything happens, the result afterwards.
create table attempts (
    run_id text not null,
    step_index bigint not null,
    attempt bigint not null,
    state text not null,
    doc text not null,
    primary key (run_id, step_index, attempt)
);

create table approvals (
    id text primary key,
    run_id text not null,
    state text not null,
    votes bigint not null,
    created_at bigint not null,
    expires_at bigint not null,
    doc text not null
);
create index approvals_run on approvals (run_id);
create index approvals_pending on approvals (created_at) where state = 'pending';
