// The real supabase-js against the local stack: what a portal does, from sign-up to the live log.
// Run by scripts/check-clients.sh, which sets the stack's address in the environment.

import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { after, before, test } from 'node:test'
import { createClient } from '@supabase/supabase-js'

const { SUPABASE_URL: url, SUPABASE_ANON_KEY: anon, SUPABASE_SERVICE_ROLE_KEY: service } = process.env
const clients = []
const client = (key = anon, realtime = {}) => {
  const made = createClient(url, key, { auth: { persistSession: false, autoRefreshToken: false }, realtime })
  clients.push(made)
  return made
}
/** The data of an answer that has to be good. */
const good = async (query) => {
  const { data, error } = await query
  assert.equal(error, null)
  return data
}
/** The first of a channel's events that fits; the test runner's time limit ends a wait in vain. */
class Events extends EventEmitter {
  all = []
  note = (event) => { this.all.push(event); this.emit('event') }
  async first(fits) {
    for (;;) {
      const found = this.all.find(fits)
      if (found) return found
      await once(this, 'event')
    }
  }
}
const subscribed = (channel) => new Promise((resolve, reject) => channel.subscribe((status, error) => {
  if (status === 'SUBSCRIBED') resolve()
  else if (status !== 'CLOSED') reject(error ?? new Error(status))
}))

const user = client()
let me, cluster
before(async () => {
  const email = `${crypto.randomUUID()}@tests.invalid`
  me = (await good(user.auth.signUp({ email, password: 'correct horse' }))).user.id
  await good(user.from('clusters').insert({ user_id: me, name: 'js' }))
  cluster = (await good(user.from('clusters').select('id,name').single())).id
})
after(async () => {
  for (const made of clients) await made.realtime.disconnect()
})

test('an account is changed, renewed and signed out', async () => {
  const other = client()
  const email = `${crypto.randomUUID()}@tests.invalid`
  const made = await good(client(service).auth.admin.createUser({ email, password: 'correct horse', email_confirm: true }))
  await good(other.auth.signInWithPassword({ email, password: 'correct horse' }))
  const changed = await good(other.auth.updateUser({ data: { theme: 'dark' } }))
  assert.deepEqual([changed.user.id, changed.user.user_metadata], [made.user.id, { theme: 'dark' }])
  assert.ok((await good(other.auth.refreshSession())).session)
  assert.equal((await other.auth.signOut()).error, null)
  const { error } = await other.auth.signInWithPassword({ email, password: 'battery staple' })
  assert.deepEqual([error.status, error.code], [400, 'invalid_credentials'])
  assert.ok((await good(client().auth.signInAnonymously())).user.is_anonymous)
})

test('rows are inserted, read, embedded, counted and refused', async () => {
  const orders = [{ template: 'hello' }, { template: 'hello', stack: 'x y+z' }]
  const rows = orders.map((config_snapshot) => ({ cluster_id: cluster, config_snapshot }))
  const queued = await good(user.from('deployments').insert(rows).select('id,status'))
  assert.deepEqual(queued.map((row) => row.status), ['QUEUED', 'QUEUED'])
  const ids = queued.map((row) => row.id)
  const { count } = await user.from('deployments').select('id', { count: 'exact', head: true }).in('id', ids)
  assert.equal(count, 2)
  const plus = await good(user.from('deployments').select('stack:config_snapshot->>stack').eq('config_snapshot->>stack', 'x y+z'))
  assert.deepEqual(plus, [{ stack: 'x y+z' }])
  const both = await good(user.from('clusters').select('name,deployments(id)').eq('deployments.id', ids[0]).single())
  assert.deepEqual(both, { name: 'js', deployments: [{ id: ids[0] }] })
  assert.equal(await good(user.from('deployments').select('id').eq('id', cluster).maybeSingle()), null)
  const none = await user.from('deployments').select('id').eq('id', cluster).single()
  assert.deepEqual([none.status, none.error.code], [406, 'PGRST116'])
  const walled = await user.from('clusters').select('*')
  assert.deepEqual([walled.status, walled.error.code], [403, '42501'])
  assert.deepEqual(await good(client().from('templates_of_nobody').select().then(({ error }) => ({ data: error.code, error: null }))), 'PGRST205')
  const cancelled = await good(user.from('deployments').update({ cancel_requested_at: new Date() }).eq('id', ids[0]).select('status'))
  assert.deepEqual(cancelled, [{ status: 'CANCELLED' }])
})

