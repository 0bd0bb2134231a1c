-- What only a server of our own has: the database and its schema `public` belong to the project's owner.

alter database postgres owner to postgres;
alter schema public owner to postgres;
alter role supabase_admin set search_path = "$user", public, extensions;
