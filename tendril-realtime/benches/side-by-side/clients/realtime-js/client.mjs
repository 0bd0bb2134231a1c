// realtime-js: a callback; the row is a plain object, which is what a row is in JavaScript. A consumer that waits needs a queue
// between the callback and itself, so the stalled run has one, as a user would.
import realtime from '@supabase/realtime-js'
import WebSocket from 'ws'
import { end, plan, report, row, sleep, weigh } from './meter.mjs'

const client = new realtime.RealtimeClient(`${plan.url.replace('http', 'ws')}/realtime/v1`, {
  params: { apikey: 'key' },
  heartbeatIntervalMs: plan.heartbeat,
  // Node 20 has no WebSocket of its own.
  transport: WebSocket,
})
client.connect()

const join = (number, callback) =>
  new Promise((resolve) => {
    const channel = client
      .channel(`bench-${number}`)
      .on('postgres_changes', { event: '*', schema: 'public', table: 'deployments' }, callback)
    channel.subscribe((status) => status === 'SUBSCRIBED' && resolve(channel))
  })

async function read() {
  setTimeout(report, plan.deadline)
  await join(0, (change) => {
    if (row(change.new) === 'stop') {
      end()
      report()
    }
  })
}

async function stall() {
  setTimeout(report, plan.deadline)
  const queue = []
  await join(0, (change) => queue.push(change.new))
  for (;;) {
    while (queue.length > 0) {
      if (row(queue.shift()) === 'sleep') {
        await sleep(plan.stall)
        weigh()
        report()
        return
      }
    }
    await sleep(1)
  }
}

async function weighChannels() {
  for (let number = 0; number < plan.channels; number += 1) {
    await join(number, () => {})
    if (number === 0 || number + 1 === plan.channels) {
      await sleep(500)
      weigh()
    }
  }
  report()
}

if (plan.channels > 1) await weighChannels()
else if (plan.stall > 0) await stall()
else await read()
