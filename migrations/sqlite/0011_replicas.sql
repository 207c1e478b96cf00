-- What only one process may hold at a time: Discord's gateway socket, for one. `n` rises with every new holder, `stamp` with every renewal.

create table leases (
    name text primary key,
    instance text not null,
    start_id text not null,
    n bigint not null,
    stamp bigint not null,
    lease_until bigint not null
);
