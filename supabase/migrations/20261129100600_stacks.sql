-- A stack is one Terraform state: what a platform team owns, and what deployments work on, one at a time.

create table public.stacks (
  cluster_id uuid not null references public.clusters (id) on delete cascade,
  state_key text not null,
  template text,
  source jsonb,
  stack text,
  last_deployment_id uuid,
  last_status text,
  last_action text,
  last_finished_at timestamptz,
  last_success_id uuid,
  last_success_at timestamptz,
  resources integer,
  backend text,
  backend_fingerprint text,
  terraform_version text,
  state_held_by text,
  state_held_since timestamptz,
  state_held_reason text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),

  primary key (cluster_id, state_key),
  constraint stacks_resources_not_negative check (resources >= 0),
  constraint stacks_a_held_state_has_a_holder_and_a_time check ((state_held_by is null) = (state_held_since is null))
);

comment on table public.stacks is 'Terraform states. A row appears when the first deployment of a stack is queued; a deployment without a stack has one once something is applied. Written by the database alone.';
comment on column public.stacks.state_key is 'As in deployments.state_key.';
comment on column public.stacks.template is 'The template that the agent carries; null for one from Git.';
comment on column public.stacks.source is 'The repository and folder: config_snapshot.source without ref. Null for a template of the agent.';
comment on column public.stacks.stack is 'Its name within the template; null where the deployment named none.';
comment on column public.stacks.last_deployment_id is 'The deployment that was claimed last.';
comment on column public.stacks.last_status is 'The status of that one.';
comment on column public.stacks.last_success_id is 'The last apply or destroy that ended in SUCCESS: what runs now was made by it.';
comment on column public.stacks.resources is 'How many resources the state holds, as of the last report.';
comment on column public.stacks.backend is 'Where the state is stored: local, s3, pg, …';
comment on column public.stacks.backend_fingerprint is 'Digest of the backend''s settings; agents with another one work on another state.';
comment on column public.stacks.terraform_version is 'The program that wrote the state last, as in deployments.terraform_version. An older version of it is refused by the agent.';
comment on column public.stacks.state_held_by is 'The agent that has the only copy of a newer state, because the backend did not take it. Until it is stored or discarded no other agent claims.';

revoke all on table public.stacks from public, anon, authenticated, service_role, tendril_agent;
alter table public.stacks enable row level security;
grant select on public.stacks to authenticated, tendril_agent;
grant select, insert, update, delete on public.stacks to service_role;
create policy "A user reads own stacks" on public.stacks
  for select to authenticated
  using (cluster_id = any (array(select id from public.clusters where user_id = (select auth.uid()))));
create policy "An agent reads stacks of its cluster" on public.stacks
  for select to tendril_agent
  using (cluster_id = (select tendril.agent_cluster_id()) and (
    (select tendril.claimed_deployment_id()) is null
    or state_key = (select d.state_key from public.deployments d where d.id = (select tendril.claimed_deployment_id()))
  ));

create function tendril.add_stack(deployment public.deployments) returns void
language sql set search_path = '' as $$
  insert into public.stacks (cluster_id, state_key, template, source, stack)
  values (deployment.cluster_id, deployment.state_key, deployment.config_snapshot ->> 'template',
    nullif(deployment.config_snapshot -> 'source', 'null') - 'ref',
    case when deployment.state_key <> deployment.id::text then deployment.config_snapshot ->> 'stack' end)
  on conflict on constraint stacks_pkey do nothing
$$;
comment on function tendril.add_stack(public.deployments) is 'The row of the deployment''s stack, if it is not there yet.';

-- For each statement, in one order: two users who queue many stacks at once do not wait for each other in a circle.
create function tendril.add_stacks_of_queued() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform tendril.add_stack(q) from (
    select distinct on (queued.cluster_id, queued.state_key) queued.* from queued
    where queued.state_key <> queued.id::text
    order by queued.cluster_id, queued.state_key
  ) as q;
  return null;
end
$$;

