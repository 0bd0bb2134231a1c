-- The plan of a deployment, a row for each resource that it changes, and how far each change got during apply.

create table public.deployment_changes (
  id bigint generated always as identity primary key,
  deployment_id uuid not null references public.deployments (id) on delete cascade,
  attempt integer not null,
  position integer not null,
  address text not null,
  resource_type text,
  provider text,
  action text not null,
  drift boolean not null default false,
  attributes jsonb not null default '[]',
  status text not null default 'PLANNED',
  started_at timestamptz,
  seconds numeric,
  error text,
  created_at timestamptz not null default now(),

  -- Makes a repeated insert harmless (on conflict do nothing), and is the order of the plan.
  constraint deployment_changes_once unique (deployment_id, attempt, position),
  constraint deployment_changes_attempt_positive check (attempt >= 1),
  constraint deployment_changes_position_1_to_5001 check (position between 1 and 5001),
  constraint deployment_changes_address_length check (octet_length(address) between 1 and 4096),
  constraint deployment_changes_action_known check (action in
    ('create', 'update', 'replace', 'delete', 'read', 'import', 'move', 'forget', 'no-op', 'truncated')),
  constraint deployment_changes_status_known check (status in ('PLANNED', 'RUNNING', 'DONE', 'FAILED')),
  constraint deployment_changes_attributes_at_most_16_kib check (octet_length(attributes::text) <= 16384),
  constraint deployment_changes_error_at_most_4_kib check (octet_length(error) <= 4096)
);

comment on table public.deployment_changes is 'Planned changes of deployments: a row is a resource. Order: attempt, position. At most 5000 and one marker.';
comment on column public.deployment_changes.attempt is 'Which attempt of the deployment planned it.';
comment on column public.deployment_changes.position is '1, 2, 3, … in the order of the plan.';
comment on column public.deployment_changes.address is 'Terraform''s address of the resource, such as module.network.aws_subnet.private["a"].';
comment on column public.deployment_changes.action is 'create, update, replace, delete, read, import, move, forget, no-op (drift rows only), or truncated: the marker after 5000 rows.';
comment on column public.deployment_changes.drift is 'True: what changed outside of Terraform since the last apply. False: what the configuration changes.';
comment on column public.deployment_changes.attributes is '[{"path", "before", "after", "sensitive", "unknown", "truncated", "requires_replace"}]; values of sensitive attributes are left out. Of the marker: {"omitted": n}.';
comment on column public.deployment_changes.status is 'PLANNED, then RUNNING, DONE or FAILED while apply runs.';
comment on column public.deployment_changes.seconds is 'How long the change took, once it is DONE or FAILED.';

revoke all on table public.deployment_changes from public, anon, authenticated, service_role, tendril_agent;
revoke all on sequence public.deployment_changes_id_seq from public, anon, authenticated, service_role, tendril_agent;
alter table public.deployment_changes enable row level security;
grant select on public.deployment_changes to authenticated;
grant select, insert, update on public.deployment_changes to service_role;

-- One look-up by primary key for each row, as for logs.
create policy "A user reads changes of own deployments" on public.deployment_changes
  for select to authenticated
  using (
    (select d.cluster_id from public.deployments d where d.id = deployment_changes.deployment_id)
    = any (array(select c.id from public.clusters c where c.user_id = (select auth.uid())))
  );

create function tendril.require_list(changes jsonb) returns void
language plpgsql immutable set search_path = '' as $$
begin
  if jsonb_typeof(changes) is distinct from 'array' then
    raise exception using errcode = '22023', message = 'changes must be a JSON array',
      hint = 'Send [{"position": 1, …}, …].';
  elsif jsonb_array_length(changes) > 1000 then
    raise exception using errcode = '22023', message = format('%s changes are too many for one call', jsonb_array_length(changes)),
      hint = 'Send at most 1000 at a time.';
  end if;
end
$$;
comment on function tendril.require_list(jsonb) is 'Refuses what is no list of at most 1000 changes (22023).';

create function public.agent_store_changes(deployment_id uuid, claim_token uuid, changes jsonb) returns integer
language plpgsql security definer set search_path = '' as $$
declare
  deployment constant public.deployments := tendril.require_claim(deployment_id, claim_token);
  stored integer;
begin
  perform tendril.require_list(changes);
  insert into public.deployment_changes (deployment_id, attempt, position, address, resource_type, provider, action, drift, attributes)
  select deployment.id, deployment.attempt, c.position, c.address, c.resource_type, c.provider, c.action, coalesce(c.drift, false), coalesce(c.attributes, '[]')
  from jsonb_to_recordset(changes) as c (position integer, address text, resource_type text, provider text, action text, drift boolean, attributes jsonb)
  on conflict on constraint deployment_changes_once do nothing;
  get diagnostics stored = row_count;
  return stored;
end
$$;
comment on function public.agent_store_changes(uuid, uuid, jsonb) is 'Stores planned changes of a claimed deployment: [{"position", "address", "resource_type", "provider", "action", "drift", "attributes"}]. A position that is stored stays as it is. Answers how many are new. Error: TD001.';

create function public.agent_report_changes(deployment_id uuid, claim_token uuid, changes jsonb) returns integer
language plpgsql security definer set search_path = '' as $$
declare
  deployment constant public.deployments := tendril.require_claim(deployment_id, claim_token);
  changed integer;
begin
  perform tendril.require_list(changes);
  update public.deployment_changes c
  set status = r.status, started_at = coalesce(r.started_at, c.started_at),
    seconds = coalesce(r.seconds, c.seconds), error = coalesce(left(r.error, 1000), c.error)
  from (
    select distinct on (e.value ->> 'position', e.value ->> 'address')
      (e.value ->> 'position')::integer as position, e.value ->> 'address' as address, e.value ->> 'status' as status,
      (e.value ->> 'started_at')::timestamptz as started_at, (e.value ->> 'seconds')::numeric as seconds, e.value ->> 'error' as error
    from jsonb_array_elements(changes) with ordinality as e (value, place)
    -- The last report of a change counts.
    order by e.value ->> 'position', e.value ->> 'address', e.place desc
  ) as r
  where c.deployment_id = deployment.id and c.attempt = deployment.attempt and not c.drift
    and case when r.position is not null then c.position = r.position else c.address = r.address end
    -- What has ended does not run again, however late a report comes.
    and (c.status in ('PLANNED', 'RUNNING') or r.status in ('DONE', 'FAILED'))
    and (c.status, c.started_at, c.seconds, c.error)
      is distinct from (r.status, coalesce(r.started_at, c.started_at), coalesce(r.seconds, c.seconds), coalesce(left(r.error, 1000), c.error));
  get diagnostics changed = row_count;
  return changed;
end
$$;
comment on function public.agent_report_changes(uuid, uuid, jsonb) is 'How far changes got: [{"position" or "address", "status", "started_at", "seconds", "error"}]. Answers how many rows changed. Error: TD001.';

revoke all on function
  tendril.require_list(jsonb), public.agent_store_changes(uuid, uuid, jsonb), public.agent_report_changes(uuid, uuid, jsonb)
  from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.agent_store_changes(uuid, uuid, jsonb), public.agent_report_changes(uuid, uuid, jsonb)
  to tendril_agent, service_role;
