// One request: a key or a claim in, a token out.

import { answer } from './answer.ts'
import type { Clusters, Decision, ShownClaim } from './clusters.ts'
import { readKey } from './key.ts'
import type { Signer } from './token.ts'

/** What the exchange needs. */
export interface Dependencies {
  clusters: Clusters
  signer: Signer
}

const LARGEST_BODY = 4096

/**
 * No refusal leaves earlier than this many milliseconds after its request came: it takes the same time whether the text was no
 * key, the cluster unknown or the key wrong.
 */
export const REFUSAL_TIME = 250

/** Answers one request. */
export async function exchange(request: Request, { clusters, signer }: Dependencies): Promise<Response> {
  const arrived = performance.now()
  if (request.method !== 'POST') return answer.methodNotAllowed()
  const shown = await shownIn(request)
  if (shown === null) return answer.badRequest()

  try {
    const decision = typeof shown === 'string' ? await ofKey(shown, clusters) : await clusters.claim(shown)
    switch (decision.result) {
      case 'granted':
        return answer.token(await signer.token(decision.cluster_id, decision.deployment_id))
      case 'revoked':
        return answer.revoked()
      case 'limited':
        return answer.limited(decision.retry_after)
      case 'refused':
        await new Promise((resolve) => setTimeout(resolve, arrived + REFUSAL_TIME - performance.now()))
        return typeof shown === 'string' ? answer.refused() : answer.claimRefused()
      default:
        throw new Error('the database gave an answer of another version')
    }
  } catch (error) {
    // deno-lint-ignore no-console
    console.error(`agent-token: ${error instanceof Error ? error.message : error}`)
    return answer.unavailable()
  }
}

async function ofKey(text: string, clusters: Clusters): Promise<Decision> {
  const key = await readKey(text)
  return key ? await clusters.key(key) : { result: 'refused' }
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** The key in a request's body, unread, or the claim; null when there is neither, or both. */
async function shownIn(request: Request): Promise<string | ShownClaim | null> {
  try {
    const body = JSON.parse(await start(request.body))
    const { key, deployment_id, claim_token } = body ?? {}
    const hasClaim = deployment_id !== undefined || claim_token !== undefined
    if (!hasClaim) return typeof key === 'string' ? key.trim() : null
    if (key !== undefined || !UUID.test(String(deployment_id)) || !UUID.test(String(claim_token))) return null
    return { deploymentId: deployment_id, claimToken: claim_token }
  } catch {
    return null
  }
}

/** A body as text. One that is too large is not read to its end, and then is no JSON. */
async function start(body: Request['body']): Promise<string> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const chunk of body ?? []) {
    text += decoder.decode(chunk, { stream: true })
    if (text.length > LARGEST_BODY) return ''
  }
  return text
}