create function tendril.follow_stack() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if new.status in ('QUEUED', 'PROCESSING') and new.attempt <> old.attempt then
    update public.stacks s
    set last_deployment_id = new.id, last_status = new.status, last_action = coalesce(new.config_snapshot ->> 'action', 'apply'),
      last_finished_at = null, updated_at = now()
    where s.cluster_id = new.cluster_id and s.state_key = new.state_key;
    return null;
  end if;
  if new.error_code = 'STATE_NOT_STORED' and old.error_code is distinct from new.error_code then
    perform tendril.add_stack(new);
    perform tendril.hold_state(new.cluster_id, new.state_key, coalesce(new.claimed_by, 'without a name'), new.error_message);
  end if;
  update public.stacks s
  set last_status = new.status, last_finished_at = new.finished_at,
    last_success_id = case when new.status = 'SUCCESS' and s.last_action <> 'plan' then new.id else s.last_success_id end,
    last_success_at = case when new.status = 'SUCCESS' and s.last_action <> 'plan' then new.finished_at else s.last_success_at end,
    updated_at = now()
  where s.cluster_id = new.cluster_id and s.state_key = new.state_key and s.last_deployment_id = new.id;
  return null;
end
$$;
comment on function tendril.follow_stack() is 'Keeps what the stack says of its last deployment.';

-- From the beginning of an apply on the state may be of this version.
create function tendril.note_stack_version() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  update public.stacks s set terraform_version = new.terraform_version, updated_at = now()
  where s.cluster_id = new.cluster_id and s.state_key = new.state_key and s.terraform_version is distinct from new.terraform_version;
  return null;
end
$$;
comment on function tendril.note_stack_version() is 'Keeps which program writes the state of a stack.';

create function tendril.hold_state(cluster_id uuid, state_key text, agent text, reason text) returns public.stacks
language sql set search_path = '' as $$
  update public.stacks s
  set state_held_by = left(agent, 200), state_held_reason = left(reason, 2000), updated_at = now(),
    state_held_since = case when s.state_held_by = left(agent, 200) then s.state_held_since else now() end
  where s.cluster_id = hold_state.cluster_id and s.state_key = hold_state.state_key
  returning s
$$;
comment on function tendril.hold_state(uuid, text, text, text) is 'Says that this agent has the only copy of the newest state.';

-- States whose owner gave them up: the agent that still has one must not push it over a newer one.
create table tendril.discarded_states (
  cluster_id uuid not null references public.clusters (id) on delete cascade,
  state_key text not null,
  agent text not null,
  discarded_at timestamptz not null default now(),
  discarded_by uuid,
  primary key (cluster_id, state_key, agent)
);
comment on table tendril.discarded_states is 'The last state of a stack that its owner discarded, for each agent.';
alter table tendril.discarded_states enable row level security;
revoke all on table tendril.discarded_states from public, anon, authenticated, service_role, tendril_agent;

