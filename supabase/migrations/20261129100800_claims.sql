-- Who may claim what, and when: a stack runs one deployment at a time, in the order of arrival, whoever claims.
--
-- Errors: TD001 the claim token is absent, stale or another's; TD006 the claim is out of turn; TD009 the agent may not claim.

-- A row trigger cannot distinguish "set claim_token = the same value" from "claim_token not mentioned". An UPDATE OF trigger
-- can: it fires only for statements that name the column, and leaves a note for the trigger that follows.
create function tendril.note_claim_token() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform set_config('tendril.shown_token', new.id || '/' || coalesce(new.claim_token::text, ''), true);
  return new;
end
$$;

create function tendril.refuse_claim_token(deployment public.deployments, shown uuid) returns void
language plpgsql set search_path = '' as $$
begin
  raise exception using
    errcode = 'TD001',
    message = case when shown is null
      then format('deployment %s is changed only with its claim_token', deployment.id)
      else format('the claim_token does not hold deployment %s', deployment.id) end,
    detail = format('Its status is %s, attempt %s.', deployment.status, deployment.attempt),
    hint = case when shown is null
      then 'Put the claim_token of your claim into the body of the update.'
      else 'The claim is over or belongs to another agent: stop working on this deployment.' end;
end
$$;

create function tendril.require_claim(deployment_id uuid, claim_token uuid) returns public.deployments
language plpgsql stable set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.require_cluster();
  deployment public.deployments;
begin
  select * into deployment from public.deployments d
  where d.id = require_claim.deployment_id and d.cluster_id = cluster.id and d.claim_token = require_claim.claim_token
    and d.id = coalesce(tendril.claimed_deployment_id(), d.id);
  if not found then
    raise exception using
      errcode = 'TD001',
      message = format('the claim_token does not hold deployment %s', coalesce(require_claim.deployment_id::text, 'null')),
      hint = 'The claim is over or belongs to another agent: stop working on this deployment.';
  end if;
  return deployment;
end
$$;
comment on function tendril.require_claim(uuid, uuid) is 'The deployment of the caller''s cluster that this token holds, or held until its end. Error: TD001.';

-- The line in front of a stack: what waits before this deployment, or runs. Null: it is next.
create function tendril.ahead_of(deployment public.deployments) returns public.deployments
language sql volatile set search_path = '' as $$
  select d from public.deployments d
  where d.cluster_id = deployment.cluster_id and d.state_key = deployment.state_key and d.id <> deployment.id
    and (d.status = 'PROCESSING'
      or d.status = 'QUEUED' and d.queue_order < deployment.queue_order and coalesce(d.queue_expires_at > now(), true))
  order by d.status = 'PROCESSING' desc, d.queue_order desc
  limit 1
$$;
comment on function tendril.ahead_of(public.deployments) is 'The deployment of the same stack that runs or waits before this one.';

-- Security definer: it locks the stack, so that two claims of it are checked one after the other.
create function tendril.require_turn(deployment public.deployments, agent text) returns void
language plpgsql security definer set search_path = '' as $$
declare
  stack public.stacks;
  ahead public.deployments;
  refused text;
begin
  if tendril.claimed_deployment_id() is not null then
    raise exception using errcode = '42501', message = 'the token of one deployment claims nothing', hint = 'Claim with the token of the agent.';
  end if;
  select a.refused_reason into refused from public.agents a
  where a.cluster_id = deployment.cluster_id and a.name = agent and a.status = 'REFUSED';
  if found then
    raise exception using errcode = 'TD009', message = refused, hint = 'Give all agents of a cluster the same state backend, or run one agent.';
  end if;

  select * into stack from public.stacks s
  where s.cluster_id = deployment.cluster_id and s.state_key = deployment.state_key for update;
  if stack.state_held_by is not null and stack.state_held_by is distinct from agent then
    raise exception using
      errcode = 'TD006',
      message = format('deployment %s cannot be claimed yet: agent %s holds the only copy of the state of stack %s', deployment.id, stack.state_held_by, stack.state_key),
      detail = format('Since %s: %s', stack.state_held_since, coalesce(stack.state_held_reason, 'no reason given')),
      hint = 'It stores the state as soon as its backend takes it. The owner may give the state up with discard_held_state.';
  end if;

  ahead := tendril.ahead_of(deployment);
  if ahead.id is not null then
    raise exception using
      errcode = 'TD006',
      message = format('deployment %s is not next: deployment %s of stack %s is %s', deployment.id, ahead.id, deployment.state_key,
        ahead.status || coalesce(' in phase ' || ahead.phase, '')),
      hint = 'Read the queue again, and take the oldest deployment of a stack that is free.';
  elsif deployment.queue_expires_at <= now() then
    raise exception using
      errcode = 'TD006',
      message = format('deployment %s waited longer than its timeout for the queue', deployment.id),
      hint = 'Leave it: the reaper ends it as TIMED_OUT.';
  end if;
end
$$;
comment on function tendril.require_turn(public.deployments, text) is 'Refuses the claim of a deployment that is not next in its stack (TD006), or by an agent that was refused (TD009).';

-- What an agent may claim now. Security invoker: each role sees the rows that it sees in deployments.
create view public.claimable_deployments with (security_invoker = true) as
select d.id, d.cluster_id, d.state_key, d.queue_order, d.created_at, d.attempt, s.state_held_by
from public.deployments d
left join public.stacks s on s.cluster_id = d.cluster_id and s.state_key = d.state_key
where d.status = 'QUEUED' and coalesce(d.queue_expires_at > now(), true)
  and not exists (
    select from public.deployments o
    where o.cluster_id = d.cluster_id and o.state_key = d.state_key and o.id <> d.id
      and (o.status = 'PROCESSING'
        or o.status = 'QUEUED' and o.queue_order < d.queue_order and coalesce(o.queue_expires_at > now(), true))
  );
comment on view public.claimable_deployments is 'The oldest QUEUED deployment of each stack that is free. state_held_by: only this agent may claim it.';
revoke all on table public.claimable_deployments from public, anon, authenticated, service_role, tendril_agent;
grant select on public.claimable_deployments to authenticated, service_role, tendril_agent;

revoke all on function
  tendril.note_claim_token(), tendril.refuse_claim_token(public.deployments, uuid), tendril.require_claim(uuid, uuid),
  tendril.ahead_of(public.deployments), tendril.require_turn(public.deployments, text)
  from public, anon, authenticated, service_role, tendril_agent;
-- Called by the state machine with the rights of whoever writes the row.
grant execute on function tendril.refuse_claim_token(public.deployments, uuid), tendril.require_turn(public.deployments, text)
  to authenticated, service_role, tendril_agent;
