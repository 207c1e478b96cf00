-- Who is signed in, and with what. Secrets are stored hashed.

create table sessions (
    id text primary key,
    secret_hash blob not null,
    principal text not null,
    csrf text not null,
    created_at bigint not null,
    last_seen bigint not null,
    expires_at bigint not null
);
create index sessions_principal on sessions (principal);
create index sessions_expiry on sessions (expires_at);

create table tokens (
    id text primary key,
    secret_hash blob not null,
    principal text not null,
    name text not null,
    rights text not null,
    created_at bigint not null,
    expires_at bigint,
    revoked_at bigint,
    last_used bigint
);

create table passwords (
    principal text primary key,
    hash text not null,
    changed_at bigint not null
);

-- One-time links that were used: each works once.
create table used_links (
    jti text primary key,
    expires_at bigint not null
);
