-- A body of several pages is kept packed (LZ4's block format): this is how many bytes it had. Without it `raw` is the body as it came.
alter table deliveries add column packed_from bigint;
