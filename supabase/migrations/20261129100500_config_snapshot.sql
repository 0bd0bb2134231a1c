-- What a deployment asks for: the outline of config_snapshot, one rule per constraint so that the name in the error says what
-- to fix. The agent checks the whole of it; the schema is supabase/config_snapshot.schema.json.

-- `is true`: a check passes on null. A JSON null counts as left out.
alter table public.deployments
  add constraint config_snapshot_is_an_object check (jsonb_typeof(config_snapshot) = 'object'),
  add constraint config_snapshot_names_a_template_or_source check ((
    jsonb_typeof(config_snapshot -> 'template') = 'string' or jsonb_typeof(config_snapshot -> 'source' -> 'git') = 'string'
  ) is true),
  -- A snapshot that names both would run the one or the other by chance.
  add constraint config_snapshot_names_one_of_template_and_source check (
    coalesce(jsonb_typeof(config_snapshot -> 'template'), 'null') = 'null'
    or coalesce(jsonb_typeof(config_snapshot -> 'source'), 'null') = 'null'
  ),
  add constraint config_snapshot_action_known check (
    not config_snapshot ? 'action' or config_snapshot -> 'action' in ('"plan"', '"apply"', '"destroy"')
  ),
  add constraint config_snapshot_variables_are_an_object check (
    not config_snapshot ? 'variables' or jsonb_typeof(config_snapshot -> 'variables') = 'object'
  ),
  add constraint config_snapshot_approval_is_a_boolean check (
    not config_snapshot ? 'approval' or jsonb_typeof(config_snapshot -> 'approval') = 'boolean'
  ),
  -- Realtime cuts columns out of changes above 1 MiB; a snapshot must always fit.
  add constraint config_snapshot_at_most_256_kib check (octet_length(config_snapshot::text) <= 262144);

-- Seconds, as Terraform runs and people count them: from one second to one week.
create function tendril.is_seconds(value jsonb) returns boolean
language sql immutable parallel safe set search_path = '' as $$
  select case when jsonb_typeof(value) = 'number'
    then value::numeric between 1 and 604800 and value::numeric = trunc(value::numeric) else false end
$$;
comment on function tendril.is_seconds(jsonb) is 'Whether this is a whole number from 1 to 604800.';

create function tendril.refuse_config(rule text, message text, hint text) returns void
language plpgsql set search_path = '' as $$
begin
  raise exception using errcode = 'check_violation', schema = 'public', table = 'deployments', constraint = rule, message = message, hint = hint;
end
$$;

-- A constraint cannot say which of several keys is wrong; this can.
create function tendril.check_timeouts(config jsonb) returns void
language plpgsql set search_path = '' as $$
declare
  timeouts constant jsonb := nullif(config -> 'timeouts', 'null');
  expires constant jsonb := nullif(config -> 'approval_expires', 'null');
  wrong record;
begin
  if jsonb_typeof(timeouts) <> 'object' then
    perform tendril.refuse_config('config_snapshot_timeouts_are_an_object',
      format('config_snapshot.timeouts must be an object, and it is %s', left(timeouts::text, 100)),
      'Write for example {"timeouts": {"plan": 600, "apply": 3600}}: seconds.');
  elsif timeouts is not null then
    for wrong in select key, value from jsonb_each(timeouts) loop
      if wrong.key not in ('queue', 'init', 'plan', 'apply', 'silence') then
        perform tendril.refuse_config('config_snapshot_timeouts_known',
          format('config_snapshot.timeouts has no %s', to_json(left(wrong.key, 100))),
          'The timeouts are queue, init, plan, apply and silence.');
      elsif not tendril.is_seconds(wrong.value) then
        perform tendril.refuse_config('config_snapshot_timeouts_are_seconds',
          format('config_snapshot.timeouts.%s must be a whole number of seconds from 1 to 604800, and it is %s', wrong.key, left(wrong.value::text, 100)),
          'A week has 604800 seconds. Leave it out for no limit but the agent''s own.');
      end if;
    end loop;
  end if;
  if expires is not null and not tendril.is_seconds(expires) then
    perform tendril.refuse_config('config_snapshot_approval_expires_is_seconds',
      format('config_snapshot.approval_expires must be a whole number of seconds from 1 to 604800, and it is %s', left(expires::text, 100)),
      'A week has 604800 seconds. Leave it out if a plan may wait for ever.');
  end if;
