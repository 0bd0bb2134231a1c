-- Who may receive and send on private channels, for the client tests: a user on a channel of their own.
create policy "A user receives on their own channel" on realtime.messages
  for select to authenticated
  using ((select realtime.topic()) = 'user:' || (select auth.uid()));
create policy "A user sends on their own channel" on realtime.messages
  for insert to authenticated
  with check ((select realtime.topic()) = 'user:' || (select auth.uid()));
