-- Where the audit log begins once its oldest rows were let go of: one row, sealed with the chain's key and signed.

create table audit_cut (
    one bigint not null primary key check (one = 1),
    batch bigint not null,
    seq bigint not null,
    rows_gone bigint not null,
    hash blob not null,
    sealed_at bigint not null,
    at bigint not null,
    mac text not null,
    public_key text not null,
    signature text not null
);
