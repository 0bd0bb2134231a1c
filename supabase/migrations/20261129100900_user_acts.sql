-- What a user does to a deployment after it was queued: cancel it, or approve its plan, each with a comment. To reject a plan
-- is to cancel with a comment.
--
-- The state machine restores these columns and checks the rest; then these functions check the user's acts.
--
-- Errors: TD002 a comment without its act; TD005 that is not a plan that waits for approval.

create function tendril.without_acts(changed public.deployments, old public.deployments) returns public.deployments
language plpgsql immutable set search_path = '' as $$
begin
  changed.cancel_requested_at := old.cancel_requested_at;
  changed.cancelled_by := old.cancelled_by;
  changed.cancel_comment := old.cancel_comment;
  changed.approved_plan := old.approved_plan;
  changed.approved_at := old.approved_at;
  changed.approved_by := old.approved_by;
  changed.approval_comment := old.approval_comment;
  return changed;
end
$$;
comment on function tendril.without_acts(public.deployments, public.deployments) is 'The changed row, with the columns of users as they were.';

-- Where agents are `authenticated` too, their tokens carry a claim for it.
create function tendril.acts_as_agent() returns boolean
language sql stable set search_path = '' as $$
  select current_user = 'tendril_agent'
    or coalesce(nullif(current_setting('request.jwt.claims', true), '')::jsonb -> 'agent' = 'true', false)
$$;
comment on function tendril.acts_as_agent() is 'Whether the caller is an agent, whatever its role.';

-- The first cancel counts; one that comes too late changes nothing.
create function tendril.cancel(deployment public.deployments, requested public.deployments) returns public.deployments
language plpgsql set search_path = '' as $$
begin
  if requested.cancel_requested_at is not distinct from deployment.cancel_requested_at then
    if requested.cancel_comment is distinct from deployment.cancel_comment then
      raise exception using
        errcode = 'TD002',
        message = format('a cancel_comment of deployment %s goes with its cancel', deployment.id),
        hint = 'Set cancel_requested_at in the same update. It cannot be changed afterwards.';
    end if;
  elsif deployment.cancel_requested_at is null and deployment.status = 'PROCESSING' then
    deployment.cancel_requested_at := now();
    deployment.cancelled_by := tendril.claimed_user_id();
    deployment.cancel_comment := nullif(btrim(requested.cancel_comment), '');
  end if;
  return deployment;
end
$$;
comment on function tendril.cancel(public.deployments, public.deployments) is 'The row after its user''s cancel request: when, by whom and why it is to be cancelled. Error: TD002.';

create function tendril.approve(deployment public.deployments, requested public.deployments) returns public.deployments
language plpgsql set search_path = '' as $$
declare
  wanted constant text := requested.approved_plan;
begin
  if wanted is not distinct from deployment.approved_plan then
    if requested.approval_comment is distinct from deployment.approval_comment then
      raise exception using
        errcode = 'TD005',
        message = format('an approval_comment of deployment %s goes with its approval', deployment.id),
        hint = 'Set approved_plan to plan_sha256 in the same update. It cannot be changed afterwards.';
    end if;
    return deployment;
  elsif tendril.acts_as_agent() then
    raise exception using errcode = '42501', message = 'an agent does not approve plans';
  elsif wanted is null then
    raise exception using
      errcode = 'TD005',
      message = format('the approval of deployment %s cannot be taken back', deployment.id),
      hint = 'Set cancel_requested_at to stop it.';
  elsif deployment.status <> 'PROCESSING' or deployment.phase <> 'APPROVAL' or wanted is distinct from deployment.plan_sha256 then
    raise exception using
      errcode = 'TD005',
      message = format('that is not a plan of deployment %s that waits for approval', deployment.id),
      detail = format('Its status is %s, phase %s, plan_sha256 %s.', deployment.status, coalesce(deployment.phase, 'none'), coalesce(deployment.plan_sha256, 'none')),
      hint = 'Read the row again: approve the plan_sha256 that it shows while its phase is APPROVAL.';
  elsif deployment.approval_expires_at <= now() then
    raise exception using
      errcode = 'TD005',
      message = format('the plan of deployment %s could be approved until %s', deployment.id, deployment.approval_expires_at),
      hint = 'Queue a new deployment: what is there may have changed since it was planned.';
  elsif deployment.cancel_requested_at is not null then
    raise exception using
      errcode = 'TD005',
      message = format('deployment %s is being cancelled: its plan cannot be approved any more', deployment.id),
      hint = 'Queue a new deployment.';
  end if;
  deployment.approved_plan := wanted;
  deployment.approved_at := now();
  deployment.approved_by := tendril.claimed_user_id();
  deployment.approval_comment := nullif(btrim(requested.approval_comment), '');
  return deployment;
end
$$;
comment on function tendril.approve(public.deployments, public.deployments) is 'The row after its user approved a plan. Error: TD005 that plan does not wait for approval.';

revoke all on function
  tendril.without_acts(public.deployments, public.deployments), tendril.acts_as_agent(),
  tendril.cancel(public.deployments, public.deployments), tendril.approve(public.deployments, public.deployments)
  from public, anon, authenticated, service_role, tendril_agent;
-- Called by the state machine with the rights of whoever writes the row.
grant execute on function
  tendril.without_acts(public.deployments, public.deployments), tendril.acts_as_agent(),
  tendril.cancel(public.deployments, public.deployments), tendril.approve(public.deployments, public.deployments)
  to authenticated, service_role, tendril_agent;
