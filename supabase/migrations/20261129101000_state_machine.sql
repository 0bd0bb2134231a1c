-- Which changes of a deployment are legal. Binds every role, service_role and the table's owner included.
--
--   QUEUED -> PROCESSING                     claim: a new claim_token, in turn
--   QUEUED -> CANCELLED                      a user cancels before anybody claimed
--   QUEUED -> FAILED                         the reaper: it waited too long, or its cluster was revoked
--   PROCESSING -> PROCESSING                 progress: the claim's token; never back from "apply began" to before
--   PROCESSING -> SUCCESS FAILED CANCELLED   the end: the claim's token
--   PROCESSING -> QUEUED FAILED CANCELLED, phase UNKNOWN     the reaper: no token, but only after the agent fell silent
--   PROCESSING -> FAILED                     the reaper: nobody approved its plan in time
--   FAILED/AGENT_LOST -> SUCCESS FAILED CANCELLED            the late, true result: the claim's token
--   FAILED/AGENT_STOPPED -> FAILED                           why it was stopped, which the run itself cannot know: the claim's token
--
-- Errors: TD001 the claim token is absent or stale; TD002 the change is not legal.

create function tendril.refuse_transition(deployment public.deployments, wanted text, hint text) returns void
language plpgsql set search_path = '' as $$
begin
  raise exception using
    errcode = 'TD002',
    message = format('deployment %s cannot go from %s to %s', deployment.id, deployment.status, wanted),
    detail = format('Its phase is %s, attempt %s.', coalesce(deployment.phase, 'none'), deployment.attempt),
    hint = hint;
end
$$;

create function tendril.may_run_again(deployment public.deployments) returns boolean
language sql stable set search_path = '' as $$
  select case when deployment.phase = 'APPROVAL' then true
    else deployment.attempt < 2 and not tendril.apply_began(deployment.phase) end
$$;
comment on function tendril.may_run_again(public.deployments) is 'Whether a lost agent''s job is queued again: before its apply began, once; while its plan waits for approval, always.';

-- Agents need a while to end by themselves what expired, with their log; after it the reaper does.
create function tendril.approval_expired(deployment public.deployments) returns boolean
language sql stable set search_path = '' as $$
  select coalesce(deployment.status = 'PROCESSING' and deployment.phase = 'APPROVAL' and deployment.approved_plan is null
    and deployment.approval_expires_at < now() - interval '90 seconds', false)
$$;
comment on function tendril.approval_expired(public.deployments) is 'Whether nobody approved the plan in time, and its agent did not end it.';

-- Security definer: whether a cluster was revoked is not for every role to see.
create function tendril.queue_ended(deployment public.deployments) returns text
language sql stable security definer set search_path = '' as $$
  select case
    when exists (select from public.clusters c where c.id = deployment.cluster_id and c.revoked_at is not null) then 'CLUSTER_REVOKED'
    when deployment.queue_expires_at <= now() then 'TIMED_OUT'
  end
$$;
comment on function tendril.queue_ended(public.deployments) is 'The error_code with which a QUEUED deployment ends by itself, or null.';

-- Back to how it was queued; the count of attempts stays.
create function tendril.queued_again(deployment public.deployments) returns public.deployments
language plpgsql stable set search_path = '' as $$
begin
  deployment.status := 'QUEUED';
  deployment.queue_expires_at := now() + tendril.seconds_of(deployment.config_snapshot, 'timeouts', 'queue');
  deployment.claim_token := null;
  deployment.claimed_by := null;
  deployment.claimed_at := null;
  deployment.started_at := null;
  deployment.phase := null;
  deployment.template_commit := null;
  deployment.terraform_version := null;
  deployment.plan_summary := null;
  deployment.plan_sha256 := null;
  deployment.approval_expires_at := null;
  deployment.approved_plan := null;
  deployment.approved_at := null;
  deployment.approved_by := null;
  deployment.approval_comment := null;
  deployment.applied := false;
  deployment.cost := null;
  deployment.cost_status := null;
  deployment.outputs := null;
  deployment.log_count := 0;
  return deployment;
end
$$;

