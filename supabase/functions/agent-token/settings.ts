// What the function was deployed with.

/** A private key that signs tokens, as the project's JSON Web Key. */
export interface SigningKey extends JsonWebKey {
  /** Which of the project's keys it is: the servers look it up by this. */
  kid?: string
}

/** Roles that a machine token may have. `authenticated` is for projects with optional/agent_as_authenticated.sql. */
export type AgentRole = 'tendril_agent' | 'authenticated'

const LONGEST_LIFE = 900
const SHORTEST_LIFE = 10

const names = [
  'SUPABASE_URL',
  'SUPABASE_SECRET_KEYS',
  'SUPABASE_SERVICE_ROLE_KEY',
  'TENDRIL_SIGNING_KEY',
  'TENDRIL_JWT_SECRET',
  'TENDRIL_TOKEN_LIFE',
  'TENDRIL_AGENT_ROLE',
] as const

type Name = (typeof names)[number]
type Environment = Partial<Record<Name, string>>

/** The variables of this function in the process's environment. */
export function allOf(env: { get(name: string): string | undefined }): Environment {
  return Object.fromEntries(names.map((name) => [name, env.get(name)?.trim() || undefined]))
}

/** The settings, checked. Messages name the variable and never show a value. */
export class Settings {
  private constructor(
    /** Base URL of the project, without a slash at the end. */
    readonly url: string,
    /** The project's secret key: `sb_secret_…`, or the JWT of service_role on old projects. */
    readonly secretKey: string,
    /** Signs tokens: a JSON Web Key (ES256), or the shared secret of an old project (HS256). */
    readonly signing: SigningKey | string,
    /** How long a token is valid, in seconds. */
    readonly life: number,
    readonly role: AgentRole,
  ) {}

  static read(env: Environment): Settings {
    const url = required(env, 'SUPABASE_URL')
    if (!URL.canParse(url)) throw new Error('SUPABASE_URL is no URL')

    const life = Number(env.TENDRIL_TOKEN_LIFE ?? LONGEST_LIFE)
    if (!Number.isInteger(life) || life < SHORTEST_LIFE || life > LONGEST_LIFE) {
      throw new Error(`TENDRIL_TOKEN_LIFE must be whole seconds from ${SHORTEST_LIFE} to ${LONGEST_LIFE}`)
    }
    const role = env.TENDRIL_AGENT_ROLE ?? 'tendril_agent'
    if (role !== 'tendril_agent' && role !== 'authenticated') {
      throw new Error('TENDRIL_AGENT_ROLE must be tendril_agent or authenticated')
    }
    return new Settings(url.replace(/\/+$/, ''), secretKey(env), signing(env), life, role)
  }
}

function required(env: Environment, name: Name): string {
  const value = env[name]
  if (!value) throw new Error(`${name} is not set`)
  return value
}

function secretKey(env: Environment): string {
  if (!env.SUPABASE_SECRET_KEYS) return required(env, 'SUPABASE_SERVICE_ROLE_KEY')
  const keys = json('SUPABASE_SECRET_KEYS', env.SUPABASE_SECRET_KEYS) as Record<string, unknown>
  const key = keys?.default ?? Object.values(keys ?? {})[0]
  if (typeof key === 'string' && key) return key
  return required(env, 'SUPABASE_SERVICE_ROLE_KEY')
}

function signing(env: Environment): SigningKey | string {
  if (!env.TENDRIL_SIGNING_KEY) {
    if (!env.TENDRIL_JWT_SECRET) {
      throw new Error(
        'set TENDRIL_SIGNING_KEY (a private JSON Web Key, ES256), or TENDRIL_JWT_SECRET on an old project',
      )
    }
    return env.TENDRIL_JWT_SECRET
  }
  // `supabase gen signing-key` prints one key; the file that config.toml names holds a list of them.
  const parsed = json('TENDRIL_SIGNING_KEY', env.TENDRIL_SIGNING_KEY)
  const key = (Array.isArray(parsed) ? parsed[0] : parsed) as SigningKey | undefined
  if (key?.kty !== 'EC' || key.crv !== 'P-256' || !key.d) {
    throw new Error('TENDRIL_SIGNING_KEY must be a private key of type EC, curve P-256 (ES256)')
  }
  if (!key.kid) throw new Error('TENDRIL_SIGNING_KEY has no kid: without it the servers do not find its public half')
  return key
}

function json(name: Name, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // The parser's own message would quote the secret.
    throw new Error(`${name} is no JSON`)
  }
}
