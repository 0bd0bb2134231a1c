-- A run's own token: the claim_token of a deployment is exchanged for a token that reaches that deployment and no other, so
-- that the process which runs a template holds neither the cluster's key nor the agent's token.
--
-- The claim_token has 122 random bits and is read by agents alone.

create function public.exchange_claim(deployment_id uuid, claim_token uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  deployment public.deployments;
  revoked boolean;
  granted boolean;
  wait integer;
begin
  select * into deployment from public.deployments d
  where d.id = exchange_claim.deployment_id and d.claim_token = exchange_claim.claim_token
    -- A run that was ended while it was silent still reports its log and its true result.
    and (d.status = 'PROCESSING' or d.finished_at > now() - interval '1 day');
  granted := found;
  wait := tendril.count_exchange(granted, lpad(left(md5('claim ' || coalesce(exchange_claim.deployment_id::text, '')), 3), 32, '0')::uuid);
  if wait > 0 then
    return jsonb_build_object('result', 'limited', 'retry_after', wait);
  elsif not granted then
    return jsonb_build_object('result', 'refused');
  end if;
  select c.revoked_at is not null into revoked from public.clusters c where c.id = deployment.cluster_id;
  if revoked then
    return jsonb_build_object('result', 'revoked');
  end if;
  return jsonb_build_object('result', 'granted', 'cluster_id', deployment.cluster_id, 'deployment_id', deployment.id);
end
$$;
comment on function public.exchange_claim(uuid, uuid) is 'Whether this claim_token holds the deployment, or held it until its end within the last day: {"result": "granted" | "refused" | "revoked" | "limited"}. For the Edge Function agent-token.';
revoke all on function public.exchange_claim(uuid, uuid) from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.exchange_claim(uuid, uuid) to service_role;
