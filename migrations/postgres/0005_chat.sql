-- The one message per incident and channel.

create table cards (
    incident text not null,
    channel text not null,
    platform text not null,
    channel_id text not null,
    message text,
    posted_version bigint not null,
    delivery text not null,
    told bigint not null default 0,
    primary key (incident, channel)
);
create index cards_place on cards (platform, channel_id, message);
