create table public.todos (
    id bigint generated always as identity primary key,
    user_id uuid not null default auth.uid(),
    title text not null
);
alter table public.todos enable row level security;
create policy own on public.todos to authenticated using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
grant select, insert, delete on public.todos to authenticated;
