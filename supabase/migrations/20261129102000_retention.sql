-- How long finished deployments stay: clusters.retention_days. What is deleted takes its logs and changes with it.

create function public.prune(cluster_id uuid default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  as_user constant boolean := coalesce(tendril.jwt_claim('role'), '') = 'authenticated';
  cluster public.clusters;
  doomed uuid[];
  logs bigint;
  changes bigint;
begin
  if as_user then
    if prune.cluster_id is null then
      raise exception using errcode = 'TD008', message = 'prune needs the id of a cluster of yours', hint = 'Only the service prunes all clusters.';
    end if;
    cluster := tendril.own_cluster(prune.cluster_id);
  elsif prune.cluster_id is not null then
    select * into cluster from public.clusters c where c.id = prune.cluster_id;
    if not found then
      raise exception using errcode = 'TD008', message = format('there is no cluster %s', prune.cluster_id), hint = 'Leave the id out to prune all clusters.';
    end if;
  end if;
  if prune.cluster_id is not null and cluster.retention_days is null then
    raise exception using
      errcode = 'TD010',
      message = format('cluster %s has no retention: nothing is deleted', cluster.id),
      hint = 'Set clusters.retention_days to the number of days after which finished deployments are deleted.';
  end if;

  -- One batch: a call stays short, and returns whether there is more. The last success of a stack stays: it made what runs now.
  select array_agg(d.id) into doomed from (
    select d.id from public.clusters c
    join public.deployments d on d.cluster_id = c.id and d.finished_at < now() - make_interval(days => c.retention_days)
    where c.retention_days is not null and (prune.cluster_id is null or c.id = prune.cluster_id)
      and not exists (
        select from public.stacks s where s.cluster_id = d.cluster_id and s.state_key = d.state_key and s.last_success_id = d.id
      )
    order by d.finished_at
    limit 500
    for update of d skip locked
  ) as d;

  with gone as (delete from public.deployment_logs l where l.deployment_id = any (doomed) returning 1) select count(*) into logs from gone;
  with gone as (delete from public.deployment_changes c where c.deployment_id = any (doomed) returning 1) select count(*) into changes from gone;
  delete from public.deployments d where d.id = any (doomed);
  return jsonb_build_object('deployments', coalesce(cardinality(doomed), 0), 'logs', logs, 'changes', changes, 'more', coalesce(cardinality(doomed), 0) = 500);
end
$$;
comment on function public.prune(uuid) is 'Deletes up to 500 finished deployments that are older than their cluster''s retention_days, with logs and changes: {"deployments", "logs", "changes", "more"}. The last success of each stack stays. For the owner (one cluster), service_role and pg_cron (all). Errors: TD008 no such cluster of yours, TD010 it keeps everything.';
revoke all on function public.prune(uuid) from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.prune(uuid) to authenticated, service_role;
