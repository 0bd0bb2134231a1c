-- Approval: a deployment with "approval": true in its config_snapshot rests in phase APPROVAL once its plan is made, until
-- its user sets approved_plan to plan_sha256. Only the plan that was shown can be approved, and only while it waits.
--
-- Error: TD005 that is not the plan that waits for approval.

alter table public.deployments
  add column plan_sha256 text,
  add column approved_plan text,
  add column approved_at timestamptz,
  add constraint deployments_plan_sha256_is_one check (plan_sha256 ~ '^[0-9a-f]{64}$'),
  add constraint deployments_approval_is_of_the_plan check (approved_plan is null or approved_plan = plan_sha256),
  add constraint config_snapshot_approval_is_a_boolean check (
    not config_snapshot ? 'approval' or jsonb_typeof(config_snapshot -> 'approval') = 'boolean'
  );

comment on column public.deployments.plan_sha256 is 'SHA-256 of the saved plan, written by the agent. What is applied has this digest.';
comment on column public.deployments.approved_plan is 'Set by a user to plan_sha256 while the phase is APPROVAL: the agent then applies that plan.';
comment on column public.deployments.approved_at is 'When the plan was approved, by the database clock.';
comment on column public.deployments.error_code is 'AGENT_LOST, AGENT_STOPPED, CANCELLED, TERRAFORM_FAILED, CONFIG_INVALID, TEMPLATE_NOT_FOUND, STATE_LOCKED, STATE_NOT_STORED, PLAN_CHANGED, INTERNAL.';

grant select (plan_sha256, approved_plan, approved_at), update (approved_plan) on public.deployments to authenticated;
grant select (plan_sha256, approved_plan, approved_at), update (plan_sha256) on public.deployments to tendril_agent;

-- Nothing runs while a plan waits: an agent that is restarted meanwhile keeps the job, and with it the plan.
create or replace function tendril.lease_length(phase text) returns interval
language sql immutable parallel safe set search_path = '' as $$
  select case when tendril.apply_began(phase) or phase = 'APPROVAL' then interval '10 minutes' else interval '60 seconds' end
$$;

-- The state machine lets a user change nothing but a cancel. An approval is noted before it and written after it, so that
-- it need not know of it.
create function tendril.note_approval() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform set_config('tendril.wished_approval', new.id || '/' || coalesce(new.approved_plan, ''), true);
  new.approved_plan := old.approved_plan;
  return new;
end
$$;

create function tendril.approve() returns trigger
language plpgsql set search_path = '' as $$
declare
  note constant text := current_setting('tendril.wished_approval', true);
  wish constant text := case when split_part(note, '/', 1) = new.id::text then split_part(note, '/', 2) end;
  -- Where agents are `authenticated` too, their tokens say so.
  is_agent constant boolean := current_user = 'tendril_agent'
    or coalesce(nullif(current_setting('request.jwt.claims', true), '')::jsonb -> 'agent' = 'true', false);
begin
  perform set_config('tendril.wished_approval', '', true);
  -- A new plan, or none: what was approved before is not what would be applied.
  if new.status = 'QUEUED' or new.attempt <> old.attempt then
    new.plan_sha256 := null;
  end if;
  new.approved_plan := case when new.plan_sha256 = old.plan_sha256 then old.approved_plan end;
  new.approved_at := case when new.approved_plan is not null then old.approved_at end;

  if wish is null or wish = coalesce(old.approved_plan, '') then
    return new;
  elsif is_agent then
    raise exception using errcode = '42501', message = 'an agent does not approve plans';
  elsif wish = '' then
    raise exception using errcode = 'TD005',
      message = format('the approval of deployment %s cannot be taken back', new.id),
      hint = 'Set cancel_requested_at to stop it.';
  elsif new.status <> 'PROCESSING' or new.phase <> 'APPROVAL' or wish is distinct from new.plan_sha256 then
    raise exception using errcode = 'TD005',
      message = format('that is not a plan of deployment %s that waits for approval', new.id),
      detail = format('Its status is %s, phase %s, plan_sha256 %s.', new.status, coalesce(new.phase, 'none'), coalesce(new.plan_sha256, 'none')),
      hint = 'Read the row again: approve the plan_sha256 that it shows while its phase is APPROVAL.';
  end if;
  new.approved_plan := wish;
  new.approved_at := now();
  return new;
end
$$;
comment on function tendril.approve() is 'Who approves which plan. Error: TD005 that plan does not wait for approval.';
revoke all on function tendril.note_approval(), tendril.approve() from public, anon, authenticated, service_role, tendril_agent;

-- In the order of their names: before the state machine (and before what tells users from agents), and after it.
create trigger a_note_approval before update of approved_plan on public.deployments
  for each row execute function tendril.note_approval();
create trigger c_approve before update on public.deployments
  for each row execute function tendril.approve();
