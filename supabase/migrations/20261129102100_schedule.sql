-- What runs on a schedule, where pg_cron is available: the reaper each 15 s, pruning each hour. Without it call
-- reap_lost_agents() and prune() as service_role from elsewhere. reaper_status() returns whether that happens; agents and
-- `tendril-agent doctor` call it.

create function tendril.schedule() returns text
language plpgsql set search_path = '' as $$
declare
  every text;
begin
  if not exists (select from pg_catalog.pg_available_extensions where name = 'pg_cron') then
    return 'pg_cron is not installed';
  end if;
  create extension if not exists pg_cron with schema pg_catalog;
  -- Schedules in seconds came with 1.5. A version looks like 1.4-1, 1.6 or 1.6.4.
  select case when (part[1]::int, part[2]::int) >= (1, 5) then '15 seconds' else '* * * * *' end
  into every
  from pg_catalog.pg_extension, regexp_match(extversion, '^(\d+)\.(\d+)') as part
  where extname = 'pg_cron';

  perform cron.schedule('tendril_reap_lost_agents', every, 'select public.reap_lost_agents()');
  perform cron.schedule('tendril_prune', '23 * * * *', 'select public.prune()');
  -- pg_cron stores one row for each run, for ever.
  perform cron.schedule('tendril_forget_runs', '17 3 * * *', $job$
    delete from cron.job_run_details
    where end_time < now() - interval '1 day'
      and jobid in (select jobid from cron.job where jobname like 'tendril\_%')
  $job$);
  return null;
exception when others then
  -- Present on disk but not loaded by the server, or only in another database: not worth a failed migration.
  return sqlerrm;
end
$$;
comment on function tendril.schedule() is 'Schedules reaper and pruning with pg_cron. Null: done. Otherwise why not.';
revoke all on function tendril.schedule() from public, anon, authenticated, service_role, tendril_agent;

do $$
declare
  problem constant text := tendril.schedule();
begin
  if problem is not null then
    raise warning 'nothing is scheduled (%): a cluster with a single agent has nobody to notice its death. Enable pg_cron and run: select tendril.schedule(); or call reap_lost_agents() each 15 s from elsewhere.', problem;
  end if;
end
$$;
