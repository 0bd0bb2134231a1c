// One request: a key in, a token out.

import { answer } from './answer.ts'
import type { Clusters } from './clusters.ts'
import { readKey } from './key.ts'
import type { Signer } from './token.ts'

/** What the exchange needs. */
export interface Desk {
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
export async function exchange(request: Request, { clusters, signer }: Desk): Promise<Response> {
  const arrived = performance.now()
  if (request.method !== 'POST') return answer.methodNotAllowed()
  const text = await keyIn(request)
  if (text === null) return answer.badRequest()

  try {
    const key = await readKey(text)
    const verdict = key ? await clusters(key) : { result: 'refused' as const }
    switch (verdict.result) {
      case 'granted':
        return answer.token(await signer.token(verdict.cluster_id))
      case 'revoked':
        return answer.revoked()
      case 'limited':
        return answer.limited(verdict.retry_after)
      case 'refused':
        await new Promise((resolve) => setTimeout(resolve, arrived + REFUSAL_TIME - performance.now()))
        return answer.refused()
      default:
        throw new Error('the database gave an answer of another version')
    }
  } catch (error) {
    // deno-lint-ignore no-console
    console.error(`agent-token: ${error instanceof Error ? error.message : error}`)
    return answer.unavailable()
  }
}

/** The key in a request's body, unread; null when there is none. */
async function keyIn(request: Request): Promise<string | null> {
  try {
    const key = JSON.parse(await start(request.body))?.key
    return typeof key === 'string' ? key.trim() : null
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
