-- The end of each sealed batch of audit rows. Its number is what one sealer takes and all others then fail on.

create table audit_seals (
    batch bigint not null primary key,
    at bigint not null,
    rows_until bigint not null,
    seq bigint not null,
    prev_hash bytea not null,
    hash bytea not null,
    mac text not null
);
create index audit_chain on audit (batch, seq) where batch is not null;
create index audit_object on audit (object, seq);
