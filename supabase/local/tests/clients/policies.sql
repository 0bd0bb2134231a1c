-- Who may hear and speak on private channels, for the clients that are tried: a user on a channel of his own.
create policy "A user hears on the own channel" on realtime.messages
  for select to authenticated
  using ((select realtime.topic()) = 'user:' || (select auth.uid()));
create policy "A user speaks on the own channel" on realtime.messages
  for insert to authenticated
  with check ((select realtime.topic()) = 'user:' || (select auth.uid()));