test('a key is made by a function, once', async () => {
  assert.match(await good(user.rpc('create_cluster_key', { cluster_id: cluster })), /^tdl_[0-9A-Za-z]{65}$/)
  const { error } = await user.rpc('create_cluster_key', { cluster_id: cluster })
  assert.equal(error.code, 'TD007')
})

for (const vsn of ['1.0.0', '2.0.0']) {
test(`changes of rows are received by those who may see them, and by no one else, in version ${vsn}`, async () => {
  const received = new Events()
  const listener = client(anon, { vsn })
  await good(listener.auth.setSession((await good(user.auth.getSession())).session))
  const other = client(anon, { vsn })
  await good(other.auth.signInAnonymously())
  const unwanted = new Events()
  for (const [who, events] of [[listener, received], [other, unwanted]]) {
    const binding = { event: '*', schema: 'public', table: 'deployments', filter: `cluster_id=eq.${cluster}` }
    const channel = who.channel('deployments').on('postgres_changes', binding, events.note).on('system', {}, events.note)
    await subscribed(channel)
    assert.equal((await events.first((event) => event.extension === 'postgres_changes')).status, 'ok')
  }
  const order = { cluster_id: cluster, config_snapshot: { template: 'hello' } }
  const { id } = await good(user.from('deployments').insert(order).select('id').single())
  const inserted = await received.first((event) => event.eventType === 'INSERT')
  assert.deepEqual([inserted.new.id, inserted.new.status, inserted.errors], [id, 'QUEUED', null])
  await good(user.from('deployments').update({ cancel_requested_at: new Date() }).eq('id', id))
  const updated = await received.first((event) => event.eventType === 'UPDATE')
  assert.equal(updated.new.status, 'CANCELLED')
  assert.deepEqual(unwanted.all.filter((event) => event.eventType), [])
})

test(`a room has broadcasts of every kind, and members, in version ${vsn}`, async () => {
  const received = new Events()
  const config = (key) => ({ config: { broadcast: { ack: true }, presence: { key } } })
  const [a, b] = ['a', 'b'].map((key) => client(anon, { vsn }).channel(`room ${vsn}`, config(key)))
  b.on('broadcast', { event: 'm' }, received.note)
  a.on('presence', { event: 'sync' }, () => received.note({ members: Object.keys(a.presenceState()).sort() }))
  await Promise.all([a, b].map(subscribed))
  assert.equal(await a.send({ type: 'broadcast', event: 'm', payload: { n: 1 } }), 'ok')
  await received.first((event) => event.payload?.n === 1)
  // Version 1 has no binary frames.
  if (vsn === '2.0.0') {
    const bytes = new Uint8Array([1, 2, 3]).buffer
    assert.equal(await a.send({ type: 'broadcast', event: 'm', payload: bytes }), 'ok')
    const binary = await received.first((event) => event.payload instanceof ArrayBuffer)
    assert.deepEqual(new Uint8Array(binary.payload), new Uint8Array(bytes))
  }
  await client().channel(`room ${vsn}`).httpSend('m', { n: 2 })
  await received.first((event) => event.payload?.n === 2)
  assert.deepEqual([await a.track({ at: 1 }), await b.track({ at: 2 })], ['ok', 'ok'])
  await received.first((event) => event.members?.length === 2)
  await b.untrack()
  await received.first((event) => event.members?.length === 1 && received.all.some((before) => before.members?.length === 2))
})
}

