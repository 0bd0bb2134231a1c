import { match, notStrictEqual, ok, rejects, strictEqual, throws } from 'node:assert/strict'
import { Settings } from './settings.ts'
import { agentId, Signer } from './token.ts'

const cluster = '5eed0000-0000-4000-8000-00000000000c'
const project = { SUPABASE_URL: 'https://abcd.supabase.co/', SUPABASE_SECRET_KEYS: '{"default":"sb_secret_x"}' }

async function signingKey(): Promise<{ jwk: JsonWebKey & { kid: string }; verifier: CryptoKey }> {
  const pair = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify'])
  const jwk = await crypto.subtle.exportKey('jwk', pair.privateKey)
  // As `supabase gen signing-key` prints it.
  return { jwk: { ...jwk, kid: 'key-1', use: 'sig', key_ops: ['verify'], alg: 'ES256' }, verifier: pair.publicKey }
}

function decode(part: string | undefined): Record<string, unknown> {
  return JSON.parse(atob((part ?? '').replaceAll('-', '+').replaceAll('_', '/')))
}

function bytes(part: string | undefined): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob((part ?? '').replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0))
}

Deno.test('a token is signed with the imported key and names it', async () => {
  const { jwk, verifier } = await signingKey()
  const signer = await Signer.of(Settings.read({ ...project, TENDRIL_SIGNING_KEY: JSON.stringify(jwk) }))
  const now = Date.UTC(2026, 10, 23, 12)
  const token = await signer.token(cluster, undefined, now)

  const [header, claims, signature] = token.access_token.split('.')
  const signed = new TextEncoder().encode(`${header}.${claims}`)
  ok(await crypto.subtle.verify({ name: 'ECDSA', hash: 'SHA-256' }, verifier, bytes(signature), signed))
  strictEqual(JSON.stringify(decode(header)), '{"alg":"ES256","typ":"JWT","kid":"key-1"}')

  const { jti, sub, ...rest } = decode(claims)
  match(String(jti), /^[0-9a-f-]{36}$/)
  strictEqual(sub, await agentId(cluster))
  strictEqual(
    JSON.stringify(rest),
    JSON.stringify({
      iss: 'https://abcd.supabase.co/auth/v1',
      aud: 'authenticated',
      role: 'tendril_agent',
      cluster_id: cluster,
      iat: now / 1000,
      exp: now / 1000 + 900,
    }),
  )
  strictEqual(token.expires_at, now / 1000 + 900)
  strictEqual(token.expires_in, 900)
  strictEqual(token.refresh_after, 630)
})

Deno.test('an old project signs with its shared secret', async () => {
  const secret = 'a shared secret with at least 32 characters'
  const signer = await Signer.of(Settings.read({ ...project, TENDRIL_JWT_SECRET: secret, TENDRIL_TOKEN_LIFE: '60' }))
  const [header, claims, signature] = (await signer.token(cluster)).access_token.split('.')
  const hmac = { name: 'HMAC', hash: 'SHA-256' }
  const key = await crypto.subtle.importKey('raw', new TextEncoder().encode(secret), hmac, false, ['verify'])
  ok(await crypto.subtle.verify('HMAC', key, bytes(signature), new TextEncoder().encode(`${header}.${claims}`)))
  strictEqual(decode(header).alg, 'HS256')
  const { iat, exp } = decode(claims)
  strictEqual(Number(exp) - Number(iat), 60)
})

Deno.test('where agents and users share a role, the token carries the claim of an agent', async () => {
  const settings = Settings.read({ ...project, TENDRIL_JWT_SECRET: 'secret', TENDRIL_AGENT_ROLE: 'authenticated' })
  const claims = decode((await (await Signer.of(settings)).token(cluster)).access_token.split('.')[1])
  strictEqual(claims.role, 'authenticated')
  strictEqual(claims.agent, true)
})

Deno.test('the agent of a cluster is always the same one, and its id is that of no cluster and no user', async () => {
  strictEqual(await agentId(cluster), await agentId(cluster))
  notStrictEqual(await agentId(cluster), cluster)
  notStrictEqual(await agentId(cluster), await agentId(cluster.replace('c', 'd')))
  match(await agentId(cluster), /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
})

Deno.test('a mistake in the settings names the variable and shows no value', async () => {
  const { jwk } = await signingKey()
  const wrong: [Record<string, string>, RegExp][] = [
    [{ SUPABASE_URL: '' }, /^SUPABASE_URL is not set$/],
    [{ SUPABASE_URL: 'nowhere' }, /^SUPABASE_URL is no URL$/],
    [{ SUPABASE_SECRET_KEYS: 'hunter2' }, /^SUPABASE_SECRET_KEYS is no JSON$/],
    [{ SUPABASE_SECRET_KEYS: '{}' }, /^SUPABASE_SERVICE_ROLE_KEY is not set$/],
    [{ TENDRIL_JWT_SECRET: '' }, /^set TENDRIL_SIGNING_KEY/],
    [{ TENDRIL_SIGNING_KEY: 'hunter2' }, /^TENDRIL_SIGNING_KEY is no JSON$/],
    [{ TENDRIL_SIGNING_KEY: JSON.stringify({ ...jwk, d: undefined }) }, /must be a private key of type EC/],
    [{ TENDRIL_SIGNING_KEY: JSON.stringify([{ ...jwk, kid: undefined }]) }, /has no kid/],
    [{ TENDRIL_TOKEN_LIFE: '901' }, /^TENDRIL_TOKEN_LIFE must be whole seconds from 10 to 900$/],
    [{ TENDRIL_TOKEN_LIFE: '1h' }, /^TENDRIL_TOKEN_LIFE/],
    [{ TENDRIL_AGENT_ROLE: 'service_role' }, /^TENDRIL_AGENT_ROLE must be/],
  ]
  for (const [change, message] of wrong) {
    throws(() => Settings.read({ ...project, TENDRIL_JWT_SECRET: 'x', ...change }), { message }, JSON.stringify(change))
  }
  const torn = { ...jwk, d: '%' }
  const settings = Settings.read({ ...project, TENDRIL_SIGNING_KEY: JSON.stringify(torn) })
  await rejects(Signer.of(settings), { message: /^TENDRIL_SIGNING_KEY is no valid key$/ })
})
