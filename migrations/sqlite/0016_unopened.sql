-- Deliveries that are not events yet: those that came faster than they could be decided. `delivery_id` names the body in which `events` events are found again
-- as its `kind` of source reads it; `sender_id` is its sender's name for it, if there is one. Only SQLite's are left so.
create table unopened (
    id integer primary key,
    delivery_id blob not null,
    source text not null,
    received_at bigint not null,
    events bigint not null,
    kind text not null,
    sender_id text
);