create function tendril.enforce_state() returns trigger
language plpgsql set search_path = '' as $$
declare
  shown constant text := current_setting('tendril.shown_token', true);
  token_shown constant boolean := coalesce(shown = new.id || '/' || coalesce(new.claim_token::text, ''), false);
  holds_claim constant boolean := token_shown and coalesce(new.claim_token = old.claim_token, false);
  -- Only the reaper decides that an agent is lost. Agents and users come in as these roles; it does not.
  may_reap constant boolean := current_user not in ('anon', 'authenticated', 'tendril_agent');
  asked constant public.deployments := new;
  wanted constant text := new.status;
begin
  perform set_config('tendril.shown_token', '', true);

  if (new.id, new.cluster_id, new.config_snapshot, new.state_key, new.queue_order, new.created_at)
     is distinct from (old.id, old.cluster_id, old.config_snapshot, old.state_key, old.queue_order, old.created_at) then
    perform tendril.refuse_transition(old, 'another job',
      'What to run, where and in which order never changes. Queue a new deployment.');
  end if;

  -- The database's clock and counter; whatever the statement contains.
  new.attempt := old.attempt;
  new.claimed_at := old.claimed_at;
  new.queue_expires_at := old.queue_expires_at;
  new.started_at := old.started_at;
  new.finished_at := old.finished_at;
  new.approval_expires_at := old.approval_expires_at;
  new := tendril.without_acts(new, old);
  -- An end must never fail because its explanation is long.
  new.error_message := left(new.error_message, 8192);

  if old.status = 'QUEUED' then
    if wanted = 'PROCESSING' then
      if not token_shown or new.claim_token is null then
        perform tendril.refuse_claim_token(old, null);
      end if;
      perform tendril.require_turn(old, new.claimed_by);
      new.attempt := old.attempt + 1;
      new.claimed_at := now();
      new.started_at := now();
      new.phase := 'CLAIMED';
      new.error_code := null;
      new.error_message := null;
      perform tendril.extend_lease(new);
    elsif token_shown and new.claim_token is not null then
      -- An agent whose job was queued again, reporting what became of its own attempt.
      perform tendril.refuse_claim_token(old, new.claim_token);
    elsif wanted = 'CANCELLED' or (wanted = 'QUEUED' and asked.cancel_requested_at is not null) then
      new := old;
      new.status := 'CANCELLED';
      new.finished_at := now();
      new.error_code := 'CANCELLED';
      new.error_message := 'Cancelled before an agent claimed it.';
      new.cancel_requested_at := now();
      new.cancelled_by := tendril.claimed_user_id();
      new.cancel_comment := nullif(btrim(asked.cancel_comment), '');
      return new;
    elsif wanted = 'FAILED' and may_reap and new.error_code = tendril.queue_ended(old) then
      new.finished_at := now();
    elsif new is distinct from old then
      perform tendril.refuse_transition(old, wanted, 'A queued deployment is first claimed: status PROCESSING with a new claim_token.');
    end if;

  elsif old.status = 'PROCESSING' then
    if holds_claim then
      if wanted = 'PROCESSING' then
        new.phase := coalesce(new.phase, old.phase);
        if tendril.apply_began(old.phase) and not tendril.apply_began(new.phase) then
          perform tendril.refuse_transition(old, 'phase ' || new.phase, 'Apply has begun; there is no way back before it.');
        end if;
        if old.phase = 'UNKNOWN' and new.phase <> 'UNKNOWN' then
          new.error_message := null; -- The agent is back: the message about its silence no longer holds.
        end if;
        if new.plan_sha256 is distinct from old.plan_sha256 then
          -- Another plan: what was approved before is not what would be applied.
          new.approved_plan := null;
          new.approved_at := null;
          new.approved_by := null;
          new.approval_comment := null;
        end if;
        if new.phase = 'APPROVAL' and old.phase <> 'APPROVAL' then
          new.approval_expires_at := now() + tendril.seconds_of(new.config_snapshot, 'approval_expires');
        end if;
        perform tendril.extend_lease(new);
      elsif wanted in ('SUCCESS', 'FAILED', 'CANCELLED') then
        new.finished_at := now();
        if wanted = 'SUCCESS' then
          new.error_code := null;
          new.error_message := null;
        end if;
      else
        perform tendril.refuse_transition(old, wanted, 'End it as SUCCESS, FAILED or CANCELLED. Only a lost agent''s job is queued again.');
      end if;
    elsif new is not distinct from old and not token_shown then
      null; -- Only its user acts.
    elsif not may_reap or token_shown and new.claim_token is not null then
      perform tendril.refuse_claim_token(old, case when token_shown then new.claim_token end);
    elsif wanted = 'PROCESSING' and new.phase = 'UNKNOWN' and tendril.apply_began(old.phase)
        and tendril.silence(old) > tendril.lease_length(null) then
      null; -- Silent after apply began: the lease goes on, and the phase is UNKNOWN.
    elsif wanted in ('FAILED', 'CANCELLED') and (tendril.silence(old) > tendril.lease_length(old.phase)
        or wanted = 'FAILED' and new.error_code = 'APPROVAL_EXPIRED' and tendril.approval_expired(old)) then
      new.claim_token := old.claim_token;
      new.finished_at := now();
    elsif wanted = 'QUEUED' and tendril.silence(old) > tendril.lease_length(old.phase) and tendril.may_run_again(old) then
      new := tendril.queued_again(new);
    else
      perform tendril.refuse_transition(old, wanted, 'Without the claim_token only a job whose agent fell silent is ended or queued again.');
    end if;
    if new.status <> 'PROCESSING' then
      perform tendril.end_lease(old);
    end if;

  else -- finished
    if token_shown and not holds_claim then
      perform tendril.refuse_claim_token(old, new.claim_token);
    elsif holds_claim and wanted = old.status and new.phase is distinct from old.phase and not tendril.apply_began(old.phase) then
      -- An agent that does not know yet that its job was ended while it was silent, about to go on with it. The user has read
      -- that nothing was changed, and that has to stay true.
      perform tendril.refuse_transition(old, 'phase ' || coalesce(new.phase, 'none'), 'It was ended while its agent was silent: stop working on it.');
    elsif holds_claim and old.status = 'FAILED' and old.error_code = 'AGENT_LOST'
        and wanted in ('SUCCESS', 'FAILED', 'CANCELLED')
        -- The loss itself, reported twice, changes nothing.
        and not (wanted = 'FAILED' and coalesce(new.error_code, '') = 'AGENT_LOST') then
      new.finished_at := now();
      if wanted = 'SUCCESS' then
        new.error_code := null;
        new.error_message := null;
      end if;
    elsif holds_claim and wanted = 'FAILED' and old.status = 'FAILED' and old.error_code = 'AGENT_STOPPED'
        and new.error_code in ('AGENT_STOPPED', 'TIMED_OUT', 'DISK_FULL') and new.error_message is not null then
      -- A run in a pod is asked to stop, and does not learn by whom. Nothing else of its end changes.
      new := old;
      new.error_code := asked.error_code;
      new.error_message := asked.error_message;
    elsif wanted <> old.status then
      perform tendril.refuse_transition(old, wanted, 'It is finished. Queue a new deployment.');
    elsif holds_claim or new is not distinct from old then
      new := old; -- The same end reported twice: nothing changes.
    else
      perform tendril.refuse_claim_token(old, null);
    end if;
  end if;

  if asked.cancel_requested_at is distinct from old.cancel_requested_at or asked.cancel_comment is distinct from old.cancel_comment then
    new := tendril.cancel(new, asked);
  end if;
  if asked.approved_plan is distinct from old.approved_plan or asked.approval_comment is distinct from old.approval_comment then
    new := tendril.approve(new, asked);
  end if;
  return new;
end
$$;
comment on function tendril.enforce_state() is 'The state machine of deployments. Errors: TD001 claim token, TD002 transition, TD005 approval, TD006 turn, TD009 agent.';

revoke all on function
  tendril.refuse_transition(public.deployments, text, text), tendril.may_run_again(public.deployments),
  tendril.approval_expired(public.deployments), tendril.queue_ended(public.deployments), tendril.queued_again(public.deployments),
  tendril.enforce_state()
  from public, anon, authenticated, service_role, tendril_agent;
-- Called by the trigger with the rights of whoever writes the row.
grant execute on function
  tendril.refuse_transition(public.deployments, text, text), tendril.may_run_again(public.deployments),
  tendril.approval_expired(public.deployments), tendril.queue_ended(public.deployments), tendril.queued_again(public.deployments)
  to authenticated, service_role, tendril_agent;

-- Triggers of one kind run in the order of their names: the note is there before it is read.
create trigger a_note_claim_token before update of claim_token on public.deployments
  for each row execute function tendril.note_claim_token();
create trigger b_enforce_state before update on public.deployments
  for each row execute function tendril.enforce_state();