test('a private channel without a policy is refused', async () => {
  await assert.rejects(subscribed(user.channel('secret', { config: { private: true } })), /Unauthorized/)
})

test('a private channel is received by those whom its policy allows', async () => {
  const received = new Events()
  const topic = `cluster:${cluster}`
  const channel = user.channel(topic, { config: { private: true } }).on('broadcast', { event: '*' }, received.note)
  // The contract lets a cluster's agents in, and nobody else.
  await assert.rejects(subscribed(channel), /Unauthorized/)
  const { error } = await client(service).rpc('no_such_function')
  assert.equal(error.code, 'PGRST202')
  const open = client(service).channel(topic, { config: { private: true } }).on('broadcast', { event: '*' }, received.note)
  await subscribed(open)
  await client(service).channel(topic, { config: { private: true } }).httpSend('news', { n: 3 })
  await received.first((event) => event.payload?.n === 3)
})

for (const vsn of ['1.0.0', '2.0.0']) {
  test(`a private channel accepts those whose policies let them receive and send, and no one else, in version ${vsn}`, async () => {
    const made = async () => {
      const other = client(anon, { vsn })
      const email = `${crypto.randomUUID()}@tests.invalid`
      return [other, (await good(other.auth.signUp({ email, password: 'correct horse' }))).user.id]
    }
    const [[one, id], [other]] = await Promise.all([made(), made()])
    const received = new Events()
    const config = { private: true, broadcast: { self: true, ack: true }, presence: { key: 'me' } }
    const channel = one.channel(`user:${id}`, { config })
      .on('broadcast', { event: 'news' }, received.note)
      .on('presence', { event: 'join' }, received.note)
    await subscribed(channel)
    assert.equal(await channel.send({ type: 'broadcast', event: 'news', payload: { n: 1 } }), 'ok')
    await received.first((event) => event.payload?.n === 1)
    assert.equal(await channel.track({ at: 1 }), 'ok')
    await received.first((event) => event.event === 'join' && event.key === 'me')
    await assert.rejects(subscribed(other.channel(`user:${id}`, { config })), /Unauthorized/)
  })
}

test('a write of all rows is refused as on a hosted project', async () => {
  const { status, error } = await client(service).from('deployments').delete()
  assert.deepEqual([status, error.code, error.message], [400, '21000', 'DELETE requires a WHERE clause'])
})

test('a browser may ask from another origin with all headers that supabase-js sends', async () => {
  const headers = 'authorization,apikey,x-client-info,content-type,prefer,content-profile,accept-profile,range'
  for (const path of ['/rest/v1/clusters', '/auth/v1/token?grant_type=password', '/realtime/v1/api/broadcast', '/functions/v1/agent-token']) {
    const preflight = await fetch(url + path, {
      method: 'OPTIONS',
      headers: { origin: 'http://localhost:5173', 'access-control-request-method': 'POST', 'access-control-request-headers': headers },
    })
    assert.ok([200, 204].includes(preflight.status), `${path}: ${preflight.status}`)
    assert.equal(preflight.headers.get('access-control-allow-origin'), '*', path)
    const allowed = preflight.headers.get('access-control-allow-headers').toLowerCase().split(/, */)
    for (const header of headers.split(',')) assert.ok(allowed.includes(header) || allowed.includes('*'), `${path}: ${header}`)
    assert.match(preflight.headers.get('access-control-allow-methods'), /POST/, path)
  }
  const read = await fetch(`${url}/rest/v1/clusters?select=id`, { headers: { origin: 'http://localhost:5173', apikey: service, prefer: 'count=exact' } })
  assert.equal(read.headers.get('access-control-allow-origin'), '*')
  assert.match(read.headers.get('access-control-expose-headers'), /Content-Range/i)
})