end
$$;
comment on function tendril.check_timeouts(jsonb) is 'Refuses wrong timeouts and approval_expires of a config_snapshot, each with a sentence (23514).';

-- A version, or constraints as in required_version, perhaps behind the program's name.
create function tendril.is_version_request(value jsonb) returns boolean
language sql immutable parallel safe set search_path = '' as $$
  select coalesce(jsonb_typeof(value) = 'string' and char_length(value #>> '{}') <= 200
    and value #>> '{}' ~ '^ *((terraform|tofu|opentofu) )? *(=|!=|>=|<=|~>|>|<)? *v?[0-9]+(\.[0-9]+){0,2}([-+][0-9A-Za-z.+-]+)? *(, *(=|!=|>=|<=|~>|>|<)? *v?[0-9]+(\.[0-9]+){0,2}([-+][0-9A-Za-z.+-]+)? *)*$', false)
$$;
comment on function tendril.is_version_request(jsonb) is 'Whether this is a version such as "1.11.4", constraints such as "~> 1.11" or ">= 1.9, < 2.0", or one of them behind "terraform " or "tofu ".';

create function tendril.check_terraform_version(config jsonb) returns void
language plpgsql set search_path = '' as $$
declare
  version constant jsonb := nullif(config -> 'terraform_version', 'null');
begin
  if version is not null and not tendril.is_version_request(version) then
    perform tendril.refuse_config('config_snapshot_terraform_version_is_one',
      format('config_snapshot.terraform_version must be a version or constraints, and it is %s', left(version::text, 100)),
      'Write for example "1.11.4", "~> 1.11", ">= 1.9, < 2.0" or "tofu 1.9.1".');
  end if;
end
$$;
comment on function tendril.check_terraform_version(jsonb) is 'Refuses a wrong terraform_version of a config_snapshot with a sentence (23514).';

-- Percent-encoded letters, digits, -, ., _ and ~ are those characters (RFC 3986).
create function tendril.decode_unreserved(path text) returns text
language plpgsql immutable strict set search_path = '' as $$
declare
  decoded text := '';
  rest text := path;
  place integer;
  code integer;
begin
  loop
    place := strpos(rest, '%');
    exit when place = 0;
    decoded := decoded || left(rest, place - 1);
    if substr(rest, place + 1, 2) ~ '^[0-9A-Fa-f]{2}$' then
      code := get_byte(decode(substr(rest, place + 1, 2), 'hex'), 0);
      decoded := decoded || case when code > 0 and code < 128 and chr(code) ~ '^[A-Za-z0-9._~-]$' then chr(code) else '%' || upper(substr(rest, place + 1, 2)) end;
      rest := substr(rest, place + 3);
    else
      decoded := decoded || '%';
      rest := substr(rest, place + 1);
    end if;
  end loop;
  return decoded || rest;
end
$$;

-- Segments without empty ones and ".", ".." taken as what it means.
create function tendril.plain_path(path text) returns text
language plpgsql immutable strict set search_path = '' as $$
declare
  segments text[] := '{}';
  segment text;
begin
  foreach segment in array string_to_array(path, '/') loop
    if segment = '..' then
      segments := segments[1:cardinality(segments) - 1];
    elsif segment not in ('', '.') then
      segments := segments || segment;
    end if;
  end loop;
  return array_to_string(segments, '/');
end
$$;

-- One repository has one name, however its address is spelled: host and path, without scheme, user, default port, `.git`
-- and slashes at the end. These hosts ignore the case of letters.
create function tendril.repository_name(address text) returns text
language plpgsql immutable strict set search_path = '' as $$
declare
  parts constant text[] := regexp_match(btrim(address, E' \t\r\n'), '^(https?)://(?:[^/?#@]*@)?([^/?#@:]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]*))?(/[^?#]*)$', 'i');
  scheme constant text := lower(parts[1]);
  host text := rtrim(lower(parts[2]), '.');
  port constant text := ltrim(parts[3], '0');
  path text := tendril.plain_path(tendril.decode_unreserved(parts[4]));
begin
  if parts is null then
    return null;
  end if;
  host := regexp_replace(host, '^www\.(github\.com|gitlab\.com|bitbucket\.org)$', '\1');
  if host in ('github.com', 'gitlab.com', 'bitbucket.org') then
    path := lower(path);
  end if;
  path := regexp_replace(path, '\.git$', '');
  if path = '' then
    return null;
  end if;
  return host || case when coalesce(port, '') in ('', case scheme when 'https' then '443' else '80' end) then '' else ':' || port end || '/' || path;
end
$$;
comment on function tendril.repository_name(text) is 'Host and path of a Git address, the same for each spelling of it; null where it is no http(s) address of a repository.';

create function tendril.source_key(source jsonb) returns text
language sql immutable set search_path = '' as $$
  select 'git-' || left(regexp_replace(lower(last collate "C"), '[^a-z0-9_]', '-', 'g'), 40)
    || '-' || left(encode(sha256(convert_to(repository || '#' || folder, 'UTF8')), 'hex'), 16)
  from (select tendril.repository_name(source ->> 'git') as repository, tendril.plain_path(coalesce(source ->> 'path', '')) as folder) as named,
    regexp_replace(case folder when '' then repository else folder end, '^.*/', '') as last
$$;
comment on function tendril.source_key(jsonb) is 'The part of a state key that stands for a repository and a folder in it. A newer branch, tag or commit works on the same state.';

-- The template is part of the key because a plan of another template on the same state would destroy everything in it.
create function tendril.state_key(config jsonb, id uuid) returns text
language sql immutable set search_path = '' as $$
  select case
    when jsonb_typeof(config -> 'stack') is distinct from 'string' or config ->> 'stack' !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' then id::text
    when jsonb_typeof(config -> 'template') = 'string' then
      case when config ->> 'template' ~ '^[a-z0-9][a-z0-9_-]{0,62}$' and config ->> 'template' !~ '^git-.*-[0-9a-f]{16}$'
        then (config ->> 'template') || '.' || (config ->> 'stack') end
    else tendril.source_key(config -> 'source') || '.' || (config ->> 'stack')
  end
$$;
comment on function tendril.state_key(jsonb, uuid) is 'The state that a deployment works on; null where it can name none.';

create function tendril.seconds_of(config jsonb, variadic path text[]) returns interval
language sql immutable set search_path = '' as $$
  select make_interval(secs => (nullif(config #> path, 'null'))::text::double precision)
$$;
comment on function tendril.seconds_of(jsonb, text[]) is 'A checked number of seconds in a config_snapshot, or null.';

create function tendril.prepare_deployment() returns trigger
language plpgsql set search_path = '' as $$
begin
  if jsonb_typeof(new.config_snapshot) = 'object' then
    perform tendril.check_timeouts(new.config_snapshot);
    perform tendril.check_terraform_version(new.config_snapshot);
    new.state_key := coalesce(tendril.state_key(new.config_snapshot, new.id), new.id::text);
    new.queue_expires_at := now() + tendril.seconds_of(new.config_snapshot, 'timeouts', 'queue');
  else
    new.state_key := new.id::text; -- The constraint says what is wrong.
  end if;
  return new;
end
$$;
comment on function tendril.prepare_deployment() is 'Computes what is derived from config_snapshot: state_key and queue_expires_at.';

revoke all on function
  tendril.is_seconds(jsonb), tendril.refuse_config(text, text, text), tendril.check_timeouts(jsonb),
  tendril.is_version_request(jsonb), tendril.check_terraform_version(jsonb), tendril.decode_unreserved(text), tendril.plain_path(text), tendril.repository_name(text), tendril.source_key(jsonb), tendril.state_key(jsonb, uuid),
  tendril.seconds_of(jsonb, text[]), tendril.prepare_deployment()
  from public, anon, authenticated, service_role, tendril_agent;
-- Triggers run with the rights of whoever writes the row.
grant execute on function
  tendril.is_seconds(jsonb), tendril.refuse_config(text, text, text), tendril.check_timeouts(jsonb),
  tendril.is_version_request(jsonb), tendril.check_terraform_version(jsonb), tendril.decode_unreserved(text), tendril.plain_path(text), tendril.repository_name(text), tendril.source_key(jsonb), tendril.state_key(jsonb, uuid),
  tendril.seconds_of(jsonb, text[])
  to authenticated, service_role, tendril_agent;

create trigger a_prepare_deployment before insert on public.deployments
  for each row execute function tendril.prepare_deployment();
