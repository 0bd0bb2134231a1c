-- Templates from Git: which commit a deployment ran. Its config_snapshot may name a branch; the row says what that was.

alter table public.deployments
  add column template_commit text,
  -- 40 hexadecimal digits, or 64 where a repository counts in SHA-256.
  add constraint deployments_template_commit_is_one check (template_commit ~ '^([0-9a-f]{40}|[0-9a-f]{64})$'),
  -- `null` counts as left out. A snapshot that names both would run the one or the other by chance.
  add constraint config_snapshot_names_one_of_template_and_source check (
    coalesce(jsonb_typeof(config_snapshot -> 'template'), 'null') = 'null'
    or coalesce(jsonb_typeof(config_snapshot -> 'source'), 'null') = 'null'
  ) not valid;

comment on column public.deployments.template_commit is 'Commit of the Git repository in config_snapshot.source that is run, written by the agent; null for templates that the agent carries.';
comment on column public.deployments.error_code is 'AGENT_LOST, AGENT_STOPPED, CANCELLED, TERRAFORM_FAILED, CONFIG_INVALID, TEMPLATE_NOT_FOUND, SOURCE_UNAVAILABLE, SOURCE_INVALID, STATE_LOCKED, STATE_NOT_STORED, PLAN_CHANGED, INTERNAL.';

grant select (template_commit) on public.deployments to authenticated;
grant select (template_commit), update (template_commit) on public.deployments to tendril_agent;

-- The state machine clears what an attempt found out when its job is queued again, column by column. This one is cleared
-- after it, so that the function need not be written anew for each column.
create function tendril.forget_commit() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.template_commit := null;
  return new;
end
$$;
comment on function tendril.forget_commit() is 'A job that is queued again may run another commit.';
revoke all on function tendril.forget_commit() from public, anon, authenticated, service_role, tendril_agent;

create trigger c_forget_commit before update on public.deployments
  for each row when (new.status = 'QUEUED') execute function tendril.forget_commit();
