-- Heartbeats reap for their own cluster. A schedule does it for clusters whose last agent is gone; where pg_cron cannot be
-- had, call reap_lost_agents() as service_role from elsewhere, or leave it: a cluster's next heartbeat catches up.

do $$
declare
  every text;
begin
  if not exists (select from pg_catalog.pg_available_extensions where name = 'pg_cron') then
    raise notice 'pg_cron is not here: nothing scheduled. Call reap_lost_agents() from elsewhere.';
    return;
  end if;

  create extension if not exists pg_cron with schema pg_catalog;
  -- Schedules in seconds came with 1.5. A version looks like 1.4-1, 1.6 or 1.6.4.
  select case when (part[1]::int, part[2]::int) >= (1, 5) then '15 seconds' else '* * * * *' end
  into every
  from pg_catalog.pg_extension, regexp_match(extversion, '^(\d+)\.(\d+)') as part
  where extname = 'pg_cron';

  perform cron.schedule('tendril_reap_lost_agents', every, 'select public.reap_lost_agents()');
  -- pg_cron keeps one row for each run, for ever.
  perform cron.schedule('tendril_forget_reaper_runs', '17 3 * * *', $job$
    delete from cron.job_run_details
    where end_time < now() - interval '1 day'
      and jobid in (select jobid from cron.job where jobname like 'tendril\_%')
  $job$);
exception when others then
  -- Present on disk but not loaded by the server, or only in another database: not worth a failed migration.
  raise notice 'pg_cron cannot be used here (%): nothing scheduled. Call reap_lost_agents() from elsewhere.', sqlerrm;
end
$$;
