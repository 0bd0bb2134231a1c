// Checks in the database whether a key is valid for a cluster, or a claim for a deployment.

import type { ShownKey } from './key.ts'
import type { Settings } from './settings.ts'

/** The answer of the database: `public.exchange_cluster_key`, `public.exchange_claim`. */
export type Decision =
  | { result: 'granted'; cluster_id: string; deployment_id?: string }
  /** A wrong key or claim, or no such cluster or deployment: the database does not return which. */
  | { result: 'refused' }
  /** The right key of a cluster that was revoked. */
  | { result: 'revoked' }
  /** Too many exchanges this minute; seconds to wait. */
  | { result: 'limited'; retry_after: number }

/** The claim that a run shows instead of a key. */
export interface ShownClaim {
  deploymentId: string
  claimToken: string
}

/** The database's answers. */
export interface Clusters {
  key(shown: ShownKey): Promise<Decision>
  claim(shown: ShownClaim): Promise<Decision>
}

/** Longer than any healthy answer takes, shorter than agents wait. */
const TIMEOUT = 5_000

/** The clusters of a project. */
export function clustersOf({ url, secretKey }: Pick<Settings, 'url' | 'secretKey'>): Clusters {
  const headers: Record<string, string> = { apikey: secretKey, 'content-type': 'application/json' }
  // Old projects' keys are JWTs and go into both headers; a new secret key is none and must not.
  if (!secretKey.startsWith('sb_')) headers.authorization = `Bearer ${secretKey}`

  const ask = async (name: string, args: Record<string, string>): Promise<Decision> => {
    const response = await fetch(`${url}/rest/v1/rpc/${name}`, {
      method: 'POST',
      headers,
      body: JSON.stringify(args),
      signal: AbortSignal.timeout(TIMEOUT),
    })
    if (!response.ok) {
      const { code } = await response.json().catch(() => ({ code: undefined }))
      throw new Error(`the database answered ${response.status} ${code ?? ''}`.trim())
    }
    return await response.json()
  }

  return {
    key: ({ clusterId, hash }) => ask('exchange_cluster_key', { cluster_id: clusterId, key_hash: hash }),
    claim: ({ deploymentId, claimToken }) =>
      ask('exchange_claim', { deployment_id: deploymentId, claim_token: claimToken }),
  }
}
