// Every answer of the function. Errors are {code, message}; the message explains what to do.

import type { MachineToken } from './token.ts'

function json(status: number, body: unknown, headers: Record<string, string> = {}): Response {
  // A token must not stay in any cache on its way.
  return Response.json(body, { status, headers: { 'cache-control': 'no-store', ...headers } })
}

export const answer = {
  token: (token: MachineToken): Response => json(200, token),

  badRequest: (): Response =>
    json(400, {
      code: 'bad_request',
      message: 'Send a JSON object {"key": "tdl_…"} or {"deployment_id", "claim_token"} of at most 4 KiB.',
    }),

  /** The same for a text that is no key, an unknown cluster and a wrong key. */
  refused: (): Response =>
    json(401, { code: 'invalid_key', message: 'This API key opens no cluster. Ask its owner for the current one.' }),

  /** The same for an unknown deployment, a wrong claim_token and a claim that is over. */
  claimRefused: (): Response =>
    json(401, { code: 'invalid_claim', message: 'This claim_token holds no such deployment: stop working on it.' }),

  revoked: (): Response =>
    json(403, { code: 'cluster_revoked', message: 'The cluster was revoked. Add a new cluster and use its key.' }),

  methodNotAllowed: (): Response => json(405, { code: 'method_not_allowed', message: 'Use POST.' }, { allow: 'POST' }),

  limited: (seconds: number): Response =>
    json(429, { code: 'rate_limited', message: `Too many exchanges. Come again in ${seconds} s.` }, {
      'retry-after': String(seconds),
    }),

  misconfigured: (): Response =>
    json(500, { code: 'misconfigured', message: 'The function agent-token lacks a setting; its log says which.' }),

  unavailable: (): Response =>
    json(503, { code: 'unavailable', message: 'The database did not answer. Come again.' }, { 'retry-after': '5' }),
}
