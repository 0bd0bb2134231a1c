// The JWT that an agent works with.

import { hex, uuid } from './key.ts'
import type { AgentRole, Settings, SigningKey } from './settings.ts'

/** What an agent gets. */
export interface MachineToken {
  access_token: string
  token_type: 'bearer'
  /** How long it is valid from now, in seconds. */
  expires_in: number
  /** When it ends, in seconds since 1970. */
  expires_at: number
  /** Seconds from now after which the agent should come again: 70 % of its life. */
  refresh_after: number
}

type Header = { alg: 'ES256'; typ: 'JWT'; kid: string } | { alg: 'HS256'; typ: 'JWT' }

/** Signs tokens with the project's key. */
export class Signer {
  private constructor(
    private readonly header: Header,
    private readonly key: CryptoKey,
    private readonly issuer: string,
    private readonly life: number,
    private readonly role: AgentRole,
  ) {}

  static async of(settings: Settings): Promise<Signer> {
    const [header, key] = typeof settings.signing === 'string'
      ? await shared(settings.signing)
      : await imported(settings.signing)
    // The same issuer as of the project's other tokens: the same keys verify them.
    return new Signer(header, key, `${settings.url}/auth/v1`, settings.life, settings.role)
  }

  /** A token for the agent of a cluster, or for the run of one of its deployments; `now` in milliseconds since 1970. */
  async token(clusterId: string, deploymentId?: string, now: number = Date.now()): Promise<MachineToken> {
    const issued = Math.floor(now / 1000)
    const expires = issued + this.life
    const claims = {
      iss: this.issuer,
      aud: 'authenticated',
      role: this.role,
      // What the policies of agents require where agents and users share a role.
      ...(this.role === 'authenticated' ? { agent: true } : {}),
      sub: await agentId(clusterId),
      cluster_id: clusterId,
      // With it the policies let the token reach this deployment alone.
      ...(deploymentId ? { deployment_id: deploymentId } : {}),
      jti: crypto.randomUUID(),
      iat: issued,
      exp: expires,
    }
    return {
      access_token: await this.sign(claims),
      token_type: 'bearer',
      expires_in: this.life,
      expires_at: expires,
      refresh_after: Math.floor(this.life * 0.7),
    }
  }

  private async sign(claims: Record<string, unknown>): Promise<string> {
    const signed = `${base64url(JSON.stringify(this.header))}.${base64url(JSON.stringify(claims))}`
    const algorithm = this.header.alg === 'ES256' ? { name: 'ECDSA', hash: 'SHA-256' } : 'HMAC'
    const signature = await crypto.subtle.sign(algorithm, this.key, new TextEncoder().encode(signed))
    return `${signed}.${base64url(new Uint8Array(signature))}`
  }
}

/**
 * The `sub` of a cluster's agents: always the same, and no user's. It is made by a hash because an owner may choose the id
 * of a new cluster: were it the id itself, somebody could choose another user's.
 */
export async function agentId(clusterId: string): Promise<string> {
  const text = new TextEncoder().encode(`tendril agent of ${clusterId}`)
  const bytes = new Uint8Array(await crypto.subtle.digest('SHA-256', text)).slice(0, 16)
  // Version 8, "custom": users' ids are of version 4.
  bytes[6] = (bytes[6]! & 0x0f) | 0x80
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  return uuid(hex(bytes))
}

async function imported(key: SigningKey): Promise<[Header, CryptoKey]> {
  // Only the key itself: exported keys also list their allowed uses, and then cannot be imported for signing.
  const { kty, crv, x, y, d } = key
  const curve = { name: 'ECDSA', namedCurve: 'P-256' }
  const signing = await crypto.subtle.importKey('jwk', { kty, crv, x, y, d }, curve, false, ['sign'])
    // The cause may show parts of the key.
    .catch(() => Promise.reject(new Error('TENDRIL_SIGNING_KEY is no valid key')))
  return [{ alg: 'ES256', typ: 'JWT', kid: key.kid ?? '' }, signing]
}

async function shared(secret: string): Promise<[Header, CryptoKey]> {
  const bytes = new TextEncoder().encode(secret)
  const key = await crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign'])
  return [{ alg: 'HS256', typ: 'JWT' }, key]
}

function base64url(data: string | Uint8Array): string {
  const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
}
