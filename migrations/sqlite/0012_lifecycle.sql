-- What other programs are told of, until the bus has it. Written with the change that it tells of; each lane goes out in order.

create table lifecycle (
    seq integer primary key autoincrement,
    lane bigint not null,
    doc text not null
);
create index lifecycle_lane on lifecycle (lane, seq);
