-- UPDATE and DELETE without WHERE are refused in the API's sessions, also inside of functions. A hosted project has the library
-- safeupdate for that, which PostgreSQL's distributions do not have; here a trigger on each table checks the statement that fired
-- it. What the API itself sends is checked there before it is sent. Tables that were there before have none.

-- The command of a part of a statement (no brackets, no literals) that writes without WHERE; null if it is none.
create or replace function extensions.safeupdate_part(part text) returns text
language sql immutable set search_path = '' as $$
  select upper(command)
  from (
    select (regexp_match(part, '\m(select|insert|update|delete|merge|values|table)\M', 'i'))[1] as command
    where part ~* '^\s*(with|select|insert|update|delete|merge|values|table)\M'
  ) found
  where lower(command) in ('update', 'delete') and part !~* '\mwhere\M'
$$;

-- The first command of a statement that writes without WHERE; null if there is none.
create or replace function extensions.safeupdate_unqualified(statement text) returns text
language plpgsql immutable set search_path = '' as $$
declare
  rest text;
  inner_part text;
  found text;
begin
  -- Literals, quoted names and comments can hold anything.
  rest := regexp_replace(
    statement,
    $re$\m[eE]'([^'\\]|\\.|'')*'|'([^']|'')*'|\$\w*\$([^$]|\$(?!\w*\$))*\$\w*\$|"([^"]|"")*"|--[^\n]*|/\*([^*]|\*(?!/))*\*/$re$,
    ' x ', 'g'
  );
  loop
    inner_part := substring(rest from '\(([^()]*)\)');
    exit when inner_part is null;
    found := extensions.safeupdate_part(inner_part);
    if found is not null then
      return found;
    end if;
    rest := regexp_replace(rest, '\([^()]*\)', ' x ');
  end loop;
  -- EXECUTE takes several statements at once.
  select extensions.safeupdate_part(part) into found
  from unnest(string_to_array(rest, ';')) part
  where extensions.safeupdate_part(part) is not null
  limit 1;
  return found;
end
$$;

-- Statement `number` of the SQL functions of a name.
create or replace function extensions.safeupdate_statements(function_name text, number int) returns setof text
language sql stable set search_path = '' as $$
  select (string_to_array(
    regexp_replace(coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc), '^\s*begin\s+atomic\s', '', 'i'), ';'
  ))[number]
  from pg_catalog.pg_proc p join pg_catalog.pg_language l on l.oid = p.prolang
  where l.lanname = 'sql' and p.proname = function_name
$$;

create or replace function extensions.safeupdate_check() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  context text;
  sql_function text[];
  command text;
begin
  get diagnostics context = pg_context;
  -- The first line is this function's own.
  context := substr(context, nullif(strpos(context, E'\n'), 0) + 1);
  if context is null then
    return null;
  end if;
  if context like 'SQL statement "%' then
    -- The text ends before the line of who ran it. It is written as it is, so a quote alone does not end it.
    context := substr(context, length('SQL statement "') + 1);
    context := substr(context, 1, least(
      nullif(strpos(context, E'"\nPL/pgSQL function '), 0),
      nullif(strpos(context, E'"\nSQL function "'), 0),
      nullif(strpos(context, E'"\nSQL statement "'), 0),
      length(context)
    ) - 1);
    command := extensions.safeupdate_unqualified(context);
  else
    sql_function := regexp_match(context, '^SQL function "(.*)" statement (\d+)');
    select extensions.safeupdate_unqualified(statement) into command
    from extensions.safeupdate_statements(sql_function[1], sql_function[2]::int) statement
    where extensions.safeupdate_unqualified(statement) is not null
    limit 1;
  end if;
  if command is not null then
    raise exception using errcode = '21000', message = command || ' requires a WHERE clause';
  end if;
  return null;
end
$$;

create or replace function extensions.safeupdate_guard(guarded oid) returns void
language plpgsql security definer set search_path = '' as $$
declare
  found record;
begin
  select c.relname, n.nspname into found
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where c.oid = guarded and c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'information_schema', 'auth', 'realtime')
    and not exists (select from pg_catalog.pg_trigger t where t.tgrelid = c.oid and t.tgname = 'supabase_local_safeupdate');
  if found.relname is not null then
    execute format(
      'create trigger supabase_local_safeupdate before update or delete on %I.%I for each statement '
      'when (session_user = ''authenticator'') execute function extensions.safeupdate_check()',
      found.nspname, found.relname
    );
  end if;
end
$$;
revoke execute on function extensions.safeupdate_guard(oid) from public;

create or replace function extensions.safeupdate_watch() returns event_trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform extensions.safeupdate_guard(objid)
  from pg_catalog.pg_event_trigger_ddl_commands()
  where classid = 'pg_catalog.pg_class'::regclass;
end
$$;
drop event trigger if exists safeupdate_watch;
create event trigger safeupdate_watch on ddl_command_end
  when tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
  execute function extensions.safeupdate_watch();
