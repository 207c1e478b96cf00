-- What is open or under way is listed newest first without a look at all that ever was.
create index incidents_open_number on incidents (number) where state in ('open', 'acknowledged', 'mitigated');
create index runs_active_id on runs (id) where state in ('held', 'awaiting_approval', 'queued', 'running', 'verifying', 'unknown');
