-- Live changes: Realtime streams the tables of this publication, each change checked against the subscriber's policies.

do $$
declare
  relation text;
begin
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;

  foreach relation in array array['clusters', 'deployments', 'deployment_logs', 'deployment_changes', 'stacks', 'cluster_templates'] loop
    if not exists (
      select from pg_catalog.pg_publication_tables
      where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = relation
    ) then
      execute format('alter publication supabase_realtime add table public.%I', relation);
    end if;
  end loop;
end
$$;