create function public.agent_hold_state(state_key text, agent text, reason text, since timestamptz default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.require_cluster();
  deployment public.deployments;
  stack public.stacks;
  discarded timestamptz;
begin
  if nullif(btrim(agent), '') is null then
    raise exception using errcode = '22023', message = 'agent_hold_state needs the name of the agent that holds the state';
  end if;
  select * into deployment from public.deployments d
  where d.cluster_id = cluster.id and d.state_key = agent_hold_state.state_key and d.id = coalesce(tendril.claimed_deployment_id(), d.id)
  order by d.queue_order desc limit 1;
  select * into stack from public.stacks s where s.cluster_id = cluster.id and s.state_key = agent_hold_state.state_key for no key update;
  if deployment.id is null and (stack.state_key is null or tendril.claimed_deployment_id() is not null) then
    raise exception using
      errcode = 'TD008',
      message = format('there is no stack %s in cluster %s', to_json(left(agent_hold_state.state_key, 200)), cluster.id),
      hint = 'Give the state_key of a deployment of this cluster.';
  end if;
  select d.discarded_at into discarded from tendril.discarded_states d
  where d.cluster_id = cluster.id and d.state_key = agent_hold_state.state_key and d.agent = left(agent_hold_state.agent, 200)
    and d.discarded_at >= agent_hold_state.since;
  if discarded is not null then
    return jsonb_build_object('held', false, 'discarded_at', discarded);
  end if;
  if deployment.id is not null then
    perform tendril.add_stack(deployment);
  end if;
  stack := tendril.hold_state(cluster.id, agent_hold_state.state_key, agent_hold_state.agent, agent_hold_state.reason);
  return jsonb_build_object('held', true, 'since', stack.state_held_since);
end
$$;
comment on function public.agent_hold_state(text, text, text, timestamptz) is 'An agent says that it has the only copy of a stack''s newest state: {"held": true, "since"}. since: the answer of an earlier call; if the owner discarded that state meanwhile, {"held": false, "discarded_at"}: it must not be pushed any more.';

create function public.agent_release_state(state_key text, agent text) returns boolean
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.require_cluster();
begin
  update public.stacks s
  set state_held_by = null, state_held_since = null, state_held_reason = null, updated_at = now()
  where s.cluster_id = cluster.id and s.state_key = agent_release_state.state_key and s.state_held_by = left(agent_release_state.agent, 200)
    and (tendril.claimed_deployment_id() is null
      or s.state_key = (select d.state_key from public.deployments d where d.id = tendril.claimed_deployment_id() and d.cluster_id = cluster.id));
  if found then
    perform tendril.broadcast(cluster.id, (
      select jsonb_build_object('id', d.id, 'status', d.status, 'attempt', d.attempt) from public.deployments d
      where d.cluster_id = cluster.id and d.state_key = agent_release_state.state_key and d.status = 'QUEUED'
      order by d.queue_order limit 1));
    return true;
  end if;
  return false;
end
$$;
comment on function public.agent_release_state(text, text) is 'The state that this agent held is stored: other agents may claim again. False: it held none.';

create function public.discard_held_state(cluster_id uuid, state_key text, confirm text default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.own_cluster(cluster_id);
  stack public.stacks;
  lost text;
begin
  select * into stack from public.stacks s
  where s.cluster_id = cluster.id and s.state_key = discard_held_state.state_key for no key update;
  if not found then
    raise exception using
      errcode = 'TD008',
      message = format('there is no stack %s in cluster %s', coalesce(to_json(left(state_key, 200))::text, 'null'), cluster.id),
      hint = 'Give the state_key of one of its rows in stacks.';
  elsif stack.state_held_by is null then
    raise exception using
      errcode = 'TD010',
      message = format('no agent holds a state of stack %s: there is nothing to discard', to_json(stack.state_key)),
      hint = 'Read the row in stacks again.';
  end if;
  lost := format('Agent %s has held the only copy of the state of stack %s since %s (%s). What was created or changed by its last run stays in the cloud, and no state will know of it.',
    stack.state_held_by, stack.state_key, stack.state_held_since, coalesce(stack.state_held_reason, 'no reason given'));
  if discard_held_state.confirm is distinct from stack.state_key then
    raise exception using
      errcode = 'TD010',
      message = 'the state is not discarded: pass the state_key as confirm',
      detail = lost,
      hint = 'First try to store it: start that agent where its backend can be reached. It pushes the state and releases the stack by itself.';
  end if;
  insert into tendril.discarded_states as d (cluster_id, state_key, agent, discarded_by)
  values (cluster.id, stack.state_key, stack.state_held_by, tendril.claimed_user_id())
  on conflict on constraint discarded_states_pkey do update set discarded_at = now(), discarded_by = excluded.discarded_by;
  update public.stacks s
  set state_held_by = null, state_held_since = null, state_held_reason = null, updated_at = now()
  where s.cluster_id = cluster.id and s.state_key = stack.state_key;
  perform tendril.broadcast(cluster.id, (
    select jsonb_build_object('id', d.id, 'status', d.status, 'attempt', d.attempt) from public.deployments d
    where d.cluster_id = cluster.id and d.state_key = stack.state_key and d.status = 'QUEUED'
    order by d.queue_order limit 1));
  return jsonb_build_object('discarded', true, 'held_by', stack.state_held_by, 'since', stack.state_held_since,
    'reason', stack.state_held_reason, 'lost', lost);
end
$$;
comment on function public.discard_held_state(uuid, text, text) is 'Gives up a state that could not be stored, so that other agents may claim: {"discarded", "held_by", "since", "reason", "lost"}. confirm: the state_key. Errors: TD008 no such stack of yours, TD010 nothing held or not confirmed; its detail says what would be lost. For the owner.';

create function public.agent_stack_applied(deployment_id uuid, claim_token uuid, resources integer, backend text default null, fingerprint text default null) returns void
language plpgsql security definer set search_path = '' as $$
declare
  deployment constant public.deployments := tendril.require_claim(deployment_id, claim_token);
begin
  if resources < 0 then
    raise exception using errcode = '22023', message = format('resources is %s, and a state holds none or more', resources);
  end if;
  perform tendril.add_stack(deployment);
  if deployment.status = 'PROCESSING' then
    update public.deployments d set claim_token = deployment.claim_token, applied = true where d.id = deployment.id and not d.applied;
  end if;
  -- Also what Terraform reports no end of, and what was lost with an agent that died.
  update public.deployment_changes c set status = 'DONE'
  where c.deployment_id = deployment.id and c.attempt = deployment.attempt and not c.drift and c.action <> 'truncated'
    and c.status in ('PLANNED', 'RUNNING');
  update public.stacks s
  set resources = agent_stack_applied.resources, backend = coalesce(left(agent_stack_applied.backend, 40), s.backend),
    backend_fingerprint = coalesce(left(fingerprint, 128), s.backend_fingerprint), updated_at = now(),
    last_deployment_id = deployment.id, last_status = deployment.status, last_action = coalesce(deployment.config_snapshot ->> 'action', 'apply')
  where s.cluster_id = deployment.cluster_id and s.state_key = deployment.state_key;
end
$$;
comment on function public.agent_stack_applied(uuid, uuid, integer, text, text) is 'The plan was applied (deployments.applied, and its changes are DONE): what the state of a deployment''s stack holds now: number of resources, backend and the fingerprint of its settings. Errors: TD001 not the claim.';

revoke all on function
  tendril.add_stack(public.deployments), tendril.add_stacks_of_queued(), tendril.follow_stack(), tendril.note_stack_version(),
  tendril.hold_state(uuid, text, text, text), public.agent_hold_state(text, text, text, timestamptz), public.agent_release_state(text, text),
  public.discard_held_state(uuid, text, text), public.agent_stack_applied(uuid, uuid, integer, text, text)
  from public, anon, authenticated, service_role, tendril_agent;
grant execute on function
  public.agent_hold_state(text, text, text, timestamptz), public.agent_release_state(text, text),
  public.agent_stack_applied(uuid, uuid, integer, text, text)
  to tendril_agent, service_role;
grant execute on function public.discard_held_state(uuid, text, text) to authenticated;

create trigger c_add_stacks_of_queued after insert on public.deployments
  referencing new table as queued for each statement execute function tendril.add_stacks_of_queued();
create trigger c_follow_stack after update of status on public.deployments
  for each row when (
    old.status is distinct from new.status and (old.status <> 'QUEUED' or new.status = 'PROCESSING')
    or old.error_code is distinct from new.error_code and new.status = 'FAILED'
  ) execute function tendril.follow_stack();
create trigger c_note_stack_version after update of phase on public.deployments
  for each row when (new.status = 'PROCESSING' and new.phase in ('APPLY', 'DESTROY') and new.phase is distinct from old.phase and new.terraform_version is not null)
  execute function tendril.note_stack_version();
