-- A lost agent is named: which one, in which phase it fell silent, and whether a state lock may still be held.

create function tendril.lost_words(deployment public.deployments) returns text
language sql stable set search_path = '' as $$
  select format('The agent %s fell silent in phase %s of attempt %s. ',
      coalesce(deployment.claimed_by, 'without a name'), deployment.phase, deployment.attempt)
    || case
      when tendril.apply_began(deployment.phase)
        then 'Resources may exist that are not in the state, and a state lock may still be held; look at both before you run it again.'
      when deployment.phase = 'PLAN' then 'Nothing was changed, but a state lock may still be held.'
      else 'Nothing was changed, and no state lock was held.'
    end
$$;
comment on function tendril.lost_words(public.deployments) is 'What a user is told of a job whose agent fell silent.';
revoke all on function tendril.lost_words(public.deployments) from public, anon, authenticated, service_role, tendril_agent;

create or replace function tendril.reap(only_cluster uuid) returns integer
language plpgsql set search_path = '' as $$
declare
  silent public.deployments;
  reaped integer := 0;
begin
  for silent in
    select d.* from public.deployments d
    where d.status = 'PROCESSING'
      and (only_cluster is null or d.cluster_id = only_cluster)
      and (d.lease_expires_at < now()
        or tendril.apply_began(d.phase) and d.phase <> 'UNKNOWN'
           and tendril.silent_since(d) > tendril.lease_length(null))
    order by d.lease_expires_at
    limit 500
    -- Several heartbeats reap at once; each takes what no other holds.
    for update skip locked
  loop
    if silent.lease_expires_at >= now() then
      -- The phase that is lost by this is kept in the words.
      update public.deployments set phase = 'UNKNOWN', error_message = tendril.lost_words(silent) where id = silent.id;
    elsif tendril.apply_began(silent.phase) then
      update public.deployments set status = 'FAILED', error_code = 'AGENT_LOST',
        error_message = case when silent.phase = 'UNKNOWN' and silent.error_message is not null
          then silent.error_message else tendril.lost_words(silent) end
      where id = silent.id;
    elsif silent.cancel_requested_at is not null then
      update public.deployments set status = 'CANCELLED', error_code = 'CANCELLED',
        error_message = 'Cancelled. ' || tendril.lost_words(silent)
      where id = silent.id;
    elsif silent.attempt < 2 and exists (
      select from public.clusters c where c.id = silent.cluster_id and c.revoked_at is null
    ) then
      update public.deployments set status = 'QUEUED' where id = silent.id;
    else
      update public.deployments set status = 'FAILED', error_code = 'AGENT_LOST',
        error_message = tendril.lost_words(silent)
      where id = silent.id;
    end if;
    reaped := reaped + 1;
  end loop;
  return reaped;
end
$$;
