-- What agents on other hosts reported, until the waiting step has it.

create table agent_reports (
    execution text primary key,
    agent text not null,
    at bigint not null,
    doc text not null
);
create index agent_reports_at on agent_reports (at);
