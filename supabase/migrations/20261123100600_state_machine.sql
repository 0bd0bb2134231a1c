-- Which changes of a deployment are legal. Binds every role, service_role and the table's owner included.
--
--   QUEUED -> PROCESSING                     claim: a new claim_token
--   QUEUED -> CANCELLED                      a user cancels before anybody claimed
--   PROCESSING -> PROCESSING                 progress: the claim's token; never back from "apply began" to before
--   PROCESSING -> SUCCESS FAILED CANCELLED   the end: the claim's token
--   PROCESSING -> QUEUED FAILED CANCELLED, phase UNKNOWN     lost: no token, but only after the agent fell silent
--   FAILED/AGENT_LOST -> SUCCESS FAILED CANCELLED            the late, true result: the claim's token
--
-- Errors: TD001 the claim token is absent or stale; TD002 the change is not legal.

create function tendril.apply_began(phase text) returns boolean
language sql immutable parallel safe set search_path = '' as $$
  select coalesce(phase in ('APPLY', 'DESTROY', 'OUTPUT', 'REPORT', 'UNKNOWN'), false)
$$;
comment on function tendril.apply_began(text) is 'Whether infrastructure may have been changed: from then on a job is never run again by itself.';

create function tendril.lease_length(phase text) returns interval
language sql immutable parallel safe set search_path = '' as $$
  select case when tendril.apply_began(phase) then interval '10 minutes' else interval '60 seconds' end
$$;
comment on function tendril.lease_length(text) is 'How long a claim lives after its agent''s last sign of life.';

create function tendril.silent_since(deployment public.deployments) returns interval
language sql stable set search_path = '' as $$
  select now() - (deployment.lease_expires_at - tendril.lease_length(deployment.phase))
$$;
comment on function tendril.silent_since(public.deployments) is 'Time since the last sign of life of the agent that holds this deployment.';

-- A row trigger cannot tell "set claim_token = the same value" from "claim_token not mentioned". An UPDATE OF trigger
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

create function tendril.refuse_transition(deployment public.deployments, wish text, hint text) returns void
language plpgsql set search_path = '' as $$
begin
  raise exception using
    errcode = 'TD002',
    message = format('deployment %s cannot go from %s to %s', deployment.id, deployment.status, wish),
    detail = format('Its phase is %s, attempt %s.', coalesce(deployment.phase, 'none'), deployment.attempt),
    hint = hint;
end
$$;

create function tendril.enforce_state() returns trigger
language plpgsql set search_path = '' as $$
declare
  note constant text := current_setting('tendril.shown_token', true);
  token_shown constant boolean := coalesce(note = new.id || '/' || coalesce(new.claim_token::text, ''), false);
  holds_claim constant boolean := token_shown and coalesce(new.claim_token = old.claim_token, false);
  -- Only the reaper judges that an agent is lost. Agents and users come in as these roles; it does not.
  may_reap constant boolean := current_user not in ('anon', 'authenticated', 'tendril_agent');
  wish constant text := new.status;
