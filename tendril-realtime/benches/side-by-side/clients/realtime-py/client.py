"""realtime (Python): a callback; the row is a dict, which is what a row is in Python. A consumer that waits needs a queue between
the callback and itself, so the stalled run has one, as a user would. Its shortest heartbeat interval is 15 s."""

import asyncio

import meter
from meter import Meter
from realtime import AsyncRealtimeClient, RealtimePostgresChangesListenEvent, RealtimeSubscribeStates


async def join(client, number, callback):
    joined = asyncio.get_running_loop().create_future()

    def told(state, _error):
        if state == RealtimeSubscribeStates.SUBSCRIBED and not joined.done():
            joined.set_result(None)

    channel = client.channel(f"bench-{number}")
    channel.on_postgres_changes(
        RealtimePostgresChangesListenEvent.All, callback, table="deployments", schema="public"
    )
    await channel.subscribe(told)
    await joined


async def read(client, tally):
    done = asyncio.Event()

    def callback(change):
        if tally.row(change["data"]["record"]) == "stop":
            tally.end()
            done.set()

    await join(client, 0, callback)
    await done.wait()


async def stall(client, tally):
    queue = asyncio.Queue()
    await join(client, 0, queue.put_nowait)
    while True:
        change = await queue.get()
        if tally.row(change["data"]["record"]) == "sleep":
            await asyncio.sleep(meter.STALL)
            tally.weigh()
            return


async def weigh(client, tally):
    for number in range(meter.CHANNELS):
        await join(client, number, lambda _change: None)
        if number in (0, meter.CHANNELS - 1):
            await asyncio.sleep(0.5)
            tally.weigh()


async def main():
    tally = Meter()
    client = AsyncRealtimeClient(f"{meter.URL}/realtime/v1", "key", hb_interval=meter.HEARTBEAT)
    await client.connect()
    if meter.CHANNELS > 1:
        work = weigh(client, tally)
    elif meter.STALL > 0:
        work = stall(client, tally)
    else:
        work = read(client, tally)
    try:
        await asyncio.wait_for(work, meter.DEADLINE)
    except asyncio.TimeoutError:
        pass
    tally.report()


asyncio.run(main())
