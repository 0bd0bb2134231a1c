-- Which contract this database holds: a number that agents and portals can compare with the one they were built for.
--
--   1   tables, state machine, heartbeat, approval, keys of clusters; it is not reported
--   2   the heartbeat and contract_version() return it; templates from Git, broadcast intake, names of agents
--   3   stacks: one run at a time, in order; changes, catalogue, timeouts; a quiet fleet; retention
--
-- Raise it in the migration that adds what an agent or a portal may want to know of: a column it writes, a status, a phase,
-- a field of the heartbeat. An agent works with the contract before its own and with the one after it.

create function public.contract_version() returns integer
language sql immutable parallel safe set search_path = '' as $$
  select 3
$$;
comment on function public.contract_version() is 'The version of Tendril''s contract that this database holds. Agents and portals work with the one before theirs and the one after it.';

revoke all on function public.contract_version() from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.contract_version() to authenticated, service_role, tendril_agent;