begin
  perform set_config('tendril.shown_token', '', true);

  if (new.id, new.cluster_id, new.config_snapshot, new.created_at)
     is distinct from (old.id, old.cluster_id, old.config_snapshot, old.created_at) then
    perform tendril.refuse_transition(old, 'another job',
      'id, cluster_id, config_snapshot and created_at never change. Queue a new deployment.');
  end if;

  -- The database's clock and counter; whatever the statement said.
  new.attempt := old.attempt;
  new.claimed_at := old.claimed_at;
  new.started_at := old.started_at;
  new.finished_at := old.finished_at;
  new.cancel_requested_at := coalesce(old.cancel_requested_at, case when new.cancel_requested_at is not null then now() end);
  -- An end must never fail because its explanation is long.
  new.error_message := left(new.error_message, 8192);

  if old.status = 'QUEUED' then
    if wish = 'PROCESSING' then
      if not token_shown or new.claim_token is null then
        perform tendril.refuse_claim_token(old, null);
      end if;
      new.attempt := old.attempt + 1;
      new.claimed_at := now();
      new.started_at := now();
      new.phase := 'CLAIMED';
      new.lease_expires_at := now() + tendril.lease_length(new.phase);
      new.error_code := null;
      new.error_message := null;
    elsif token_shown and new.claim_token is not null then
      -- An agent whose job was queued again, reporting what became of its own attempt.
      perform tendril.refuse_claim_token(old, new.claim_token);
    elsif wish = 'CANCELLED' or (wish = 'QUEUED' and new.cancel_requested_at is not null) then
      new := old;
      new.status := 'CANCELLED';
      new.cancel_requested_at := now();
      new.finished_at := now();
      new.error_code := 'CANCELLED';
      new.error_message := 'Cancelled before an agent claimed it.';
    elsif new is distinct from old then
      perform tendril.refuse_transition(old, wish, 'A queued deployment is first claimed: status PROCESSING with a new claim_token.');
    end if;

  elsif old.status = 'PROCESSING' then
    if holds_claim then
      if wish = 'PROCESSING' then
        new.phase := coalesce(new.phase, old.phase);
        if tendril.apply_began(old.phase) and not tendril.apply_began(new.phase) then
          perform tendril.refuse_transition(old, 'phase ' || new.phase, 'Apply has begun; there is no way back before it.');
        end if;
        new.lease_expires_at := now() + tendril.lease_length(new.phase);
      elsif wish in ('SUCCESS', 'FAILED', 'CANCELLED') then
        new.finished_at := now();
        new.lease_expires_at := null;
        if wish = 'SUCCESS' then
          new.error_code := null;
          new.error_message := null;
        end if;
      else
        perform tendril.refuse_transition(old, wish, 'End it as SUCCESS, FAILED or CANCELLED. Only a lost agent''s job is queued again.');
      end if;
    elsif to_jsonb(new) - '{cancel_requested_at,lease_expires_at}'::text[]
        = to_jsonb(old) - '{cancel_requested_at,lease_expires_at}'::text[] and not token_shown then
      null; -- A user's cancel, or a heartbeat that extends the lease.
    elsif not may_reap or token_shown and new.claim_token is not null then
      perform tendril.refuse_claim_token(old, case when token_shown then new.claim_token end);
    elsif wish = 'PROCESSING' and new.phase = 'UNKNOWN' and tendril.apply_began(old.phase)
        and tendril.silent_since(old) > tendril.lease_length(null) then
      null; -- Fell silent after apply began: the lease goes on, the doubt is shown.
    elsif old.lease_expires_at < now() and wish in ('FAILED', 'CANCELLED') then
      new.claim_token := old.claim_token;
      new.finished_at := now();
      new.lease_expires_at := null;
    elsif old.lease_expires_at < now() and wish = 'QUEUED' and old.attempt < 2 and not tendril.apply_began(old.phase) then
      -- Back to how it was queued; the count of attempts stays.
      new.claim_token := null;
      new.claimed_by := null;
      new.claimed_at := null;
      new.lease_expires_at := null;
      new.started_at := null;
      new.phase := null;
      new.plan_summary := null;
      new.cost := null;
      new.cost_status := null;
      new.outputs := null;
      new.log_count := 0;
    else
      perform tendril.refuse_transition(old, wish, 'Without the claim_token only a job whose agent fell silent is ended or queued again.');
    end if;

  else -- finished
    if token_shown and not holds_claim then
      perform tendril.refuse_claim_token(old, new.claim_token);
    elsif holds_claim and old.status = 'FAILED' and old.error_code = 'AGENT_LOST'
        and wish in ('SUCCESS', 'FAILED', 'CANCELLED') then
      new.finished_at := now();
      new.lease_expires_at := null;
      if wish = 'SUCCESS' then
        new.error_code := null;
        new.error_message := null;
      end if;
    elsif wish <> old.status then
      perform tendril.refuse_transition(old, wish, 'It is finished. Queue a new deployment.');
    elsif holds_claim
        or to_jsonb(new) - 'cancel_requested_at' = to_jsonb(old) - 'cancel_requested_at' then
      new := old; -- The same end reported twice, or a cancel that came too late: nothing changes.
    else
      perform tendril.refuse_claim_token(old, null);
    end if;
  end if;

  return new;
end
$$;
comment on function tendril.enforce_state() is 'The state machine of deployments. Errors: TD001 claim token, TD002 transition.';

revoke all on function
  tendril.apply_began(text), tendril.lease_length(text), tendril.silent_since(public.deployments),
  tendril.note_claim_token(), tendril.refuse_claim_token(public.deployments, uuid),
  tendril.refuse_transition(public.deployments, text, text), tendril.enforce_state()
  from public, anon, authenticated, service_role, tendril_agent;
-- Called by the trigger with the rights of whoever writes the row.
grant execute on function
  tendril.apply_began(text), tendril.lease_length(text), tendril.silent_since(public.deployments),
  tendril.refuse_claim_token(public.deployments, uuid), tendril.refuse_transition(public.deployments, text, text)
  to authenticated, service_role, tendril_agent;

-- Triggers of one kind run in the order of their names: the note is there before it is read.
create trigger a_note_claim_token before update of claim_token on public.deployments
  for each row execute function tendril.note_claim_token();
create trigger b_enforce_state before update on public.deployments
  for each row execute function tendril.enforce_state();
