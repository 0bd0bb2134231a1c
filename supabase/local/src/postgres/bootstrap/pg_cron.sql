-- The scheduler, as on a hosted project: the project's owner schedules, and may read and tidy the log of runs.

create extension if not exists pg_cron with schema pg_catalog;
grant usage on schema cron to postgres with grant option;
grant all on all tables in schema cron to postgres with grant option;
-- Jobs are changed by the functions of the extension, which check whose they are.
revoke all on table cron.job from postgres;
grant select on table cron.job to postgres with grant option;
