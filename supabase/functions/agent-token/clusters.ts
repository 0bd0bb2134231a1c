// Asks the database whether a key opens a cluster.

import type { ShownKey } from './key.ts'
import type { Settings } from './settings.ts'

/** What the database says to a key: `public.exchange_cluster_key`. */
export type Verdict =
  | { result: 'granted'; cluster_id: string }
  /** A wrong key, or no such cluster: the database does not say which. */
  | { result: 'refused' }
  /** The right key of a cluster that was revoked. */
  | { result: 'revoked' }
  /** Too many exchanges this minute; seconds to wait. */
  | { result: 'limited'; retry_after: number }

/** The database's answer to keys. */
export type Clusters = (key: ShownKey) => Promise<Verdict>

/** Longer than any healthy answer takes, shorter than agents wait. */
const TIMEOUT = 5_000

/** The clusters of a project. */
export function clustersOf({ url, secretKey }: Pick<Settings, 'url' | 'secretKey'>): Clusters {
  const headers: Record<string, string> = { apikey: secretKey, 'content-type': 'application/json' }
  // Old projects' keys are JWTs and go into both headers; a new secret key is none and must not.
  if (!secretKey.startsWith('sb_')) headers.authorization = `Bearer ${secretKey}`

  return async (key) => {
    const response = await fetch(`${url}/rest/v1/rpc/exchange_cluster_key`, {
      method: 'POST',
      headers,
      body: JSON.stringify({ cluster_id: key.clusterId, key_hash: key.hash }),
      signal: AbortSignal.timeout(TIMEOUT),
    })
    if (!response.ok) {
      const { code } = await response.json().catch(() => ({ code: undefined }))
      throw new Error(`the database answered ${response.status} ${code ?? ''}`.trim())
    }
    return await response.json()
  }
}
