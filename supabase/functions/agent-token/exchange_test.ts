// The function as it is deployed, `index.ts` in a process of its own, on a running stack. scripts/check-functions.sh starts
// the stack and sets its address: SUPABASE_URL, SUPABASE_ANON_KEY, SUPABASE_SERVICE_ROLE_KEY, JWT_SECRET.
import { deepStrictEqual, match, ok, strictEqual } from 'node:assert/strict'
import { REFUSAL_TIME } from './exchange.ts'

const env = (name: string): string => Deno.env.get(name) ?? ''
const url = env('SUPABASE_URL')

/** The owner in supabase/seed.sql. */
const owner = '5eed0000-0000-4000-8000-000000000001'

/** Starts `index.ts` on a free port; ends it when disposed. */
async function serve(settings: Record<string, string>): Promise<{ url: string } & AsyncDisposable> {
  const entry = new URL('index.ts', import.meta.url).pathname
  const child = new Deno.Command(Deno.execPath(), {
    args: ['run', '--no-remote', '--no-prompt', '--allow-net', '--allow-env', entry],
    clearEnv: true,
    env: {
      HOME: env('HOME'),
      DENO_SERVE_ADDRESS: 'tcp:127.0.0.1:0',
      NO_COLOR: '1',
      SUPABASE_URL: url,
      SUPABASE_SERVICE_ROLE_KEY: env('SUPABASE_SERVICE_ROLE_KEY'),
      ...settings,
    },
    stdout: 'null',
    stderr: 'piped',
  }).spawn()

  const lines = child.stderr.pipeThrough(new TextDecoderStream())[Symbol.asyncIterator]()
  let printed = ''
  let address: string | undefined
  while (!address) {
    const { value, done } = await lines.next()
    if (done) throw new Error(`the function did not start: ${printed}`)
    printed += value
    address = /Listening on (http:\/\/[^/\s]+)/.exec(printed)?.[1]
  }
  return {
    url: address,
    async [Symbol.asyncDispose](): Promise<void> {
      await lines.return?.()
      child.kill()
      await child.status
    },
  }
}

const oldProject = { TENDRIL_JWT_SECRET: env('JWT_SECRET') }

