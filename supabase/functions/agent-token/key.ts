// API keys of clusters: `tdl_`, 22 digits of the cluster's id, 43 digits of secret; digits are base62.

const FORM = /^tdl_([0-9A-Za-z]{22})[0-9A-Za-z]{43}$/
const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** A key as the database stores it: never the key itself. */
export interface ShownKey {
  /** The cluster that it names. */
  clusterId: string
  /** SHA-256 of the whole key, in hex. */
  hash: string
}

/** Reads a key; null when it has not the form of one. */
export async function readKey(key: string): Promise<ShownKey | null> {
  const id = FORM.exec(key)?.[1]
  if (id === undefined) return null
  const number = [...id].reduce((sum, digit) => sum * 62n + BigInt(DIGITS.indexOf(digit)), 0n)
  if (number >> 128n !== 0n) return null
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(key))
  return { clusterId: uuid(number.toString(16).padStart(32, '0')), hash: hex(new Uint8Array(digest)) }
}

/** 32 hexadecimal digits in the groups of a UUID. */
export function uuid(digits: string): string {
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

/** Bytes in lower-case hexadecimal. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
