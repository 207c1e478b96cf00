-- The number that rises with every run that locks a target: who comes with a lower one is late.

create table fences (
    target text primary key,
    epoch bigint not null,
    n bigint not null
);
create index attempts_unfinished on attempts (run_id) where state in ('started', 'unknown');
-- Targets that are locked already have one too.
insert into fences (target, epoch, n) select target, 1, 1 from target_locks;
