-- Small things that must survive a restart.

create table heartbeats (
    source text not null,
    name text not null,
    within_us bigint not null,
    last_seen bigint not null,
    alarmed bigint not null,
    primary key (source, name)
);

create table flags (
    key text primary key,
    value text not null
);

-- Rule sets by digest: a run finishes under the one that it began with.
create table rule_sets (
    digest text primary key,
    files text not null,
    first_used bigint not null
);

-- Bodies that could not be read, the newest hundred per source.
create table samples (
    id integer primary key autoincrement,
    source text not null,
    at bigint not null,
    body blob not null,
    error text not null
);
create index samples_source on samples (source, id);
