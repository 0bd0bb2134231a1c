-- What the agents of a cluster can run: the templates in their folders, so that a portal offers what is really there.

create table public.cluster_templates (
  cluster_id uuid not null references public.clusters (id) on delete cascade,
  name text not null,
  digest text not null,
  title text,
  description text,
  variables json not null default '{}',
  updated_at timestamptz not null default now(),

  primary key (cluster_id, name),
  constraint cluster_templates_name_is_one check (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  constraint cluster_templates_digest_is_sha256 check (digest ~ '^[0-9a-f]{64}$'),
  constraint cluster_templates_title_length check (char_length(title) <= 200),
  constraint cluster_templates_description_length check (char_length(description) <= 4000),
  constraint cluster_templates_variables_are_a_schema check (json_typeof(variables) = 'object'),
  constraint cluster_templates_variables_at_most_64_kib check (octet_length(variables::text) <= 65536)
);

comment on table public.cluster_templates is 'Templates that the agents of a cluster carry, as the agent that started last published them.';
comment on column public.cluster_templates.name is 'For config_snapshot.template.';
comment on column public.cluster_templates.digest is 'SHA-256 over the files of the template.';
comment on column public.cluster_templates.variables is 'JSON Schema of the variables, from template.json, in the order in which it was written: forms follow it.';
comment on column public.cluster_templates.updated_at is 'When it was added or changed last.';

revoke all on table public.cluster_templates from public, anon, authenticated, service_role, tendril_agent;
alter table public.cluster_templates enable row level security;
grant select on public.cluster_templates to authenticated, tendril_agent;
grant select, insert, update, delete on public.cluster_templates to service_role;
create policy "A user reads templates of own clusters" on public.cluster_templates
  for select to authenticated
  using (cluster_id = any (array(select id from public.clusters where user_id = (select auth.uid()))));
create policy "An agent reads templates of its cluster" on public.cluster_templates
  for select to tendril_agent using (cluster_id = (select tendril.agent_cluster_id()));

-- Rows that are the same stay as they are, so that an agent that starts changes nothing that is published.
create function public.agent_publish_templates(templates json) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.require_whole_cluster();
  changed integer;
  removed integer;
begin
  if json_typeof(templates) is distinct from 'array' or json_array_length(templates) > 1000 then
    raise exception using errcode = '22023', message = 'templates must be a JSON array of at most 1000 templates',
      hint = 'Send [{"name", "digest", "title", "description", "variables"}, …].';
  end if;
  -- Two agents that start at once follow one another.
  perform from public.clusters c where c.id = cluster.id for no key update;
  delete from public.cluster_templates t
  where t.cluster_id = cluster.id and t.name not in (select e ->> 'name' from json_array_elements(templates) as e where e ->> 'name' is not null);
  get diagnostics removed = row_count;
  insert into public.cluster_templates as t (cluster_id, name, digest, title, description, variables)
  select cluster.id, e.name, e.digest, e.title, e.description, coalesce(e.variables, '{}')
  from json_to_recordset(templates) as e (name text, digest text, title text, description text, variables json)
  on conflict on constraint cluster_templates_pkey do update set
    digest = excluded.digest, title = excluded.title, description = excluded.description, variables = excluded.variables, updated_at = now()
  where (t.digest, t.title, t.description, t.variables::text)
    is distinct from (excluded.digest, excluded.title, excluded.description, excluded.variables::text);
  get diagnostics changed = row_count;
  return jsonb_build_object('changed', changed, 'removed', removed);
end
$$;
comment on function public.agent_publish_templates(json) is 'Replaces the catalogue of the caller''s cluster: [{"name", "digest", "title", "description", "variables"}]. Answers {"changed", "removed"}.';
revoke all on function public.agent_publish_templates(json) from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.agent_publish_templates(json) to tendril_agent, service_role;
