-- What grows old by itself is found without reading everything.
create index runs_alone on runs (finished_at) where incident is null;
create index alerts_alone on alerts (last_seen) where incident is null;
