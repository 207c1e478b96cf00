-- What is known of alerts and incidents. `doc` holds the whole; columns are what is searched or unique.

create table alerts (
    source text not null,
    fingerprint text not null,
    state text not null,
    incident text,
    first_seen bigint not null,
    last_seen bigint not null,
    doc text not null,
    primary key (source, fingerprint)
);
create index alerts_incident on alerts (incident);
create index alerts_stale on alerts (source, last_seen) where state not in ('resolved', 'stale');

create table incidents (
    id text primary key,
    number bigint not null unique,
    source text not null,
    group_key text not null,
    state text not null,
    severity_name text not null,
    search text not null,
    resolved_at bigint,
    version bigint not null,
    doc text not null
);
-- One open incident per source and grouping key, whoever opens it.
create unique index incidents_open on incidents (source, group_key) where state in ('open', 'acknowledged', 'mitigated');
create index incidents_latest on incidents (source, group_key) where state <> 'closed';

-- The last number given to an incident.
create table numbers (
    last bigint not null
);
insert into numbers (last) values (0);

create table timeline (
    id integer primary key autoincrement,
    incident text not null,
    at bigint not null,
    doc text not null
);
create index timeline_incident on timeline (incident, id);
