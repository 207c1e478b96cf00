-- What came in, for ever, and what of it is still to be handled.

-- Bodies as received, once each. Appended only.
create table deliveries (
    id blob primary key,
    source text not null,
    received_at bigint not null,
    raw blob not null
);

-- What the bodies said. Appended only; `key` recognises a repeat.
create table events (
    seq integer primary key autoincrement,
    key blob not null unique,
    delivery_id blob,
    source text not null,
    lane bigint not null,
    received_at bigint not null,
    payload blob not null
);

-- What is still to be handled, in this order within a lane. `chain` is the order key's hash: a repeat joins the last row of its chain if
-- that is the same event, and becomes a row of its own if something else was heard in between.
create table queue (
    id integer primary key autoincrement,
    event_seq bigint not null,
    lane bigint not null,
    chain bigint not null,
    seen_at bigint not null,
    seen bigint not null,
    attempts bigint not null default 0,
    not_before bigint not null default 0
);
-- Chains are found by their lanes: an index of their own, in the order of a hash, would cost a page of writing for every event.
create index queue_lane on queue (lane, id, chain);
create index queue_retry on queue (not_before) where not_before > 0;

-- What the claims of several processes lock: machines have 0 to 63, people 64 to 127.
create table lanes (
    lane bigint primary key
);
with recursive n (lane) as (select 0 union all select lane + 1 from n where lane < 127)
insert into lanes (lane) select lane from n;

-- What became of people's acts.
create table outcomes (
    event_seq bigint primary key,
    outcome text not null
);

-- What failed too often.
create table dead_letters (
    event_seq bigint primary key,
    lane bigint not null,
    chain bigint not null,
    error text not null,
    at bigint not null
);
