// Edge Function: a cluster's API key in, a short-lived JWT for its agent out. See README.md.

import { allOf, Settings } from './settings.ts'
import { clustersOf } from './clusters.ts'
import { exchange } from './exchange.ts'
import { answer } from './answer.ts'
import { Signer } from './token.ts'

/** Reads the settings once; a mistake in them is answered to each caller in plain English, and does not end the process. */
async function handlerFor(env: Record<string, string | undefined>): Promise<(request: Request) => Promise<Response>> {
  try {
    const settings = Settings.read(env)
    const signer = await Signer.of(settings)
    const clusters = clustersOf(settings)
    return (request) => exchange(request, { clusters, signer })
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error)
    // deno-lint-ignore no-console
    console.error(`agent-token cannot work: ${problem}`)
    return () => Promise.resolve(answer.misconfigured())
  }
}

const handler = await handlerFor(allOf(Deno.env))
Deno.serve(handler)