/** The JWT of a signed-in user. */
async function user(id: string): Promise<string> {
  const base64url = (text: string): string => btoa(text).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
  const exp = Math.floor(Date.now() / 1000) + 600
  const claims = JSON.stringify({ role: 'authenticated', sub: id, aud: 'authenticated', exp })
  const signed = `${base64url('{"alg":"HS256","typ":"JWT"}')}.${base64url(claims)}`
  const secret = new TextEncoder().encode(env('JWT_SECRET'))
  const key = await crypto.subtle.importKey('raw', secret, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign'])
  const signature = new Uint8Array(await crypto.subtle.sign('HMAC', key, new TextEncoder().encode(signed)))
  return `${signed}.${base64url(String.fromCharCode(...signature))}`
}

/** A request to the project's REST API; answers status and body. */
async function rest(token: string, method: string, path: string, body: unknown): Promise<[number, unknown]> {
  const response = await fetch(`${url}/rest/v1/${path}`, {
    method,
    headers: {
      apikey: env('SUPABASE_ANON_KEY'),
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      prefer: 'return=representation',
    },
    body: JSON.stringify(body),
  })
  const text = await response.text()
  return [response.status, text ? JSON.parse(text) : null]
}

/** A new cluster of the owner; `call` calls a function about it. */
async function newCluster(): Promise<{ id: string; token: string; call: (name: string) => Promise<string> }> {
  const token = await user(owner)
  const [status, rows] = await rest(token, 'POST', 'clusters?select=id', { name: 'enrolled' })
  strictEqual(status, 201, JSON.stringify(rows))
  const id = (rows as [{ id: string }])[0].id
  const call = async (name: string): Promise<string> => {
    const [status, answer] = await rest(token, 'POST', `rpc/${name}`, { cluster_id: id })
    ok(status < 300, `${name}: ${status} ${JSON.stringify(answer)}`)
    return answer as string
  }
  return { id, token, call }
}

/** A key with another digit at one place. */
function changed(key: string, place: number): string {
  return key.slice(0, place) + (key[place] === '0' ? '1' : '0') + key.slice(place + 1)
}

interface Answer {
  status: number
  headers: Headers
  body: Record<string, unknown>
  /** Milliseconds that it took. */
  took: number
}

async function post(url: string, body: unknown): Promise<Answer> {
  const began = performance.now()
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const response = await fetch(url, { method: 'POST', body: text })
  const parsed = await response.json()
  return { status: response.status, headers: response.headers, body: parsed, took: performance.now() - began }
}

Deno.test('an agent with a key gets a token and works with it', async () => {
  await using served = await serve(oldProject)
  const cluster = await newCluster()
  const key = await cluster.call('create_cluster_key')

  const { status, headers, body } = await post(served.url, { key, version: '0.1.0' })
  strictEqual(status, 200, JSON.stringify(body))
  strictEqual(headers.get('cache-control'), 'no-store')
  strictEqual(body.refresh_after, 630)

  const [accepted, heartbeat] = await rest(String(body.access_token), 'POST', 'rpc/agent_heartbeat', {
    version: '0.1.0',
  })
  strictEqual(accepted, 200, JSON.stringify(heartbeat))
  deepStrictEqual((heartbeat as { cluster: unknown }).cluster, { id: cluster.id, status: 'ONLINE' })
  const [, rows] = await rest(cluster.token, 'GET', `clusters?id=eq.${cluster.id}&select=status`, undefined)
  deepStrictEqual(rows, [{ status: 'ONLINE' }])
})

Deno.test('a key is changed without downtime, and taken away', async () => {
  await using served = await serve(oldProject)
  const cluster = await newCluster()
  const status = async (key: string): Promise<number> => (await post(served.url, { key })).status
  const first = await cluster.call('create_cluster_key')
  const second = await cluster.call('rotate_cluster_key')
  deepStrictEqual([await status(first), await status(second)], [200, 200])
  await cluster.call('promote_cluster_key')
  deepStrictEqual([await status(first), await status(second)], [401, 200])
  await cluster.call('revoke_cluster_key')
  strictEqual(await status(second), 401)
})

Deno.test('the agent of a revoked cluster gets an error of its own', async () => {
  await using served = await serve(oldProject)
  const cluster = await newCluster()
  const key = await cluster.call('create_cluster_key')
  await rest(cluster.token, 'PATCH', `clusters?id=eq.${cluster.id}&select=id`, { revoked_at: new Date() })
  const { status, body } = await post(served.url, { key })
  deepStrictEqual([status, body.code], [403, 'cluster_revoked'])
})

Deno.test('a claim opens its deployment and no other', async () => {
  await using served = await serve(oldProject)
  const cluster = await newCluster()
  const key = await cluster.call('create_cluster_key')
  const agent = String((await post(served.url, { key })).body.access_token)
  const queue = async (): Promise<string> => {
    const row = { cluster_id: cluster.id, config_snapshot: { template: 'hello' } }
    const [, rows] = await rest(cluster.token, 'POST', 'deployments?select=id', row)
    return (rows as { id: string }[])[0]?.id ?? ''
  }
  const [deployment_id, other] = [await queue(), await queue()]
  const claim_token = crypto.randomUUID()
  await rest(agent, 'PATCH', `deployments?id=eq.${deployment_id}&select=id`, { status: 'PROCESSING', claim_token })

  const { status, body } = await post(served.url, { deployment_id, claim_token })
  strictEqual(status, 200)
  const [, seen] = await rest(String(body.access_token), 'GET', 'deployments?select=id', undefined)
  deepStrictEqual(seen, [{ id: deployment_id }])

  for (const wrong of [{ deployment_id, claim_token: crypto.randomUUID() }, { deployment_id: other, claim_token }]) {
    const refused = await post(served.url, wrong)
    deepStrictEqual([refused.status, refused.body.code], [401, 'invalid_claim'])
    ok(refused.took >= REFUSAL_TIME, `after ${refused.took} ms`)
  }
  for (
    const bad of [{ deployment_id }, { claim_token }, { deployment_id: 'x', claim_token }, {
      key,
      deployment_id,
      claim_token,
    }]
  ) {
    deepStrictEqual((await post(served.url, bad)).body.code, 'bad_request', JSON.stringify(bad))
  }
})

Deno.test('unknown cluster, wrong key and what is no key have one answer, and none comes early', async () => {
  await using served = await serve(oldProject)
  const key = await (await newCluster()).call('create_cluster_key')
  const wrong = changed(key, key.length - 1)
  const unknown = changed(key, 'tdl_'.length)
  const seen = []
  for (const key of [wrong, unknown, 'no key', '']) {
    const { status, headers, body, took } = await post(served.url, { key })
    ok(took >= REFUSAL_TIME, `after ${took} ms`)
    seen.push(JSON.stringify([status, [...headers].filter(([name]) => name !== 'date'), body]))
  }
  match(seen[0] ?? '', /^\[401,.*"invalid_key"/)
  strictEqual(new Set(seen).size, 1, seen.join('\n'))
})

Deno.test('who tries too often has to wait, which the right key does not notice', async () => {
  await using served = await serve(oldProject)
  const key = await (await newCluster()).call('create_cluster_key')
  const wrong = changed(key, key.length - 1)
  const answers = await Promise.all(Array.from({ length: 130 }, () => post(served.url, { key: wrong })))
  const limited = answers.find(({ status }) => status === 429)
  ok(limited, answers.map(({ status }) => status).join(' '))
  match(limited.headers.get('retry-after') ?? '', /^([1-9]|[1-5]\d|60)$/)
  strictEqual((await post(served.url, { key })).status, 200)
})

Deno.test('what is no request for a token is refused with what to send', async () => {
  await using served = await serve(oldProject)
  for (const body of ['', '{', '[]', 'null', '{"key":1}', JSON.stringify({ key: 'x'.repeat(5000) })]) {
    const answer = await post(served.url, body)
    deepStrictEqual([answer.status, answer.body.code], [400, 'bad_request'], body)
  }
  const got = await fetch(served.url)
  deepStrictEqual([got.status, got.headers.get('allow'), (await got.json()).code], [405, 'POST', 'method_not_allowed'])
})

Deno.test('a database that is away and a bad key are different errors', async () => {
  const nobody = Deno.listen({ hostname: '127.0.0.1', port: 0 })
  nobody.close()
  await using served = await serve({ ...oldProject, SUPABASE_URL: `http://127.0.0.1:${nobody.addr.port}` })
  const { status, headers, body } = await post(served.url, { key: `tdl_${'0'.repeat(65)}` })
  deepStrictEqual([status, body.code, headers.get('retry-after')], [503, 'unavailable', '5'])
})

Deno.test('a function without its secret reports that and stays up', async () => {
  await using served = await serve({})
  const { status, body } = await post(served.url, { key: `tdl_${'0'.repeat(65)}` })
  deepStrictEqual([status, body.code], [500, 'misconfigured'])
})
