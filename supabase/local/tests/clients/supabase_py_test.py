"""The real supabase-py against the local stack: sign-up to refresh, rows, changes, broadcast, presence, private channels.

Run by scripts/check-clients.sh, which sets the stack's address in the environment.
"""

import asyncio
import os
import unittest
import uuid

from postgrest.exceptions import APIError
from realtime import RealtimeSubscribeStates
from supabase import AsyncClient, acreate_client

URL, ANON, SERVICE = (os.environ[name] for name in ("SUPABASE_URL", "SUPABASE_ANON_KEY", "SUPABASE_SERVICE_ROLE_KEY"))
TIME_LIMIT = 20


async def client(key: str = ANON) -> AsyncClient:
    return await acreate_client(URL, key)


async def signed_up() -> tuple[AsyncClient, str]:
    made = await client()
    answer = await made.auth.sign_up({"email": f"{uuid.uuid4()}@tests.invalid", "password": "correct horse"})
    return made, answer.user.id


async def subscribed(channel) -> None:
    """Subscribes, and fails with the server's reason."""
    done = asyncio.get_running_loop().create_future()

    def note(state, error):
        if done.done():
            return
        if state == RealtimeSubscribeStates.SUBSCRIBED:
            done.set_result(None)
        elif error is not None:
            done.set_exception(error if isinstance(error, Exception) else RuntimeError(str(error)))
        else:
            done.set_exception(RuntimeError(str(state)))

    await channel.subscribe(note)
    await asyncio.wait_for(done, TIME_LIMIT)


class Clients(unittest.IsolatedAsyncioTestCase):
    async def test_an_account_is_made_renewed_and_signed_out(self):
        made, identity = await signed_up()
        before = await made.auth.get_session()
        after = (await made.auth.refresh_session()).session
        self.assertEqual(after.user.id, identity)
        self.assertNotEqual(after.refresh_token, before.refresh_token)
        await made.auth.update_user({"data": {"theme": "dark"}})
        self.assertEqual((await made.auth.get_user()).user.user_metadata["theme"], "dark")
        await made.auth.sign_out()
        self.assertIsNone(await made.auth.get_session())

    async def test_rows_are_written_read_counted_and_refused(self):
        made, identity = await signed_up()
        await made.table("clusters").insert({"user_id": identity, "name": "py"}, returning="minimal").execute()
        cluster = (await made.table("clusters").select("id,name").single().execute()).data
        self.assertEqual(cluster["name"], "py")
        order = {"cluster_id": cluster["id"], "config_snapshot": {"template": "hello"}}
        counted = await made.table("deployments").select("id", count="exact").eq("cluster_id", cluster["id"]).execute()
        self.assertEqual(counted.count, 0)
        # It requests the whole row, of which a user may not see every column.
        with self.assertRaises(APIError) as refused:
            await made.table("deployments").insert({**order, "status": "SUCCESS"}, returning="minimal").execute()
        self.assertEqual(refused.exception.code, "42501")
        service = await client(SERVICE)
        with self.assertRaises(APIError) as refused:
            await service.table("deployments").delete().execute()
        self.assertEqual((refused.exception.code, refused.exception.message), ("21000", "DELETE requires a WHERE clause"))

    async def test_changes_are_heard(self):
        made, identity = await signed_up()
        received = asyncio.Queue()
        ready = asyncio.Event()
        channel = made.channel("clusters").on_postgres_changes("*", schema="public", table="clusters", callback=received.put_nowait)
        channel.on_system(lambda payload: ready.set())
        await subscribed(channel)
        await asyncio.wait_for(ready.wait(), TIME_LIMIT)
        await made.table("clusters").insert({"user_id": identity, "name": "received"}, returning="minimal").execute()
        event = await asyncio.wait_for(received.get(), TIME_LIMIT)
        self.assertEqual((event["data"]["type"], event["data"]["record"]["name"]), ("INSERT", "received"))
        await made.remove_all_channels()

    async def test_a_room_has_broadcasts_and_members(self):
        received, members = asyncio.Queue(), asyncio.Queue()
        topic = f"room-{uuid.uuid4()}"
        first, second = await client(), await client()
        a = first.channel(topic, {"config": {"broadcast": {"ack": True, "self": False}, "presence": {"key": "a", "enabled": True}}})
        b = second.channel(topic, {"config": {"broadcast": {"ack": True, "self": False}, "presence": {"key": "b", "enabled": True}}})
        b.on_broadcast("m", received.put_nowait)
        b.on_presence_sync(lambda: members.put_nowait(sorted(b.presence_state())))
        await subscribed(a)
        await subscribed(b)
        await a.send_broadcast("m", {"n": 1})
        self.assertEqual((await asyncio.wait_for(received.get(), TIME_LIMIT))["payload"], {"n": 1})
        await a.track({"at": 1})
        while await asyncio.wait_for(members.get(), TIME_LIMIT) != ["a"]:
            pass
        await first.remove_all_channels()
        await second.remove_all_channels()

    async def test_a_private_channel_needs_a_policy(self):
        made, _ = await signed_up()
        with self.assertRaises(Exception) as refused:
            await subscribed(made.channel("secret", {"config": {"private": True}}))
        self.assertIn("Unauthorized", str(refused.exception))

    async def test_a_private_channel_lets_in_whom_its_policies_let_hear_and_speak(self):
        (one, me), (other, _) = await signed_up(), await signed_up()
        received: asyncio.Queue = asyncio.Queue()
        options = {"config": {"private": True, "broadcast": {"self": True, "ack": False}}}
        channel = one.channel(f"user:{me}", options).on_broadcast("news", received.put_nowait)
        await subscribed(channel)
        await channel.send_broadcast("news", {"n": 1})
        self.assertEqual((await asyncio.wait_for(received.get(), TIME_LIMIT))["payload"], {"n": 1})
        with self.assertRaises(Exception) as refused:
            await subscribed(other.channel(f"user:{me}", options))
        self.assertIn("Unauthorized", str(refused.exception))
        await one.remove_all_channels()


if __name__ == "__main__":
    unittest.main()
