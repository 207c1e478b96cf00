-- One row per decision, in the transaction of the change. Appended only; a sealing job fills the last three columns once.

create table audit (
    seq integer primary key autoincrement,
    at bigint not null,
    actor text not null,
    action text not null,
    object text not null,
    decision text not null,
    reason text not null,
    detail text not null,
    mac text not null,
    batch bigint,
    prev_hash blob,
    hash blob
);
create index audit_unsealed on audit (seq) where batch is null;

-- Refusals of the unknown are counted, not listed: an attacker must not be able to fill the log.
create table refusals (
    source text not null,
    reason text not null,
    minute bigint not null,
    n bigint not null,
    primary key (source, reason, minute)
);
