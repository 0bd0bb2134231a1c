// What meter/src/lib.rs is to the clients in Rust.
import { readFileSync } from 'node:fs'

const number = (name) => Number(process.env[name] ?? 0)

export const plan = {
  url: process.env.BENCH_URL,
  channels: Math.max(1, number('BENCH_CHANNELS')),
  heartbeat: number('BENCH_HEARTBEAT_MS'),
  events: number('BENCH_EVENTS'),
  warmUp: number('BENCH_WARM_UP'),
  deadline: number('BENCH_DEADLINE_MS'),
  stall: number('BENCH_STALL_MS'),
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

const state = { seen: 0, outOfOrder: 0, lastId: 10_000_000, begun: null, ended: null, latencies: [], resident: [] }

const cpu = () => { const { user, system } = process.cpuUsage(); return user + system }
const wall = () => Number(process.hrtime.bigint() / 1000n)

function kib(field) {
  const line = readFileSync('/proc/self/status', 'utf8').split('\n').find((line) => line.startsWith(field))
  return Number(line.match(/\d+/)[0])
}

/** A row came: 'read', 'sleep' or 'stop' is next. */
export function row(row) {
  state.seen += 1
  if (row.id !== state.lastId + 1) state.outOfOrder += 1
  state.lastId = row.id
  if (row.sent !== '0000000000000000') {
    state.latencies.push(Math.max(0, Math.floor((Number(process.hrtime.bigint()) - Number(row.sent)) / 1000)))
  }
  if (state.seen === plan.warmUp) {
    state.begun = [cpu(), wall()]
    weigh()
    if (plan.stall > 0) return 'sleep'
  }
  return state.seen >= plan.events ? 'stop' : 'read'
}

export function weigh() {
  globalThis.gc?.()
  state.resident.push(kib('VmRSS:'))
}

export function end() {
  state.ended = [cpu(), wall()]
}

export function report() {
  if (!state.ended) end()
  const [cpuFrom, wallFrom] = state.begun ?? state.ended
  const result = {
    seen: state.seen,
    timed: Math.max(0, state.seen - plan.warmUp),
    cpu_us: state.ended[0] - cpuFrom,
    wall_us: state.ended[1] - wallFrom,
    out_of_order: state.outOfOrder,
    lagged: 0,
    latencies_us: state.latencies,
    resident_kib: state.resident,
    peak_kib: kib('VmHWM:'),
  }
  process.stdout.write(JSON.stringify(result) + '\n', () => process.exit(0))
}
