-- Optional, by hand, on top of the migrations: agents without a database role of their own.
--
-- Some places mint machine tokens whose role must be `authenticated` (a custom role is not wanted, or not possible). With
-- this, such a token is an agent's when it has the claims
--
--     "role": "authenticated", "agent": true, "cluster_id": "<uuid>", "sub": "<uuid that is no user>"
--
-- Both claims must be set by whoever signs tokens, top level: never from user_metadata, which users edit themselves.
--
-- What is weaker than with tendril_agent, because column grants are per role and users share this one:
--   * A user can read the claim_token of own deployments (of no others). The trigger below still keeps users from writing
--     anything but a cancel or an approval, so the token is of no use to them.
--   * An agent can read clusters.user_id and all columns of its cluster's logs.
-- What stays as strong: whose rows one sees, what agents write, what users write, the state machine, revocation, and that
-- an agent neither queues deployments nor touches clusters: those policies ask for auth.uid(), which is no user's.
--
-- To undo: drop what is created here, and revoke the grants from authenticated.

begin;

create function tendril.is_agent() returns boolean
language sql stable set search_path = '' as $$
  select coalesce(nullif(current_setting('request.jwt.claims', true), '')::jsonb -> 'agent' = 'true', false)
$$;
comment on function tendril.is_agent() is 'Whether the caller, as authenticated, is an agent and not a user.';
revoke all on function tendril.is_agent() from public, anon;
-- The trigger below asks it for whoever writes.
grant execute on function tendril.is_agent() to service_role, tendril_agent;
grant execute on function tendril.is_agent(), tendril.agent_cluster_id() to authenticated;

grant select (claim_token),
      update (status, phase, claim_token, claimed_by, template_commit, terraform_version, plan_summary, plan_sha256, applied, cost, cost_status,
              outputs, log_count, error_code, error_message)
  on public.deployments to authenticated;
grant insert (deployment_id, attempt, seq, stream, log_chunk, ts) on public.deployment_logs to authenticated;
grant execute on function public.agent_heartbeat(text, uuid[], text, text, text), public.agent_offline(text), public.agent_approval(uuid, uuid),
    public.agent_wants_broadcasts(), public.agent_publish_templates(json), public.agent_stack_applied(uuid, uuid, integer, text, text),
    public.agent_hold_state(text, text, text, timestamptz), public.agent_release_state(text, text),
    public.agent_store_changes(uuid, uuid, jsonb), public.agent_report_changes(uuid, uuid, jsonb) to authenticated;

create policy "An agent as authenticated reads its own cluster" on public.clusters
  for select to authenticated
  using ((select tendril.is_agent()) and id = (select tendril.agent_cluster_id()));
create policy "An agent as authenticated reads deployments of its cluster" on public.deployments
  for select to authenticated
  using ((select tendril.is_agent()) and cluster_id = (select tendril.agent_cluster_id())
    and id = coalesce((select tendril.claimed_deployment_id()), id));
create policy "An agent as authenticated works on deployments of its cluster" on public.deployments
  for update to authenticated
  using ((select tendril.is_agent()) and cluster_id = (select tendril.agent_cluster_id())
    and id = coalesce((select tendril.claimed_deployment_id()), id))
  with check ((select tendril.is_agent()) and cluster_id = (select tendril.agent_cluster_id())
    and id = coalesce((select tendril.claimed_deployment_id()), id));
create policy "An agent as authenticated sees which chunks are stored" on public.deployment_logs
  for select to authenticated
  using (
    (select tendril.is_agent())
    and (select d.cluster_id from public.deployments d where d.id = deployment_logs.deployment_id)
      = (select tendril.agent_cluster_id())
    and deployment_id = coalesce((select tendril.claimed_deployment_id()), deployment_id)
  );
create policy "An agent as authenticated appends logs" on public.deployment_logs
  for insert to authenticated
  with check ((select tendril.is_agent()) and exists (
    select from public.deployments d
    where d.id = deployment_logs.deployment_id
      and d.cluster_id = (select tendril.agent_cluster_id())
      and d.id = coalesce((select tendril.claimed_deployment_id()), d.id)
      and deployment_logs.attempt between 1 and d.attempt
  ));

create policy "An agent as authenticated reads stacks of its cluster" on public.stacks
  for select to authenticated
  using ((select tendril.is_agent()) and cluster_id = (select tendril.agent_cluster_id())
    and (select tendril.claimed_deployment_id()) is null);
create policy "An agent as authenticated reads agents of its cluster" on public.agents
  for select to authenticated
  using ((select tendril.is_agent()) and cluster_id = (select tendril.agent_cluster_id())
    and (select tendril.claimed_deployment_id()) is null);
create policy "An agent as authenticated reads templates of its cluster" on public.cluster_templates
  for select to authenticated
  using ((select tendril.is_agent()) and cluster_id = (select tendril.agent_cluster_id())
    and (select tendril.claimed_deployment_id()) is null);

-- Broadcasts: to receive those of its cluster, and not to send.
select tendril.install_broadcasts();

-- Users share the column grants of agents now; this keeps them, and agents, to what was theirs before.
create function tendril.keep_to_own_columns() returns trigger
language plpgsql set search_path = '' as $$
begin
  if current_user <> 'authenticated' then
    return new;
  elsif tendril.is_agent() then
    if tendril.without_acts(new, old) is distinct from new then
      raise exception using errcode = '42501', message = 'an agent neither cancels nor approves';
    end if;
  elsif tendril.without_acts(new, old) is distinct from old or coalesce(current_setting('tendril.shown_token', true), '') <> '' then
    raise exception using errcode = '42501', message = 'a user cancels and approves, and writes nothing else';
  end if;
  return new;
end
$$;
comment on function tendril.keep_to_own_columns() is 'Distinguishes users from agents where both are authenticated.';
revoke all on function tendril.keep_to_own_columns() from public, anon, authenticated, service_role;
-- Between the note of the claim token and the state machine.
create trigger aa_keep_to_own_columns before update on public.deployments
  for each row execute function tendril.keep_to_own_columns();

commit;
